"""The answer of a pipeline: a dict that JSON takes as it is, and that reads well in a console and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_ITEMS = 6
"""Entries of a list of numbers that are shown."""


class Answer(dict[str, Any]):
    """What a pipeline answers to one input. All of it is there; long lists are only shown shortened."""

    def __repr__(self) -> str:
        return shortened(dict(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return page_of(self)


def shortened(value: Any) -> str:
    """As `repr` says it, with lists of plain values cut after a few entries, which are then counted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shortened(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        if len(value) > MOST_ITEMS and not any(isinstance(item, Mapping) for item in value):
            return f"[{', '.join(shortened(item) for item in value[: MOST_ITEMS - 1])}, … {len(value)} in all]"
        return f"[{', '.join(map(shortened, value))}]"
    return repr(value)


def _escaped(text: str) -> str:
    from html import escape  # here, because only notebooks show pages

    return escape(text)


def page_of(facts: Mapping[str, Any]) -> str:
    """Facts as an HTML table; a list of mappings becomes a table within it."""
    rows = "".join(f"<tr><th>{_escaped(str(name))}</th><td>{_cell(fact)}</td></tr>" for name, fact in facts.items())
    return f"<table>{rows}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return _table(value)
    if isinstance(value, Mapping):
        return page_of(value)
    return _escaped(value if isinstance(value, str) else shortened(value))


def _table(items: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for item in items for name in item))
    head = "".join(f"<th>{_escaped(str(name))}</th>" for name in names)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(item[name]) if name in item else str()}</td>' for name in names)}</tr>"
        for item in items
    )
    return f"<table><tr>{head}</tr>{rows}</table>"
