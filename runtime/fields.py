"""Taking typed values out of JSON, with the place of whatever is wrong: ``models.age.inputs[0].dtype``."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runtime.errors import BundleError

# A name is a file name in one folder on any system: no separators, no leading dot, no drive letters.
_FLAT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class BundleWarning(UserWarning):
    """Something in a bundle is not understood and was left aside."""


def parse_json(data: bytes) -> Any:
    """The content of ``manifest.json``; constants that JSON does not have and keys that are there twice are refused.

    Raises:
        BundleError: it is not such JSON.
    """

    def refuse_constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
        return result

    try:
        return json.loads(data.decode(), parse_constant=refuse_constant, object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not valid JSON: {error}") from error


class Fields:
    """Takes keys out of a JSON object one by one and warns about what is left."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected an object")
        self._left = dict(value)
        self._where = where

    def take(self, key: str, parse: Callable[[Any, str], T], *, default: Any = BundleError) -> T:
        """Takes one key out; without a default it has to be there. null counts as absent where None is the default."""
        where = f"{self._where}.{key}" if self._where else key
        if key not in self._left:
            if default is BundleError:
                raise BundleError(f"manifest.json: {where} is missing")
            return default  # type: ignore[no-any-return]
        value = self._left.pop(key)
        if value is None and default is None:
            return None  # type: ignore[return-value]
        return parse(value, where)

    def finish(self) -> None:
        """Warns about the keys that nobody took."""
        if self._left:
            place = f" in {self._where}" if self._where else ""
            keys = ", ".join(sorted(map(repr, self._left)))
            warnings.warn(f"manifest.json: unknown keys{place}: {keys} (left aside)", BundleWarning, stacklevel=2)


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), f"the number {value}" if isinstance(value, int | float) else type(value).__name__)


def text(value: Any, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a text")
    return value


def integer(value: Any, where: str) -> int:
    """A whole number of at least 0."""
    if type(value) is not int or value < 0:
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a whole number of at least 0")
    return value


def truth(value: Any, where: str) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected true or false")
    return value


def number(value: Any, where: str) -> float:
    """A finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a finite number of at least 0")
    return float(value)


def flat_name(value: Any, where: str = "name") -> str:
    """A file name that lies in the bundle's own folder on every system.

    Raises:
        BundleError: the name has separators, leads out of the folder, or begins with a dot.
    """
    if not isinstance(value, str) or not _FLAT_NAME.fullmatch(value):
        raise BundleError(
            f"{where}: {value!r} is not a flat file name (letters, digits, '.', '_', '+', '-'; no folders)"
        )
    return value


def digest(value: Any, where: str) -> str:
    """A sha256 as 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise BundleError(f"manifest.json: {where} is {value!r:.80}, expected 64 lower-case hexadecimal digits")
    return value


def choice(choices: frozenset[str]) -> Callable[[Any, str], str]:
    """One of a closed set of texts."""

    def parse(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise BundleError(f"manifest.json: {where} is {value!r:.80}, expected one of {', '.join(sorted(choices))}")
        return value

    return parse


def shape(value: Any, where: str) -> tuple[int | str, ...]:
    """A list of sizes and names of dimensions."""
    if not isinstance(value, list):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a list of sizes and names")
    for size in value:
        if not (isinstance(size, str) and size) and not (type(size) is int and size >= 0):
            raise BundleError(f"manifest.json: {where} holds {size!r}, expected a size or the name of a dimension")
    return tuple(value)


def free_object(value: Any, where: str) -> Mapping[str, Any]:
    """An object whose keys are not looked at here."""
    if not isinstance(value, Mapping):
        raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected an object")
    return dict(value)


def tuple_of(parse: Callable[[Any, str], T]) -> Callable[[Any, str], tuple[T, ...]]:
    """A list whose items `parse` takes."""

    def parse_list(value: Any, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BundleError(f"manifest.json: {where} is {kind_of(value)}, expected a list")
        return tuple(parse(item, f"{where}[{index}]") for index, item in enumerate(value))

    return parse_list


def mapping_of(parse: Callable[[Any, str], T]) -> Callable[[Any, str], Mapping[str, T]]:
    """An object whose values `parse` takes."""

    def parse_mapping(value: Any, where: str) -> Mapping[str, T]:
        return {key: parse(item, f"{where}.{key}") for key, item in free_object(value, where).items()}

    return parse_mapping
