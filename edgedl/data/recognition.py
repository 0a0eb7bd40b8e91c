"""Opening a data set whose format is told from its contents: the same for faces and for captions."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from edgedl.data.sources import Source
from runtime.errors import InputError

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def recognise(source: Source, formats: Sequence[ModuleType]) -> tuple[str, ...]:
    """The names of the formats whose files are there."""
    return tuple(module.NAME for module in formats if module.recognises(source))


def load(source: Source, formats: Sequence[ModuleType], kind: str, format: str | None) -> Any:  # noqa: A002 - as above
    """Reads a data set.

    Args:
        source: where it lies.
        formats: modules with NAME, EXPECTED (what its files look like, after "expected"), recognises(source) and
            load(source).
        kind: what the formats hold, for messages, e.g. "face".
        format: a NAME, or None to recognise it.

    Returns:
        What the format's ``load`` gives.

    Raises:
        InputError: it is none of the formats or could be several, or it is not the format asked for.
    """
    if format is not None:
        return _by_name(formats, kind, format).load(source)
    matching = recognise(source, formats)
    if not matching:
        looked_for = "\n".join(f"  {module.NAME}: {module.EXPECTED}" for module in formats)
        raise InputError(
            f"{source.path} is no {kind} data set that edgedl knows; {_contents(source)}. Looked for:\n{looked_for}"
        )
    if len(matching) > 1:
        raise InputError(
            f"{source.path} could be any of {', '.join(matching)}:"
            " say which with --format (in Python format=), or give the folder of one of them"
        )
    return _by_name(formats, kind, matching[0]).load(source)


def _by_name(formats: Sequence[ModuleType], kind: str, name: str) -> ModuleType:
    for module in formats:
        if name == module.NAME:
            return module
    raise InputError(
        f"no {kind} data format is called {name!r}; there are: {', '.join(module.NAME for module in formats)}"
    )


def _contents(source: Source) -> str:
    names = source.names()
    if not names:
        return "it is empty"
    found = f"it holds {len(names):,} files such as {', '.join(names[:3])}"
    packed = [name for name in names if name.lower().endswith(ARCHIVES)]
    return f"{found}; what is packed in it, {packed[0]}, has to be unpacked first" if packed else found
