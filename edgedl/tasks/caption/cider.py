"""CIDEr-D of many captions in a few milliseconds: for early stopping, and as the reward of self-critical training.

Vedantam, Zitnick, Parikh 2015, "CIDEr: consensus-based image description evaluation", section 3 and the robust variant
of section 6, as pycocoevalcap's ``Cider`` computes it: n-grams of 1 to 4 words weighted by tf-idf, the weights of the
candidate clipped at the reference's, a Gaussian penalty of the difference in length, the mean over n and references.

The value is pycocoevalcap's, ten times the paper's mean of cosines: 0 … 10, and a caption that equals its only
reference has 10. Papers print a hundred times this value ("73.1"), so what is called a fraction elsewhere is this.

The references are turned into sorted integer tables once, so that a step of training looks its n-grams up with numpy
and never touches a dictionary of tuples.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.errors import InputError

ORDERS = 4
"""n-grams of 1 … 4 words."""

SIGMA = 6.0
"""Width in words of the penalty on differences in length."""

SCALE = 10.0

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Caption = Sequence[Hashable]
"""The words of a caption, as texts or as tokens; without start and end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """What is known of the n-grams of one length: G of them, numbered from 0, in R references.

    Attributes:
        keys: (G,) sorted: (number of the n-gram without its last word) · W + (number of its last word).
        weights: (G + 1,) inverse document frequencies; the last is that of an n-gram that is not known.
        pairs: (P,) sorted: (image) · G + (n-gram), for every n-gram of every image's references.
        starts: (P + 1,) where the entries of each pair begin.
        rows: (E,) the reference of each entry.
        values: (E,) the tf-idf weight of the n-gram in that reference.
        norms: (R,) length of each reference's vector.
    """

    keys: Integers
    weights: Floats
    pairs: Integers
    starts: Integers
    rows: Integers
    values: Floats
    norms: Floats


class CiderD:
    """References, prepared; see the module.

    Args:
        references: of every image or clip its captions, at least one.
        corpus: captions by image whose document frequencies count; None: the references themselves, as in
            pycocoevalcap. The log of the number of its images is the weight of an n-gram that it does not have.

    Raises:
        InputError: there is nothing to compare with.
    """

    def __init__(
        self, references: Sequence[Sequence[Caption]], corpus: Sequence[Sequence[Caption]] | None = None
    ) -> None:
        for what, images in (("references", references), ("corpus", references if corpus is None else corpus)):
            if not images or not all(map(len, images)):
                found = f"{len(images)} images, {sum(not image for image in images)} of them without a caption"
                raise InputError(f"CIDEr-D was given {what} of {found}; expected images with at least one caption each")
        collected = [*references] if corpus is None else [*references, *corpus]
        captions = [caption for image in collected for caption in image]
        per_image = np.array([len(image) for image in collected])
        self._first = np.concatenate(([0], np.cumsum(per_image[: len(references)])))  # of each image, (images + 1,)
        self._words: dict[Hashable, int] = {}
        words, lengths = _numbers(captions, self._words, self._words)
        self._bigrams = _bigrams(lengths[: self._first[-1]])
        image_of = np.repeat(np.arange(len(collected)), per_image)
        first_of_corpus = 0 if corpus is None else len(references)
        self._orders: list[_Order] = []
        for row, gram, times, keys in _grams(words, lengths, len(self._words), []):
            self._orders.append(_order(row, gram, times, keys, image_of, int(self._first[-1]), first_of_corpus))

    def __len__(self) -> int:
        return len(self._first) - 1

    def scores(self, candidates: Sequence[Caption], images: ArrayLike) -> Floats:
        """CIDEr-D of captions, each against the references of its image.

        Args:
            candidates: N captions of any length, the empty one included.
            images: (N,) the image of each, a number from 0.

        Returns:
            (N,), 0 … 10.

        Raises:
            InputError: another number of images than captions, or an image that is not there.
        """
        chosen = np.asarray(images, np.int64).reshape(-1)
        count = len(candidates)
        if len(chosen) != count:
            raise InputError(f"{count} captions for {len(chosen)} images; expected one image for each caption")
        if count == 0:
            return np.zeros(0)
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise InputError(f"images {chosen.min()} to {chosen.max()} were named; there are 0 to {len(self) - 1}")
        # A slot is a candidate with one of its references; S of them.
        per_candidate = self._first[chosen + 1] - self._first[chosen]  # (N,)
        first_slot = np.cumsum(per_candidate) - per_candidate  # (N,)
        candidate = np.repeat(np.arange(count), per_candidate)  # (S,)
        shift = self._first[chosen] - first_slot  # (N,) from a slot to its reference
        reference = np.arange(len(candidate)) + shift[candidate]  # (S,)

        words, lengths = _numbers(candidates, self._words, {})
        cosines = np.zeros(len(candidate))
        known = [order.keys for order in self._orders]
        for order, (row, gram, times, _) in zip(
            self._orders, _grams(words, lengths, len(self._words), known), strict=True
        ):
            value = times * order.weights[np.minimum(gram, len(order.keys))]
            norms = np.sqrt(_sums(row, value * value, count))  # (N,)
            source, entry = _entries(order, chosen[row], gram)
            clipped = np.minimum(value[source], order.values[entry]) * order.values[entry]
            slots = order.rows[entry] - shift[row[source]]
            dots = _sums(slots, clipped, len(cosines))
            scale = norms[candidate] * order.norms[reference]
            cosines += np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)
        difference = _bigrams(lengths)[candidate] - self._bigrams[reference]
        cosines *= np.exp(-(difference**2) / (2 * SIGMA**2))
        scores: Floats = SCALE * _sums(candidate, cosines, count) / ORDERS / per_candidate
        return scores


def _numbers(
    captions: Sequence[Caption], known: dict[Hashable, int], fresh: dict[Hashable, int]
) -> tuple[Integers, Integers]:
    """The words of all captions one after the other as numbers, and how many each has.

    A word that is not known gets the next number and goes into `fresh`, which may be `known` itself.
    """
    offset = 0 if fresh is known else len(known)
    words = []
    for caption in captions:
        for word in caption:
            number = known.get(word)
            words.append(fresh.setdefault(word, offset + len(fresh)) if number is None else number)
    return np.array(words, np.int64), np.array([len(caption) for caption in captions], np.int64)


def _bigrams(lengths: Integers) -> Integers:
    """What pycocoevalcap takes for the length of a caption: the number of its pairs of words."""
    return np.maximum(lengths - 1, 0)


def _grams(
    words: Integers, lengths: Integers, vocabulary: int, known: Sequence[Integers]
) -> Iterator[tuple[Integers, Integers, Integers, Integers]]:
    """The n-grams of captions, for n = 1 … 4.

    Args:
        words: (T,) the words of all captions; numbers from `vocabulary` on are words that are not known.
        lengths: how many of them each caption has.
        vocabulary: W.
        known: the keys of each order, to number n-grams by; empty: these very captions define the numbers.

    Yields:
        (caption, n-gram, how often, keys), the first three once for each n-gram of each caption. An n-gram that is not
        known has a number from len(keys) on.
    """
    row = np.repeat(np.arange(len(lengths)), lengths)  # (T,)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here to the caption's end
    base = max(vocabulary, int(words.max(initial=0)) + 1)
    start = np.arange(len(words))
    gram, keys = words, np.arange(vocabulary)
    for n in range(1, ORDERS + 1):
        if n > 1:
            longer = left[start] >= n
            start, gram = start[longer], gram[longer]
            prefixes, last = len(keys), words[start + n - 1]
            extended, key = gram * base + last, gram * vocabulary + last
            keys = known[n - 1] if known else np.unique(key)
            place, found = _find(keys, key)
            found &= (gram < prefixes) & (last < vocabulary)
            gram = np.where(found, place, len(keys))
            if not found.all():
                gram[~found] += np.unique(extended[~found], return_inverse=True)[1]
        size = max(len(keys), int(gram.max(initial=0)) + 1)
        pair, times = np.unique(row[start] * size + gram, return_counts=True)
        yield pair // size, pair % size, times, keys


def _order(
    row: Integers,
    gram: Integers,
    times: Integers,
    keys: Integers,
    image_of: Integers,
    references: int,
    first_of_corpus: int,
) -> _Order:
    """The tables of one order; rows from `references` on and images from `first_of_corpus` on are the corpus."""
    size = max(len(keys), 1)
    image = image_of[row]
    documents = np.unique(image[image >= first_of_corpus] * size + gram[image >= first_of_corpus]) % size
    frequencies = np.append(np.bincount(documents, minlength=len(keys)), 0)
    weights = np.log(image_of[-1] + 1 - first_of_corpus) - np.log(np.maximum(frequencies, 1))
    own = row < references
    row, gram, values = row[own], gram[own], (times * weights[gram])[own]
    norms = np.sqrt(_sums(row, values * values, references))
    pair = image_of[row] * size + gram
    sequence = np.argsort(pair, kind="stable")
    pairs, starts = np.unique(pair[sequence], return_index=True)
    return _Order(keys, weights, pairs, np.append(starts, len(pair)), row[sequence], values[sequence], norms)


def _entries(order: _Order, images: Integers, grams: Integers) -> tuple[Integers, Integers]:
    """Where n-grams occur in the references of their images: (which n-gram, which entry), a line per occurrence."""
    pair, found = _find(order.pairs, images * max(len(order.keys), 1) + grams)
    found &= grams < len(order.keys)
    source = np.flatnonzero(found)
    first, count = order.starts[pair[found]], order.starts[pair[found] + 1] - order.starts[pair[found]]
    entry = np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)
    return np.repeat(source, count), entry


def _find(table: Integers, keys: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """The place of each key in a sorted table, and whether it is there; the place of an absent one means nothing."""
    if len(table) == 0:
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys


def _sums(places: Integers, values: Floats, size: int) -> Floats:
    """The sum of the values at each of `size` places."""
    return np.bincount(places, values, size).astype(np.float64)  # of nothing numpy counts in integers
