"""Bundles that come, go and are replaced while the service answers.

A bundle is opened, tried and warmed up beside the one that answers, and takes its place in one step. If it is not
right it is kept out, with the reason, and the old one goes on answering.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from runtime.bundle import Bundle
from runtime.errors import BundleError, EdgedlError, InputError
from runtime.proofs import PROOFS
from service.bundles.background import Background
from service.bundles.opening import Opening, Source
from service.bundles.repository import Repository
from service.bundles.served import Served

LOG = logging.getLogger("edgedl.service")

POLL_SECONDS = 2.0

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Names, inodes, sizes and times of a bundle's files."""


@dataclass(slots=True)
class _Place:
    """A path that a bundle was opened from."""

    path: Path
    name: str | None
    served: Served
    seen: Fingerprint | None
    unsettled: Fingerprint | None = None


class Swaps:
    """Brings bundles in and takes them out; with `watch`, also follows what happens to their files.

    Args:
        repository: What the routes answer with.
        opening: How bundles are opened.
    """

    def __init__(self, repository: Repository, opening: Opening) -> None:
        self._repository, self._opening = repository, opening
        self._changing = RLock()
        self._places: dict[Path, list[_Place]] = {}
        self._kept_out: dict[Path, str] = {}
        self._thread: Background | None = None

    @property
    def kept_out(self) -> Mapping[Path, str]:
        """Why what lies at a path does not answer."""
        return self._kept_out

    def bring(self, source: Source, name: str | None = None) -> Served:
        """Opens one more bundle and offers it.

        Raises:
            EdgedlError: It is not right, or there is one of its name and version.
        """
        path = Path(source).absolute() if isinstance(source, str | os.PathLike) else None
        with self._changing:
            seen = None if path is None else fingerprint(path)
            try:
                one = self._opening.open(source, name)
                self._offer(None, one)
            except EdgedlError as error:
                if path is not None:
                    self._keep_out(path, error)
                raise
            if path is not None:
                self._places.setdefault(path, []).append(_Place(path, name, one, seen))
                self._let_in(path)
            return one

    def refresh(self, path: Path) -> None:
        """Replaces what is offered from a path by what lies there now, if that is another bundle.

        Raises:
            EdgedlError: What lies there is not right; it is kept out.
        """
        with self._changing:
            for place in self._places.get(path, []):
                place.seen, place.unsettled = fingerprint(path), None
                try:
                    self._replace(place)
                except EdgedlError as error:
                    self._keep_out(path, error)
                    raise

    def take_out(self, path: Path) -> None:
        """Offers what came from a path no more."""
        with self._changing:
            for place in self._places.pop(path, []):
                self._repository.remove(place.served)

    def offered(self, path: Path) -> tuple[Served, ...]:
        """What is offered from a path."""
        return tuple(place.served for place in self._places.get(path, ()))

    def look(self) -> None:
        """Looks once whether files have changed, and swaps what was replaced."""
        with self._changing:
            for place in [place for places in self._places.values() for place in places]:
                now = fingerprint(place.path)
                if now is None or now == place.seen:
                    continue  # what was removed goes on answering: it may be about to be replaced
                try:
                    self._replace(place)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told and the old one answers
                    if isinstance(error, BundleError) and now != place.unsettled:
                        place.unsettled = now  # perhaps half of a copy: it is told once it has stopped changing
                        continue
                    self._keep_out(place.path, error)
                    LOG.error("a bundle is kept out, the one before goes on answering: %s", error)
                place.seen, place.unsettled = now, None

    def watch(self, seconds: float = POLL_SECONDS) -> None:
        """Looks every few seconds, in the background."""

        def poll(stopping: threading.Event) -> None:
            while not stopping.wait(seconds):
                try:
                    self.look()
                except Exception as error:
                    LOG.error("looking for replaced bundles failed", exc_info=error)

        if self._thread is None:
            self._thread = Background(poll, "edgedl-watch")

    def close(self) -> None:
        """Ends the watch, answers what was taken, and lets every bundle go."""
        if self._thread is not None:
            self._thread.stop()
        self._repository.retired.close()
        for one in (*self._repository.all(), *self._repository.retired.bundles):
            one.close()

    def _replace(self, place: _Place) -> None:
        bundle = Bundle.open(place.path)
        old = place.served
        if bundle.digest == old.pipeline.bundle.digest:
            self._let_in(place.path)
            return
        found = bundle.manifest.name
        if place.name is None and found != old.name:
            raise InputError(
                f"{place.path}: a bundle called {found!r} lies where {old.name!r} was; serve it as one more, or as "
                f"{old.name}=PATH"
            )
        new = self._opening.open(bundle, place.name)
        self._offer(old, new)
        place.served = new
        self._let_in(place.path)
        LOG.warning("bundle %s: version %s (%.12s) replaces %s (%.12s)", new.name, new.version, bundle.digest,
                    old.version, old.pipeline.bundle.digest)  # fmt: skip

    def _offer(self, old: Served | None, new: Served) -> None:
        try:
            if old is not None and new.failure is not None:
                raise InputError(f"{new.pipeline.bundle.path}: it does not answer its warm-up run ({new.failure})")
            self._repository.swap(old, new)
        except InputError:
            new.close()
            raise

    def _keep_out(self, path: Path, error: Exception) -> None:
        told = str(error) if isinstance(error, EdgedlError) else f"{path}: it cannot be opened: {error!r}"
        self._kept_out = self._kept_out | {path: told}

    def _let_in(self, path: Path) -> None:
        self._kept_out = {other: reason for other, reason in self._kept_out.items() if other != path}


def fingerprint(path: Path) -> Fingerprint | None:
    """What changes when a bundle is replaced, without reading it; None where nothing is there.

    Proofs are left out, because they lie outside of what a bundle answers.
    """
    try:
        files = [path] if not path.is_dir() else [path, *path.iterdir()]
        rows = []
        for file in files:
            if file is not path and (file.name == PROOFS or file.name.startswith(".")):
                continue
            found = file.stat() if file is path else file.lstat()  # the path itself may be a link that is switched
            folder = stat.S_ISDIR(found.st_mode)
            # A folder's own time changes with its proofs; its number does when another one takes its place.
            times = (0, 0) if folder else (found.st_size, found.st_mtime_ns)
            rows.append((file.name, found.st_ino, *times))
    except OSError:
        return None
    return tuple(sorted(rows))
