"""The words behind token ids: a file of a bundle that turns what a graph answers into a sentence.

One token, 0, is the start and the end of a sentence (``</s>``), as in the authors' network of Venugopalan et al. 2015;
1 stands for every word that is not known (``<unk>``). The file is UTF-8, a word a line, so that its line number, from
0, is the token: a JavaScript or C++ caller reads it by splitting at line feeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from types import MappingProxyType
from typing import SupportsIndex

from runtime.errors import BundleError, InputError

END = 0
"""The token that starts and ends every sentence."""

UNKNOWN = 1
"""The token of every word that is not in the vocabulary."""

END_WORD = "</s>"
UNKNOWN_WORD = "<unk>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that a captioner knows.

    Attributes:
        words: the word of each token; ``</s>``, ``<unk>``, then any words, each of them once.
        tokens: the token of each word; made from ``words``.

    Raises:
        InputError: the first two words are others, a word occurs twice, is empty or holds a blank.
    """

    words: tuple[str, ...]
    tokens: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.words[:2] != (END_WORD, UNKNOWN_WORD):
            raise InputError(
                f"a vocabulary that begins with {list(self.words[:2])}; expected ['{END_WORD}', '{UNKNOWN_WORD}']:"
                " the end of a sentence and the unknown word come first"
            )
        tokens: dict[str, int] = {}
        for token, word in enumerate(self.words):
            if word.split() != [word]:
                raise InputError(f"the word {token} of the vocabulary is {word!r}; expected a word without blanks")
            if tokens.setdefault(word, token) != token:
                raise InputError(
                    f"the words {tokens[word]} and {token} of the vocabulary are both {word!r}; name each word once"
                )
        object.__setattr__(self, "tokens", MappingProxyType(tokens))

    def __len__(self) -> int:
        return len(self.words)

    def __reduce__(self) -> tuple[type[Vocabulary], tuple[tuple[str, ...]]]:
        return Vocabulary, (self.words,)  # a mapping proxy cannot be pickled

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """A sentence.

        Args:
            ids: tokens; from the first 0 on nothing is read.

        Returns:
            The words before the end, a blank between them.

        Raises:
            InputError: a token that the vocabulary does not have.
        """
        words = []
        for token in map(index, ids):
            if token == END:
                break
            if not 0 < token < len(self.words):
                raise InputError(
                    f"the token {token} has no word: the vocabulary has {len(self.words)} words;"
                    " is it the one that the network was trained with?"
                )
            words.append(self.words[token])
        return " ".join(words)

    def to_bytes(self) -> bytes:
        """The file's content: UTF-8, a word a line."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Vocabulary:
        """Reads what ``to_bytes`` gave.

        Raises:
            BundleError: it is not such a file.
        """
        try:
            lines = data.decode().removesuffix("\n").split("\n")
            return cls(tuple(lines))
        except UnicodeDecodeError as error:
            raise BundleError(f"the vocabulary is not UTF-8 text: {error}; make the bundle again") from error
        except InputError as error:
            raise BundleError(f"the file is no vocabulary: {error}; make the bundle again") from error
