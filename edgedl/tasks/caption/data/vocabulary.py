"""From captions to words, from words to a vocabulary, and from captions to tokens.

The tokeniser is the toolkit's own and small, so that a device, a training and a metric agree on what a word is:
lower case, letters and digits of any script, apostrophes inside a word (``don't``); everything else separates words and
is dropped, hyphens too (``t-shirt`` is two words). Stanford's PTB tokeniser, which published caption metrics use, needs
Java; it differs in that it keeps hyphens and cuts ``man's`` into ``man 's``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from runtime.errors import InputError
from runtime.vocabulary import END_WORD, UNKNOWN, UNKNOWN_WORD, Vocabulary

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = str.maketrans("’ʼ＇", "'''")


def tokenise(text: str) -> list[str]:
    """The words of a caption.

    Args:
        text: e.g. "A boy's t-shirt is red , isn't it ?"

    Returns:
        E.g. ["a", "boy's", "t", "shirt", "is", "red", "isn't", "it"]; empty where there is no word. The words,
        joined by blanks, give the same words again.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text.lower().translate(_APOSTROPHES)))


def build(captions: Iterable[str], minimum: int) -> Vocabulary:
    """The vocabulary of a training set.

    Args:
        captions: every caption that may be learnt from, and no other.
        minimum: how often a word must occur, 1 or more; rarer ones become ``<unk>``.

    Returns:
        ``</s>``, ``<unk>``, then the words by falling frequency, equally frequent ones by the alphabet.

    Raises:
        InputError: no word occurs often enough.
    """
    if minimum < 1:
        raise InputError(f"words that occur at least {minimum} times were asked for; expected 1 or more")
    counts = Counter(word for caption in captions for word in tokenise(caption))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= minimum)
    if not frequent:
        most = max(counts.values(), default=0)
        raise InputError(
            f"the captions have {len(counts):,} different words, the most frequent {most} times; expected some that"
            f" occur at least {minimum} times: lower the minimum or give more captions"
        )
    return Vocabulary((END_WORD, UNKNOWN_WORD, *(word for _, word in frequent)))


def encode(vocabulary: Vocabulary, text: str) -> list[int]:
    """The tokens of a caption, without start and end; a word that is not known becomes ``<unk>``."""
    return [vocabulary.tokens.get(word, UNKNOWN) for word in tokenise(text)]
