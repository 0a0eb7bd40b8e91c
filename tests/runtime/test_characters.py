"""Characters and their tokens: one to one, and honest about what is not known."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.characters import REPLACEMENT, Characters
from runtime.errors import BundleError, InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXT, TEXT)
def test_what_is_known_comes_back_and_the_rest_is_marked(text: str, other: str) -> None:
    characters = Characters.of(text)
    assert characters.decode(characters.encode(text)) == text
    assert 0 not in characters.encode(text)
    assert characters.decode(characters.encode(other)) == "".join(c if c in text else REPLACEMENT for c in other)
    assert set(characters.unknown(other)) == set(other) - set(text)
    assert Characters.from_bytes(characters.to_bytes()) == characters


def test_the_tokens_are_places_in_a_json_list_after_null() -> None:
    characters = Characters.of("banana\n")
    assert json.loads(characters.to_bytes()) == [None, "\n", "a", "b", "n"]
    assert characters.encode("nab?").tolist() == [4, 2, 3, 0]
    assert len(characters) == 5
    assert pickle.loads(pickle.dumps(characters)) == characters


def test_rare_characters_are_unknown() -> None:
    assert Characters.of("aaabbc", rarest=2).known == ("a", "b")
    with pytest.raises(InputError, match="empty"):
        Characters.of("abc", rarest=2)


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_that_there_is_not_is_refused(token: int) -> None:
    with pytest.raises(InputError, match=f"the token {token} has no character"):
        Characters.of("abcd").decode([token])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "are no JSON"),
        (b"\xff", "are no JSON"),
        (b"[" * 100_000, "are no JSON"),
        (b"{}", "begins with null"),
        (b"[]", "begins with null"),
        (b'["a"]', "begins with null"),
        (b"[null]", "is empty"),
        (b'[null, "ab"]', "entry 1 .* is 'ab'"),
        (b"[null, 3]", "entry 1 .* is 3"),
        (b'[null, ["a"]]', "expected one character"),
        (b'[null, "\\ud800"]', "expected one character"),
        (b'[null, "a", "b", "a"]', "'a' has the tokens 1 and 3"),
    ],
    ids=["nothing", "bytes", "deep", "object", "no entry", "no null", "none", "two", "number", "list", "half", "twice"],
)
def test_a_damaged_file_is_a_damaged_bundle(content: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Characters.from_bytes(content)
