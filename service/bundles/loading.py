"""What loads bundles into a running service and takes them out again; a service has it only where it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A bundle that can be loaded, and what became of it.

    Attributes:
        name: Of the bundle.
        version: Its version; empty where it is not known.
        state: Whether it answers.
        reason: Why not; empty where it does.
    """

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]
    reason: str = ""


class Loading(Protocol):
    """Loads bundles from a folder that the operator named."""

    def index(self) -> Sequence[IndexRow]:
        """The bundles of the folder."""

    def load(self, name: str) -> None:
        """Loads a bundle, or loads it again; it answers when this returns.

        Raises:
            Problem: there is no such bundle, or it is kept out, with the reason.
        """

    def unload(self, name: str) -> None:
        """Takes a bundle out; requests that are under way end first.

        Raises:
            Problem: there is no such bundle.
        """
