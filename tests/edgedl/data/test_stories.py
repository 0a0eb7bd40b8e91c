"""Stories told by chance: the same everywhere, and what their choices cost is what they are worth."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from itertools import pairwise

import pytest

from edgedl.tasks.chars.data import stories
from edgedl.tasks.chars.data.stories import LENGTH, STRANGERS, tell_stories

TOLD = tell_stories()


def test_the_embedded_text_is_the_same_everywhere() -> None:
    """On every Python and machine: `random.Random(seed).random()` is promised not to change."""
    assert len(TOLD.text) == LENGTH
    digest = hashlib.sha256(TOLD.text.encode()).hexdigest()
    assert digest == "718379bcc50f12d8e1d1ac85965f7a422ceecf07d1aa35088efad308ef8132c7"
    assert TOLD.text.isascii()


def test_a_longer_text_begins_as_a_shorter_one() -> None:
    shorter = tell_stories(5_000)
    assert TOLD.text.startswith(shorter.text)
    assert shorter.costs == tuple(cost for cost in TOLD.costs if cost[0] < 5_000)
    assert tell_stories(5_000, seed=1).text != shorter.text


def test_who_and_what_are_kept_up_through_a_story() -> None:
    whole = [story for story in TOLD.text.split("\n\n\n") if "At last" in story and story.endswith(".")]
    assert len(whole) > 100
    for story in whole:
        name, thing = re.match(r"(\w+) and the (\w+ \w+)\n", story).groups()
        place = re.search(r'"It lies ([^."]+)\."', story)[1]
        assert f"At last {name} looked {place}, and there lay the {thing}!" in story


def test_common_words_are_as_common_as_they_are_said_to_be() -> None:
    """The n-th stranger comes with a probability ∝ 1/√n."""
    met = Counter(re.findall(r"On the way s?he met (.+?)\. \"Where", TOLD.text))
    assert set(met) == set(STRANGERS)
    total = sum((n + 1) ** -0.5 for n in range(len(STRANGERS)))
    for number, stranger in enumerate(STRANGERS):
        expected = met.total() * (number + 1) ** -0.5 / total
        assert abs(met[stranger] - expected) < 4 * math.sqrt(expected)


def test_costs_are_those_of_the_choices() -> None:
    assert all(cost > 0 for _, cost in TOLD.costs)
    assert all(before <= after for (before, _), (after, _) in pairwise(TOLD.costs))
    # Who it is about: a girl or a boy, then one of twenty, at the very first place.
    first = [cost for place, cost in TOLD.costs if place == 0]
    name = TOLD.text.split(" ", 1)[0]
    names = stories.GIRLS if name in stories.GIRLS else stories.BOYS
    total = sum((n + 1) ** -0.5 for n in range(20))
    assert first == pytest.approx([math.log(2), math.log(total * math.sqrt(names.index(name) + 1))])
    assert TOLD.nats(0, 100) + TOLD.nats(100, LENGTH) == pytest.approx(TOLD.nats(0, LENGTH))
