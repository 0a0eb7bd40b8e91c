"""Token ids to sentences, and the file that holds the words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BundleError, InputError
from runtime.vocabulary import END, UNKNOWN, Vocabulary

BOYS = Vocabulary(("</s>", "<unk>", "a", "boy", "is", "playing", "ball"))

words = st.text(min_size=1).filter(lambda word: word.split() == [word] and word not in ("</s>", "<unk>"))
vocabularies = st.lists(words, unique=True).map(lambda found: Vocabulary(("</s>", "<unk>", *found)))


def test_the_sentence_of_the_slide() -> None:
    assert BOYS.decode(np.array([2, 3, 4, 5, 2, 6, 0, 0], np.int64)) == "a boy is playing a ball"


def test_nothing_is_read_after_the_end() -> None:
    assert BOYS.decode([2, 3, END, 99]) == "a boy"
    assert BOYS.decode([END]) == BOYS.decode([]) == ""
    assert BOYS.decode([2, UNKNOWN]) == "a <unk>"


@pytest.mark.parametrize("token", [7, -1, 2**40])
def test_a_token_without_a_word_is_an_error(token: int) -> None:
    with pytest.raises(InputError, match=rf"the token {token} has no word: the vocabulary has 7 words"):
        BOYS.decode([2, token])


def test_the_line_number_is_the_token() -> None:
    lines = BOYS.to_bytes().decode().splitlines()
    assert [lines.index(word) for word in ("</s>", "<unk>", "ball")] == [0, 1, 6]
    assert BOYS.tokens["ball"] == 6
    assert len(BOYS) == 7


def test_the_file_is_utf_8_with_plain_line_feeds() -> None:
    assert Vocabulary(("</s>", "<unk>", "café")).to_bytes() == b"</s>\n<unk>\ncaf\xc3\xa9\n"


@given(vocabularies)
def test_the_file_gives_the_vocabulary_again(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_bytes(vocabulary.to_bytes()) == vocabulary
    assert Vocabulary.from_bytes(vocabulary.to_bytes().removesuffix(b"\n")) == vocabulary


def test_it_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(BOYS))
    assert again == BOYS
    assert again.tokens == BOYS.tokens
    with pytest.raises(TypeError):
        BOYS.tokens["dog"] = 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"begins with \[''\]; expected \['</s>', '<unk>'\]"),
        (b"a\nb\n", "begins with"),
        (b"</s>\r\n<unk>\r\n", "begins with"),
        (b"</s>\n<unk>\na\nb\na\n", "the words 2 and 4 of the vocabulary are both 'a'"),
        (b"</s>\n<unk>\n\nb\n", "the word 2 of the vocabulary is ''"),
        (b"</s>\n<unk>\na b\n", "is 'a b'; expected a word without blanks"),
        (b"</s>\n<unk>\n\xff\n", "not UTF-8"),
    ],
    ids=["empty", "no special words", "line ends of Windows", "twice", "empty word", "blank", "not text"],
)
def test_another_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Vocabulary.from_bytes(data)
    assert "make the bundle again" in str(caught.value)
