"""Recognising a face data set from its contents."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

from edgedl.data import agedb, appa_real, fairface, fgnet, imdb_wiki, utkface
from edgedl.data.sources import Source, open_source
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.data.samples import FaceDataset

# Each module gives NAME, EXPECTED (what its files look like, after "expected"), recognises(source) and load(source).
FORMATS: tuple[ModuleType, ...] = (utkface, imdb_wiki, appa_real, fgnet, agedb, fairface)


def open_faces(path: str | os.PathLike[str], format: str | None = None) -> FaceDataset:  # noqa: A002 - the user's word
    """Open a face data set in its own on-disk format.

    Args:
        path: the folder or the zip that holds it; a zip is read in place.
        format: "utkface", "imdb-wiki", "appa-real", "fgnet", "agedb" or "fairface"; None recognises it from
            the contents.

    Raises:
        InputError: nothing is there, it is none of the formats or could be several, or it is not the format asked for.
        MissingExtraError: IMDB-WIKI without scipy.
    """
    source = open_source(path)
    if format is not None:
        return _by_name(format).load(source)  # type: ignore[no-any-return]
    matching = recognise(source)
    if not matching:
        looked_for = "\n".join(f"  {module.NAME}: {module.EXPECTED}" for module in FORMATS)
        raise InputError(
            f"{source.path} is no face data set that edgedl knows; {_contents(source)}. Looked for:\n{looked_for}"
        )
    if len(matching) > 1:
        raise InputError(
            f"{source.path} could be any of {', '.join(matching)}:"
            " say which with format=…, or give the folder of one of them"
        )
    return _by_name(matching[0]).load(source)  # type: ignore[no-any-return]


def recognise(source: Source) -> tuple[str, ...]:
    """The names of the formats whose files are there."""
    return tuple(module.NAME for module in FORMATS if module.recognises(source))


def _by_name(name: str) -> ModuleType:
    for module in FORMATS:
        if name == module.NAME:
            return module
    raise InputError(
        f"no face data format is called {name!r}; there are: {', '.join(module.NAME for module in FORMATS)}"
    )


def _contents(source: Source) -> str:
    names = source.names()
    if not names:
        return "it is empty"
    return f"it holds {len(names):,} files such as {', '.join(names[:3])}"
