"""The bundles of one service, by name and version. The highest version of a name is the one that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

from runtime.errors import InputError
from service.bundles.retiring import Retired
from service.bundles.served import Served
from service.problems import Problem


class Repository(Mapping[str, Served]):
    """Bundles by name; as a mapping, the highest version of each.

    Safe to use from several threads: a change replaces the table, so whoever reads sees the one before or after it.

    Attributes:
        arrived: Told of each bundle before it is asked for the first time.
    """

    def __init__(self) -> None:
        self._changing = Lock()
        self._table: dict[str, dict[str, Served]] = {}
        self.retired = Retired()
        self.arrived: Callable[[Served], None] = lambda _one: None

    def add(self, one: Served) -> None:
        """Takes in a bundle.

        Raises:
            InputError: there is one of its name and version.
        """
        self.swap(None, one)

    def remove(self, one: Served) -> None:
        """Offers a bundle no more. It is closed once its requests and streams have ended."""
        self.swap(one, None)

    def swap(self, old: Served | None, new: Served | None) -> None:
        """Puts a bundle in the place of another, so that there is no moment without either.

        Requests under way and open streams end on the old one; then it is closed.

        Raises:
            InputError: there is another one of the new one's name and version.
        """
        with self._changing:
            there = self.all()
            rows = [one for one in there if one is not old]
            if new is not None:
                if any((one.name, one.version) == (new.name, new.version) for one in rows):
                    raise InputError(
                        f"two bundles are called {new.name!r} and have the version {new.version}; each needs a route "
                        f"of its own: serve one of them as NAME={new.name}.edge"
                    )
                self.arrived(new)
                rows.append(new)
            table: dict[str, dict[str, Served]] = {name: {} for name in self._table}
            for one in sorted(rows, key=lambda one: version_key(one.version), reverse=True):
                table.setdefault(one.name, {})[one.version] = one
            self._table = {name: versions for name, versions in table.items() if versions}
        if old is not None and old in there:
            self.retired.add(old)

    def all(self) -> tuple[Served, ...]:
        """Every version of every bundle, the highest of a name first."""
        return tuple(one for versions in self._table.values() for one in versions.values())

    def lease(self, name: str, version: str | None = None) -> AbstractContextManager[Served]:
        """The bundle that answers a request. It is not closed before the request has ended.

        Raises:
            Problem: 404.
        """
        return self.hold(lambda: self.find(name, version))

    def lease_stream(self, name: str, version: str | None, stream: str) -> AbstractContextManager[Served]:
        """The bundle that holds a stream, though another may answer for its name by now.

        Raises:
            Problem: 404. Where nobody holds the stream, the bundle is given that would open one.
        """

        def holder() -> Served:
            for one in (*self.all(), *self.retired.bundles):
                if one.name == name and version in (None, one.version) and one.holds(stream):
                    return one
            return self.find(name, version)

        return self.hold(holder)

    @contextmanager
    def hold(self, find: Callable[[], Served]) -> Iterator[Served]:
        """Keeps a bundle open while it is used.

        Args:
            find: Finds it, in what is offered at that moment.

        Raises:
            Problem: 503, the service ends.
        """
        one = find()
        while not one.leases.begin():
            # It was swapped since: a bundle is taken out of the table before it is closed, unless the service ends.
            closed, one = one, find()
            if one is closed:
                raise Problem(503, "The service is about to end.", headers={"Retry-After": "2"})
        try:
            yield one
        finally:
            one.leases.end()

    def find(self, name: str, version: str | None = None) -> Served:
        """The bundle of a name, and of a version where one is given.

        Raises:
            Problem: 404.
        """
        versions = self._table.get(name)
        if versions is None:
            raise Problem(
                404,
                f"There is no bundle {name!r}; this service has {', '.join(map(repr, self._table)) or 'none'}.",
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
