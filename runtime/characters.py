"""The characters behind the tokens of a language model: a file of a bundle.

A token is the place of its character in the file, a JSON list of strings: a JavaScript or C++ caller reads it with what
it has for JSON. Token 0 has no character (``null``): it stands for every one that the model has not learnt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from types import MappingProxyType
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError, InputError

UNKNOWN = 0
"""The token of every character that is not in the list."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What the token `UNKNOWN` is shown as."""

MOST_CHARACTERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Characters:
    """The characters that a model knows.

    Attributes:
        known: the characters of the tokens from 1, each once.
        tokens: the token of each character; made from ``known``.

    Raises:
        InputError: there is none, one is no single character, or one occurs twice.
    """

    known: tuple[str, ...]
    tokens: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.known:
            raise InputError("a list of characters that is empty; expected at least one")
        if len(self.known) >= MOST_CHARACTERS:
            raise InputError(f"{len(self.known)} characters; expected fewer than {MOST_CHARACTERS}")
        tokens: dict[str, int] = {}
        for token, character in enumerate(self.known, 1):
            if not isinstance(character, str) or len(character) != 1 or "\ud800" <= character <= "\udfff":
                raise InputError(f"the entry {token} of the characters is {character!r}; expected one character")
            if tokens.setdefault(character, token) != token:
                raise InputError(f"the character {character!r} has the tokens {tokens[character]} and {token}")
        object.__setattr__(self, "tokens", MappingProxyType(tokens))

    def __len__(self) -> int:
        """How many tokens there are, the unknown one included."""
        return len(self.known) + 1

    def __reduce__(self) -> tuple[type[Characters], tuple[tuple[str, ...]]]:
        return Characters, (self.known,)  # a mapping proxy cannot be pickled

    @classmethod
    def of(cls, text: str, rarest: int = 1) -> Characters:
        """The characters that occur at least ``rarest`` times in a text, in the order of Unicode.

        Raises:
            InputError: none does.
        """
        return cls(tuple(sorted(character for character, count in Counter(text).items() if count >= rarest)))

    def encode(self, text: str) -> NDArray[np.int64]:
        """The tokens (n,) of n characters; 0 where one is unknown."""
        tokens = self.tokens
        return np.fromiter((tokens.get(character, UNKNOWN) for character in text), np.int64, len(text))

    def unknown(self, text: str) -> tuple[str, ...]:
        """The characters of a text that have no token, each once, in the order in which they come."""
        return tuple(dict.fromkeys(character for character in text if character not in self.tokens))

    def decode(self, tokens: Iterable[SupportsIndex]) -> str:
        """The text of tokens; an unknown character becomes U+FFFD.

        Raises:
            InputError: a token that there is not.
        """
        text = []
        for token in map(index, tokens):
            if not 0 <= token < len(self):
                raise InputError(f"the token {token} has no character: there are {len(self)} tokens, from 0")
            text.append(self.known[token - 1] if token else REPLACEMENT)
        return "".join(text)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps([None, *self.known]) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Characters:
        """Reads what ``to_bytes`` gave.

        Raises:
            BundleError: it is not such a file.
        """
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"the characters are no JSON: {error}; make the bundle again") from error
        if not isinstance(found, list) or not found or found[0] is not None:
            raise BundleError("the characters are no list that begins with null; make the bundle again")
        try:
            return cls(tuple(found[1:]))
        except InputError as error:
            raise BundleError(f"the file is no list of characters: {error}; make the bundle again") from error
