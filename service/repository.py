"""The bundles of one service, by name and version. The highest version of a name is the one that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Lock

from runtime.errors import InputError
from service.problems import Problem
from service.served import Served


class Repository(Mapping[str, Served]):
    """Bundles by name; as a mapping, the highest version of each.

    Safe to use from several threads: a change replaces the table, so whoever reads sees the one before or after it.

    Attributes:
        arrived: Told of each bundle before it is asked for the first time.
    """

    def __init__(self) -> None:
        self._changing = Lock()
        self._table: dict[str, dict[str, Served]] = {}
        self.arrived: Callable[[Served], None] = lambda _one: None

    def add(self, one: Served) -> None:
        """Takes in a bundle.

        Raises:
            InputError: there is one of its name and version.
        """
        with self._changing:
            versions = self._table.get(one.name, {})
            if one.version in versions:
                raise InputError(
                    f"two bundles are called {one.name!r} and have the version {one.version}; each needs a route of "
                    f"its own: serve one of them as NAME={one.name}.edge"
                )
            self.arrived(one)
            ordered = sorted([*versions.values(), one], key=lambda other: version_key(other.version), reverse=True)
            self._table = self._table | {one.name: {other.version: other for other in ordered}}

    def find(self, name: str, version: str | None = None) -> Served:
        """The bundle of a name, and of a version where one is given.

        Raises:
            Problem: 404.
        """
        versions = self._table.get(name)
        if versions is None:
            raise Problem(
                404,
                f"There is no bundle {name!r}; this service has {', '.join(map(repr, self._table))}.",
                found=name,
                expected=", ".join(self._table),
            )
        if version is None:
            return next(iter(versions.values()))
        if version not in versions:
            raise Problem(
                404,
                f"The bundle {name!r} has no version {version!r} here; it has {', '.join(versions)}.",
                found=version,
                expected=", ".join(versions),
            )
        return versions[version]

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a bundle, the highest first; none where there is no such bundle."""
        return tuple(self._table.get(name, {}))

    def __getitem__(self, name: str) -> Served:
        return next(iter(self._table[name].values()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """What versions are ordered by: ``1.10`` after ``1.9``, and ``2.0-rc1`` before ``2.0``."""
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return (*((2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts), (1, 0, ""))
