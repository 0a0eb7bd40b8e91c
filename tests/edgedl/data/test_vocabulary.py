"""The tokeniser, and vocabularies made from captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.tasks.caption.data.vocabulary import build, encode, tokenise
from runtime.errors import InputError
from runtime.vocabulary import UNKNOWN

texts = st.text() | st.text(alphabet="aAbİßΣςÅﬁ'’_-., 19²\u0301\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A child in a pink dress .", "a child in a pink dress"),
        ("A boy's t-shirt is red , isn't it ?", "a boy's t shirt is red isn't it"),
        ("the dogs' bowls, 'quoted'", "the dogs bowls quoted"),
        ("isn’t", "isn't"),
        ("digit 3 is up_down!", "digit 3 is up down"),
        ("Cafe\u0301", "caf\u00e9"),
        (" ?! ", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert tokenise(text) == expected.split()


@given(texts)
def test_tokenising_twice_changes_nothing(text: str) -> None:
    once = tokenise(text)
    assert tokenise(" ".join(once)) == once


@given(texts)
def test_words_hold_letters_digits_and_inner_apostrophes(text: str) -> None:
    for word in tokenise(text):
        assert all(part and part.isalnum() for part in word.split("'"))


def test_words_are_ordered_by_frequency_and_then_by_the_alphabet() -> None:
    vocabulary = build(["b a.", "A c b!", "d A"], minimum=1)
    assert vocabulary.words == ("</s>", "<unk>", "a", "b", "c", "d")
    assert build(["b a.", "A c b!", "d A"], minimum=2).words == ("</s>", "<unk>", "a", "b")


def test_rare_words_become_unknown() -> None:
    vocabulary = build(["a dog", "a dog", "a cat"], minimum=2)
    assert encode(vocabulary, "A cat, a dog!") == [2, UNKNOWN, 2, 3]


@given(st.lists(texts.filter(tokenise), min_size=1))
def test_a_caption_goes_to_tokens_and_back(captions: list[str]) -> None:
    vocabulary = build(captions, minimum=1)
    for caption in captions:
        assert vocabulary.decode(encode(vocabulary, caption)) == " ".join(tokenise(caption))


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(InputError, match="2 different words, the most frequent 1 times; expected some that occur at l"):
        build(["a dog"], minimum=5)
    with pytest.raises(InputError, match="lower the minimum or give more captions"):
        build([], minimum=1)
    with pytest.raises(InputError, match="expected 1 or more"):
        build(["a dog"], minimum=0)
