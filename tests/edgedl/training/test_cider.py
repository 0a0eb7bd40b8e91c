"""CIDEr-D against pycocoevalcap's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.tasks.caption.cider import CiderD
from runtime.errors import InputError

Cider = pytest.importorskip("pycocoevalcap.cider.cider", reason="the oracle is pycocoevalcap, the extra eval").Cider


def words(caption: str) -> list[str]:
    return caption.split()


# Few words, so that n-grams repeat within a caption, between references and between images.
captions = st.lists(st.sampled_from(words("a b c d e")), max_size=9)
said = captions | st.just(["unheard", "unheard", "of"])
images = st.lists(st.tuples(said, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=6)


def peer(candidates: list[list[str]], references: list[list[list[str]]]) -> np.ndarray:
    said = {i: [" ".join(caption)] for i, caption in enumerate(candidates)}
    truth = {i: [" ".join(caption) for caption in image] for i, image in enumerate(references)}
    return Cider().compute_score(truth, said)[1]


def any_word(references: list[list[list[str]]]) -> bool:
    return any(word for image in references for caption in image for word in caption)  # else the peer stops


@given(images.filter(lambda drawn: any_word([references for _, references in drawn])))
def test_equal_to_the_peer(drawn: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates, references = [list(part) for part in zip(*drawn, strict=True)]
    found = CiderD(references).scores(candidates, range(len(candidates)))
    np.testing.assert_allclose(found, peer(candidates, references), rtol=1e-9, atol=1e-9)


@given(images.filter(lambda drawn: any_word([references for _, references in drawn])), st.data())
def test_document_frequencies_of_another_corpus(drawn: list[tuple[list[str], list[list[str]]]], data: Any) -> None:
    candidates, references = [list(part) for part in zip(*drawn, strict=True)]
    chosen = data.draw(st.lists(st.sampled_from(range(len(drawn))), min_size=1, max_size=4))
    judge = CiderD([references[i] for i in chosen], corpus=references)
    found = judge.scores([candidates[i] for i in chosen], range(len(chosen)))
    np.testing.assert_allclose(found, peer(candidates, references)[chosen], rtol=1e-9, atol=1e-9)


@given(images, st.data())
def test_any_order_and_any_number_of_captions_an_image(drawn: list[Any], data: Any) -> None:
    judge = CiderD([references for _, references in drawn])
    at = data.draw(st.lists(st.sampled_from(range(len(drawn))), max_size=8))
    found = data.draw(st.lists(said, min_size=len(at), max_size=len(at)))
    one_by_one = [judge.scores([caption], [image])[0] for caption, image in zip(found, at, strict=True)]
    np.testing.assert_allclose(judge.scores(found, at), one_by_one, rtol=1e-12, atol=1e-12)


def test_the_example_of_aac_metrics() -> None:
    # README of aac-metrics 0.5: 0.9614 over all, 1.3641 and 0.5587 by caption.
    speaking = ["a man speaks", "someone speaks", "a man is speaking while a bird is chirping in the background"]
    judge = CiderD([[words(text) for text in speaking], [words("rain is falling hard on a surface")]])
    found = judge.scores([words("a man is speaking"), words("rain falls")], [0, 1])
    np.testing.assert_allclose(found, [1.3641, 0.5587], atol=5e-5)
    assert found.mean() == pytest.approx(0.96135, abs=5e-6)


def test_ten_is_the_most() -> None:
    judge = CiderD([[words("two dogs play in snow")], [words("a man rides a red bike")]])
    found = judge.scores([words("two dogs play in snow"), words("a man rides a red bike"), []], [0, 1, 1])
    np.testing.assert_allclose(found, [10, 10, 0], atol=1e-12)


def test_tokens_are_as_good_as_words() -> None:
    texts = [[words("a dog runs"), words("the dog")], [words("a cat sits")]]
    number = {word: 7 * i for i, word in enumerate(sorted({w for image in texts for c in image for w in c}), 2)}
    tokens = [[[number[word] for word in caption] for caption in image] for image in texts]
    by_words = CiderD(texts).scores([words("a dog"), words("a cat sits")], [0, 1])
    by_tokens = CiderD(tokens).scores(
        [[number["a"], number["dog"]], np.array([number[w] for w in words("a cat sits")])], [0, 1]
    )
    np.testing.assert_array_equal(by_words, by_tokens)


def test_of_one_image_nothing_is_informative() -> None:
    assert CiderD([[words("a dog")]]).scores([words("a dog")], [0]) == 0
    assert CiderD([[[]], [[]]]).scores([[], ["a"]], [0, 1]).tolist() == [0, 0]


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="references of 0 images"):
        CiderD([])
    with pytest.raises(InputError, match="references of 2 images, 1 of them without a caption; expected images with"):
        CiderD([[["a"]], []])
    with pytest.raises(InputError, match="corpus of 0 images"):
        CiderD([[["a"]]], corpus=[])
    judge = CiderD([[["a"]], [["b"]]])
    with pytest.raises(InputError, match="1 captions for 2 images"):
        judge.scores([["a"]], [0, 1])
    for image in (2, -1):
        with pytest.raises(InputError, match=rf"images {image} to {image} were named; there are 0 to 1"):
            judge.scores([["a"]], [image])
    assert judge.scores([], []).shape == (0,)
    assert len(judge) == 2
