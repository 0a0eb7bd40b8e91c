"""Little stories told by chance: English text of any length, the same on every machine, whose entropy is known.

A language model needs text that is there without a network, may be used by everybody and is the same everywhere. What
a machine has (a licence, the manual of its Python) is another text with every version. These stories are ours. They
are made of letters, words, sentences and a plot that goes on for a thousand characters: who the story is about, the
pet, the errand and the treasure are chosen once and named again and again. A model of three characters learns words,
one with a memory can learn who it is about.

Every choice is made with probabilities that stand here, and another choice gives another text. So the text's own
expectation is known: no model can need fewer nats per character on average than the choices cost (`Told.nats`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

NAME = "stories"
SEED = 2026
LENGTH = 240_000
"""Characters of the embedded text."""

GIRLS = (
    "Ada", "Bella", "Clara", "Dora", "Edith", "Fanny", "Greta", "Hilda", "Ida", "Judith", "Karen", "Lucy", "Mary",
    "Nora", "Olga", "Paula", "Ruth", "Sophie", "Thea", "Wilma",
)  # fmt: skip
BOYS = (
    "Adam", "Boris", "Conrad", "David", "Emil", "Felix", "George", "Hugo", "Ivan", "Jacob", "Karl", "Leo", "Max",
    "Noah", "Oscar", "Peter", "Quentin", "Robert", "Simon", "Tom",
)  # fmt: skip
HOMES = (
    "an old mill by the river", "a small house at the edge of the forest", "a tower on a hill", "a boat on the lake",
    "the last street of a grey town", "a cottage behind the church", "a hut among the vineyards",
    "a castle without a roof",
)  # fmt: skip
PETS = ("goat", "raven", "donkey", "cat", "hedgehog", "goose", "black dog", "tame fox", "white mouse", "parrot")
MANNERS = ("very clever", "always hungry", "older than anybody knew", "afraid of the dark", "not easily surprised")
TIMES = (
    "One morning", "One evening in autumn", "On the first day of spring", "When the snow had melted", "One Sunday",
)  # fmt: skip
ERRANDS = (
    ("to the market", "to sell apples"), ("into the forest", "to look for mushrooms"),
    ("to the well", "to fetch water"),
    ("to the smith", "to have a kettle mended"), ("down to the harbour", "to see the ships"),
    ("over the bridge", "to visit an aunt"), ("up the mountain", "to gather wood"),
    ("to school", "to learn to count"),
)  # fmt: skip
STRANGERS = (
    "a miller", "a soldier", "an old woman", "a pedlar", "a shepherd", "a fisherman", "a king in disguise",
    "a tailor", "a girl with a violin", "a very small man",
)  # fmt: skip
KINDS = ("silver", "golden", "wooden", "rusty", "broken", "tiny", "magic", "forgotten", "blue", "heavy")
THINGS = ("key", "lantern", "ring", "clock", "whistle", "book", "mirror", "spoon", "crown", "bell", "map", "coin")
PLACES = (
    "under a stone", "in a hollow tree", "at the bottom of the well", "behind the third door", "in a box of letters",
    "in the nest of an owl", "below the bridge", "between two mountains",
)  # fmt: skip
EVENTS = (
    "it began to rain", "the moon came out", "a wind rose", "somebody laughed in the dark", "the bells rang",
    "the road came to an end", "a door opened", "it grew very quiet",
)  # fmt: skip
DEEDS = (
    "hid behind a wall", "sang a song", "counted to a hundred", "ate the last of the bread", "ran as fast as could be",
    "sat down and waited", "lit a fire", "climbed a tree", "asked the way", "said nothing",
)  # fmt: skip
SAYINGS = (
    "I have seen worse", "Patience is the best road", "That is no goose of mine", "We should have stayed at home",
    "Nobody finds what nobody seeks", "There is a light over there", "A promise is a promise", "I smell cheese",
)  # fmt: skip
LESSONS = (
    "from that day on the door was never locked again", "they told the story every winter",
    "nobody in the village believed a word of it", "that is why the bells ring at seven",
    "if they have not forgotten, they know it still", "the next morning it was gone",
)  # fmt: skip
ADJECTIVES = (
    "old", "little", "dark", "cold", "green", "white", "tired", "hungry", "strange", "proud", "quiet", "clever", "grey",
    "lonely", "merry", "crooked", "patient", "sleepy", "wet", "stubborn", "polite", "yellow", "hollow", "solemn",
)  # fmt: skip
BEINGS = (
    "wolf", "crow", "farmer", "giant", "frog", "witch", "bear", "owl", "baker", "dragon", "hare", "sailor", "snail",
    "priest", "thief", "queen", "pig", "monk", "eagle", "beggar", "ghost", "swan", "cook", "dwarf",
)  # fmt: skip
NOUNS = (
    "house", "tree", "stone", "river", "bread", "fire", "wall", "window", "cart", "boot", "hat", "candle", "ladder",
    "apple", "barrel", "rope", "chair", "cloud", "field", "bucket", "kettle", "ship", "garden", "wheel", "pillow",
)  # fmt: skip
MOVES = (
    "looked", "came", "ran", "sat", "jumped", "slept", "danced", "stood", "crept", "fell", "waited", "whispered",
    "swam", "knocked", "stumbled", "vanished",
)  # fmt: skip
ACTS = (
    "saw", "took", "found", "carried", "dropped", "sold", "kicked", "painted", "hid", "lost", "wanted", "stole",
    "mended", "praised", "counted", "buried",
)  # fmt: skip
WHERE = ("beside", "under", "behind", "near", "over", "without", "around", "before", "against", "above")
HOW = ("slowly", "suddenly", "again", "all night", "with a sigh", "like a king", "in silence", "twice")
LINKS = ("and", "but", "so", "until", "because", "while")


_Option = TypeVar("_Option")


@dataclass(frozen=True, slots=True)
class Told:
    """A text and what it cost to choose it.

    Attributes:
        text: stories, two empty lines between them.
        costs: (place, nats) of every choice, in order; the choice shows from that place on.
    """

    text: str
    costs: tuple[tuple[int, float], ...]

    def nats(self, start: int, stop: int) -> float:
        """What the choices of a part of the text cost: −log of its probability under the grammar that made it."""
        return sum(cost for place, cost in self.costs if start <= place < stop)


def tell_stories(length: int = LENGTH, seed: int = SEED) -> Told:
    """Whole stories of at least so many characters, cut to that length.

    Args:
        length: characters.
        seed: of all choices.
    """
    teller = _Teller(random.Random(seed))  # noqa: S311 - no secret; its `random()` is the same in every version
    while teller.place < length:
        teller.tell()
    text = "".join(teller.parts)[:length]
    return Told(text, tuple((place, cost) for place, cost in teller.costs if place < length))


class _Teller:
    """Writes; each choice is noted with its cost at the place where it begins to show."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.parts: list[str] = []
        self.costs: list[tuple[int, float]] = []
        self.place = 0

    def write(self, *parts: str) -> None:
        for part in parts:
            self.parts.append(part)
            self.place += len(part)

    def pick(self, options: Sequence[_Option]) -> _Option:
        """The n-th of the options is taken with a probability ∝ 1/√n: some words are common, others rare."""
        total = math.fsum((n + 1) ** -0.5 for n in range(len(options)))
        aim = self.chance.random() * total
        number = 0
        while number < len(options) - 1 and (aim := aim - (number + 1) ** -0.5) >= 0:
            number += 1
        self.costs.append((self.place, math.log(total * math.sqrt(number + 1))))
        return options[number]

    def say(self, options: Sequence[str]) -> str:
        """Picks and writes."""
        word = self.pick(options)
        self.write(word)
        return word

    def happens(self, probability: float) -> bool:
        yes = self.chance.random() < probability
        self.costs.append((self.place, -math.log(probability if yes else 1 - probability)))
        return yes

    def tell(self) -> None:
        """One story."""
        girl = self.happens(0.5)
        name = self.say(GIRLS if girl else BOYS)
        they, their = ("she", "her") if girl else ("he", "his")
        self.write(" and the ")
        kind = self.say(KINDS)
        self.write(" ")
        thing = f"{kind} {self.say(THINGS)}"
        self.write("\n\nOnce there was a ", "girl" if girl else "boy", f" called {name}, who lived in ")
        self.say(HOMES)
        self.write(f". {they.capitalize()} had a ")
        pet = self.say(PETS)
        self.write(f", and the {pet} was ")
        self.say(MANNERS)
        self.write(".\n\n")
        self.say(TIMES)
        self.write(f" {name} went ")
        where, why = self.pick(ERRANDS)
        self.write(where, " ", why, ". On the way ", they, " met ")
        stranger = self.say(STRANGERS)
        whom = stranger.partition(" ")[2].removesuffix(" in disguise")
        self.write(f'. "Where are you going, {name}?" asked the {whom}. "I am going {where}," said {name}, "{why}." ')
        self.write(f'"Then look for the {thing}," said the {whom}. "It lies ')
        place = self.say(PLACES)
        self.write('."\n\n')
        tellers: tuple[Callable[[], None], ...] = (
            self._scene,
            lambda: self._event(name, pet, they),
            lambda: self._talk(name, pet, their),
            lambda: self._count(name, pet),
        )
        while self.happens(0.88):
            self.pick(tellers)()
            self.write("\n" if self.happens(0.2) else " ")
        self.write(f"At last {name} looked {place}, and there lay the {thing}! {name} gave it to ")
        if self.happens(0.6):
            self.write(f"the {whom}, who thanked {name} and the {pet}")
        else:
            self.write(f"the {pet}, and the {pet} carried it home")
        self.write("; and ")
        self.say(LESSONS)
        self.write(".\n\n\n")

    def _scene(self) -> None:
        """What somebody else does meanwhile: any subject, verb and place."""
        self.write("The ")
        self._clause()
        if self.happens(0.5):
            self.write(", ")
            self.say(LINKS)
            self.write(" the ")
            self._clause()
        self.write(".")

    def _clause(self) -> None:
        self._named(BEINGS)
        self.write(" ")
        if self.happens(0.5):
            self.say(ACTS)
            self.write(" the ")
            self._named(NOUNS)
        else:
            self.say(MOVES)
            self.write(" ")
            self.say(WHERE)
            self.write(" the ")
            self._named(NOUNS)
        if self.happens(0.3):
            self.write(" ")
            self.say(HOW)

    def _named(self, names: Sequence[str]) -> None:
        if self.happens(0.5):
            self.say(ADJECTIVES)
            self.write(" ")
        self.say(names)

    def _event(self, name: str, pet: str, they: str) -> None:
        self.write("Then ")
        self.say(EVENTS)
        self.write(", and ")
        first, second = (name, f"the {pet}") if self.happens(0.5) else (f"the {pet}", name)
        self.write(f"{first} ")
        self.say(DEEDS)
        self.write(f" while {second} ")
        self.say(DEEDS)
        self.write(f", for {they} was not afraid." if self.happens(0.3) else ".")

    def _talk(self, name: str, pet: str, their: str) -> None:
        self.write('"')
        self.say(SAYINGS)
        if self.happens(0.5):
            self.write(f'," said {name} to {their} {pet}.')
        else:
            self.write(f'," said the {pet} to {name}.')

    def _count(self, name: str, pet: str) -> None:
        self.write("So they walked for ")
        days = self.say(("two", "three", "four", "five", "six", "seven"))
        self.write(f" days; and after {days} days {name} and the {pet} ")
        self.say(DEEDS)
        self.write(".")
