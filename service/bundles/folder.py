"""A folder of bundles that are loaded and unloaded by name, as clients of a model repository ask for it.

A name is compared with those of the folder's bundles. It never becomes part of a path.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.bundle import Bundle
from runtime.errors import BundleError, EdgedlError, InputError
from service.bundles.loading import IndexRow
from service.bundles.repository import Repository
from service.bundles.swaps import Swaps
from service.problems import Problem

LOG = logging.getLogger("edgedl.service")

SUFFIX = ".edge"


class BundleFolder:
    """Loads and unloads the bundles of one folder, see `service.bundles.loading.Loading`.

    Args:
        folder: The bundles lie in it side by side, folders or files ``*.edge``.
        repository: What the routes answer with.
        swaps: What brings bundles in and takes them out.
    """

    def __init__(self, folder: str | os.PathLike[str], repository: Repository, swaps: Swaps) -> None:
        self._folder = Path(folder).absolute()
        self._repository, self._swaps = repository, swaps

    def load_all(self) -> None:
        """Loads every bundle of the folder.

        Raises:
            EdgedlError: One is not right, or there is none.
        """
        paths = self._paths()
        if not paths:
            raise InputError(f"{self._folder}: no bundle in it; expected folders or files NAME{SUFFIX}")
        for path in paths:
            self._swaps.bring(path)

    def index(self) -> list[IndexRow]:
        """Every bundle that is offered, lies in the folder, or was kept out."""
        rows = [
            IndexRow(one.name, one.version, "READY" if one.ready() else "UNAVAILABLE", self._told(one.failure or ""))
            for one in self._repository.all()
        ]
        kept_out = self._swaps.kept_out
        for path, name, version in self._found():
            if path in kept_out:
                rows.append(IndexRow(name, version, "UNAVAILABLE", self._told(kept_out[path])))
            elif not self._swaps.offered(path):
                rows.append(IndexRow(name, version, "UNAVAILABLE", "not loaded"))
        return rows

    def load(self, name: str) -> None:
        """Loads every version of a name in the folder; what was replaced since it was loaded is swapped.

        Raises:
            Problem: 404, the folder has none of this name; 422, what it has is kept out.
        """
        paths = [path for path, found, _ in self._found() if found == name]
        if not paths:
            raise self._unknown(name)
        reasons = []
        for path in paths:
            try:
                if self._swaps.offered(path):
                    self._swaps.refresh(path)
                else:
                    self._swaps.bring(path)
            except EdgedlError as error:
                LOG.error("a bundle is kept out: %s", error)
                reasons.append(self._told(str(error)))
        if reasons:
            raise Problem(422, f"The bundle {name!r} is kept out: {'; '.join(reasons)}")

    def unload(self, name: str) -> None:
        """Offers the bundles of a name no more. Requests under way and open streams end on them.

        Raises:
            Problem: 404, neither has the folder one of this name nor was one loaded from it.
        """
        offered = [path for path in self._paths() if any(one.name == name for one in self._swaps.offered(path))]
        if not offered and not any(found == name for _, found, _ in self._found()):
            raise self._unknown(name)
        for path in offered:
            self._swaps.take_out(path)

    def _paths(self) -> list[Path]:
        try:
            entries = sorted(self._folder.iterdir())
        except OSError as error:
            raise InputError(f"{self._folder}: {error.strerror or error}; expected a folder of bundles") from error
        return [path for path in entries if path.name.endswith(SUFFIX) and not path.name.startswith(".")]

    def _found(self) -> Iterator[tuple[Path, str, str]]:
        """The path, name and version of each bundle; one that cannot be read goes by the name of its file."""
        for path in self._paths():
            try:
                manifest = Bundle.open(path, check=False).manifest
            except BundleError:
                yield path, path.name.removesuffix(SUFFIX), ""
            else:
                yield path, manifest.name, manifest.version

    def _told(self, reason: str) -> str:
        """A reason without the folder, which is none of a client's business."""
        return reason.replace(f"{self._folder}{os.sep}", "")

    def _unknown(self, name: str) -> Problem:
        known = ", ".join(dict.fromkeys(found for _, found, _ in self._found()))
        return Problem(
            404, f"The repository has no bundle {name!r}; it has {known or 'none'}.", found=name, expected=known
        )
