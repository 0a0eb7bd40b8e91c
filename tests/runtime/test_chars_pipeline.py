"""Text that goes on, against a graph whose probabilities are known by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from runtime.errors import BundleError, InputError, TooLargeError
from runtime.pipelines import chars as module
from runtime.pipelines import load
from runtime.pipelines.chars import CharsPipeline
from runtime.sampling import draw_token, sampling_weights, uniform_numbers
from tests.chars import CHARACTERS, SIZE, probabilities, write_chars_bundle

TABLE = probabilities()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CharsPipeline]:
    with load(write_chars_bundle(tmp_path_factory.mktemp("bundles") / "chars.edge")) as found:
        yield found


def expected(prompt: str, length: int, temperature: float, top_k: int, seed: int) -> str:
    """The text by the table alone."""
    tokens = [0, *CHARACTERS.encode(prompt or "\n").tolist()]
    numbers = uniform_numbers(seed)
    for _ in range(length):
        scores = np.log(TABLE[tokens[-2], tokens[-1]].astype(np.float32).astype(float))
        scores[0] = -np.inf
        tokens.append(draw_token(sampling_weights(scores, temperature, top_k), next(numbers)))
    return CHARACTERS.decode(tokens[-length:])


@settings(max_examples=40)
@given(
    prompt=st.text("ab é\n?", max_size=8),
    length=st.integers(1, 40),
    temperature=st.sampled_from([0, 0.3, 0.8, 1, 3.5]),
    top_k=st.integers(0, SIZE + 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_text_is_that_of_the_table(
    pipeline: CharsPipeline, prompt: str, length: int, temperature: float, top_k: int, seed: int
) -> None:
    options: dict[str, Any] = {"length": length, "temperature": temperature, "top_k": top_k, "seed": seed}
    text = "".join(pipeline.generate(prompt, **options))
    assert text == expected(prompt, **options)
    assert text == "".join(pipeline.generate(prompt, **options))
    assert len(text) == length


def test_without_chance_it_is_the_likeliest_whatever_the_seed(pipeline: CharsPipeline) -> None:
    greedy = {
        "".join(pipeline.generate("a", length=50, seed=seed, **how))
        for seed in (0, 1, 2)
        for how in ({"temperature": 0}, {"top_k": 1, "temperature": 3}, {"temperature": 1e-9})
    }
    assert len(greedy) == 1
    assert len({"".join(pipeline.generate("a", length=50, seed=seed)) for seed in range(5)}) == 5


def test_what_follows_comes_as_often_as_the_softmax_says(pipeline: CharsPipeline) -> None:
    """Chi-square of what follows "ab" and of every other pair that comes often, in one text at temperature 1."""
    text = "".join(pipeline.generate("ab", length=20_000, temperature=1.0, seed=11))
    tokens = CHARACTERS.encode(text).tolist()
    follows: dict[tuple[int, int], Counter[int]] = {}
    for pair, token in zip(pairwise(tokens), tokens[2:], strict=False):
        follows.setdefault(pair, Counter())[token] += 1
    tested = 0
    for pair, counts in follows.items():
        weights = TABLE[pair][1:] / TABLE[pair][1:].sum()  # the unknown one is never drawn
        there = weights * counts.total() >= 5
        if counts.total() < 500 or there.sum() < 2:
            continue
        found = np.array([counts[token] for token in range(1, SIZE)])[there]
        scaled = weights[there] / weights[there].sum() * found.sum()
        assert stats.chisquare(found, scaled).pvalue > 1e-4, pair
        tested += 1
    assert tested >= 5


def test_steps_one_at_a_time_equal_one_call(pipeline: CharsPipeline) -> None:
    tokens = np.random.default_rng(0).integers(0, SIZE, (2, 60))
    whole, single = pipeline.engine.stream(), pipeline.engine.stream()
    at_once = whole.step(tokens)["log_probabilities"]
    one_by_one = [single.step(tokens[:, k : k + 1])["log_probabilities"] for k in range(60)]
    np.testing.assert_array_equal(np.concatenate(one_by_one, axis=1), at_once)


def test_a_long_prompt_is_read_in_pieces(pipeline: CharsPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "ab é" * 40 + "b"
    whole = "".join(pipeline.generate(prompt, length=30))
    for piece in (1, 3, 7, 160, 161):
        monkeypatch.setattr(module, "PIECE", piece)
        assert "".join(pipeline.generate(prompt, length=30)) == whole


def test_characters_come_as_they_are_drawn(pipeline: CharsPipeline) -> None:
    """An endless text may be left at any place, and another one begun meanwhile."""
    endless, other = pipeline.generate("a", length=1_000_000), pipeline.generate("a", length=1_000_000)
    first = [next(endless) for _ in range(20)]
    assert [next(other) for _ in range(20)] == first == list("".join(pipeline.generate("a", length=20)))


def test_the_document(pipeline: CharsPipeline, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfa?b\r\nx?")
    result = pipeline.predict(file, length=12, temperature=0.5, top_k=3, seed=4)
    assert result == {
        "text": "".join(pipeline.generate("a?b\nx?", length=12, temperature=0.5, top_k=3, seed=4)),
        "unknown": ["?", "x"],
        "length": 12,
        "temperature": 0.5,
        "top_k": 3,
        "seed": 4,
    }
    assert pipeline.predict(file.read_bytes(), length=12, temperature=0.5, top_k=3, seed=4) == result
    assert pipeline.predict(b"")["text"] == "".join(pipeline.generate("\n"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 0}, "the length is 0"),
        ({"length": 1_000_001}, "1 to 1000000"),
        ({"length": 2.0}, r"the length is 2\.0"),
        ({"length": True}, "the length is True"),
        ({"temperature": -1}, "the temperature is -1"),
        ({"top_k": -1}, "top-k is -1"),
        ({"seed": -1}, "the seed is -1"),
        ({"prompt": 3}, "the prompt is int"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_before_the_first_character(
    pipeline: CharsPipeline, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        pipeline.generate(**{"prompt": "a", **options})


def test_a_prompt_may_be_too_long(pipeline: CharsPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MOST_PROMPT", 10)
    with pytest.raises(TooLargeError, match="11 characters; expected at most 10"):
        pipeline.generate("a" * 11)
    (tmp_path / "long.txt").write_text("a" * 50)
    for source in (tmp_path / "long.txt", b"a" * 50):
        with pytest.raises(TooLargeError, match="more than 10 characters"):
            pipeline.read(source)


def test_what_is_no_text_is_refused(pipeline: CharsPipeline, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is no UTF-8 text: byte 1 is 0xe9"):
        pipeline.predict(tmp_path / "latin.txt")
    with pytest.raises(InputError, match=r"absent\.txt cannot be read"):
        pipeline.predict(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="cannot be read"):
        pipeline.predict(tmp_path)
    with pytest.raises(InputError, match="goes on with a file or its bytes"):
        pipeline.predict(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="no picture"):
        pipeline.draw(b"a", {})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"characters": None}, "has a file called characters"),
        ({"characters": b"[null]"}, "is empty"),
        ({"characters": b'[null, "a"]'}, "log_probabilities of 2 characters"),
        ({"pipeline": {}}, "are empty; a chars bundle has beginning"),
        ({"pipeline": {"beginning": "ab"}}, "beginning is 'ab'"),
        ({"pipeline": {"beginning": "a", "more": 1}}, "beginning, more"),
        ({"state": False}, "carries nothing"),
    ],
    ids=["no file", "empty", "too few", "nothing set", "two characters", "stranger", "no state"],
)
def test_a_bundle_of_another_kind_is_refused(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    bundle = write_chars_bundle(tmp_path / "odd.edge", **other)
    with pytest.raises(BundleError, match=words):
        load(bundle)
