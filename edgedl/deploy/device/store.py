"""Folders of deployments: files that were sent, releases side by side, and the link that says which one answers.

::

    ROOT/store/SHA256/FILE                     what was sent; SHA256.part as long as it is not whole
    ROOT/environments/KEY/                     virtual environments, see `edgedl.deploy.device.environments`
    ROOT/deployments/NAME/releases/ID/         NAME.edge and release.json, never changed
    ROOT/deployments/NAME/current              a link to the release that answers
    ROOT/deployments/NAME/history.json         the releases that answered, the last one at the end
    ROOT/deployments/NAME/key                  of the health check, where the service asks for keys
    ROOT/deployments/NAME/pending.json         there while a switch is under way: where it leads and where it came from

Each step is one rename or one removal. Whatever a way back needs is written before the way there is taken, so a full
disk cannot bar it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgedl.deploy.device.channel import Channel, Refused

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
SILENCE_SECONDS = 120.0
"""How long the next bytes of a file, or the next request, may take to come."""


class Store:
    """The folders of one deployment, and what all of them share.

    Args:
        root: Where everything lies.
        name: Of the deployment.
    """

    def __init__(self, root: Path, name: str) -> None:
        if not WORD.fullmatch(name):
            raise Refused(f"{name!r} cannot be the name of a deployment; letters, digits, - and _ can")
        self.root, self.name = root, name
        self.files, self.environments = root / "store", root / "environments"
        self.folder = root / "deployments" / name
        self.releases = self.folder / "releases"
        self._current, self._next, self._back = (self.folder / word for word in ("current", ".next", ".back"))
        self._history, self._history_next = self.folder / "history.json", self.folder / ".history.json"
        self._pending = self.folder / "pending.json"
        self._locked: int | None = None

    def lock(self, seconds: float) -> None:
        """Keeps every other deployment of this root out, until this process ends.

        Args:
            seconds: How long to wait for the end of another one: what was begun goes on for a while after a cut.

        Raises:
            Refused: One is under way.
        """
        for folder in (self.files, self.environments, self.releases):
            folder.mkdir(parents=True, exist_ok=True)
        self._locked = os.open(str(self.root / "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() >= end:
                    raise Refused("another deployment is under way there; try again when it has ended") from None
            time.sleep(0.2)

    def key(self) -> str:
        """The key of the health check, for a service that asks for one: made once, and known to this device alone."""
        path = self.folder / "key"
        if not path.is_file():
            write_text(path, f"edgedl_{secrets.token_urlsafe(32)}\n")
        return path.read_text().strip()

    def sent(self, digest: str, file: str) -> int:
        """How many bytes of a file are there already."""
        whole, part = self._places(digest, file)
        if whole.is_file():
            return whole.stat().st_size
        return part.stat().st_size if part.is_file() else 0

    def receive(self, channel: Channel, digest: str, file: str, offset: int, count: int) -> None:
        """Takes the rest of a file. What was cut off goes on where it ended.

        Raises:
            Refused: What came is not what was announced.
        """
        whole, part = self._places(digest, file)
        if self.sent(digest, file) != offset:
            raise Refused(
                f"{file}: {self.sent(digest, file)} bytes of it are there, and what follows byte {offset} was sent"
            )
        try:
            with part.open("ab") as stream:
                for piece in channel.pieces(count, SILENCE_SECONDS):
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            part.unlink()  # most likely the disk is full
            raise
        found = hashlib.sha256()
        with part.open("rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                found.update(piece)
        if found.hexdigest() != digest:
            part.unlink()
            raise Refused(f"{file} came damaged and was removed; deploy again")
        whole.parent.mkdir(exist_ok=True)
        part.replace(whole)

    def stored(self, digest: str, file: str) -> Path:
        """A file that was sent whole.

        Raises:
            Refused: It was not.
        """
        whole, _ = self._places(digest, file)
        if not whole.is_file():
            raise Refused(f"{file} was not sent whole")
        return whole

    def stage(self, release: str, record: dict[str, Any], digest: str, file: str) -> None:
        """Makes the folder of a release from a bundle that was sent; one that is there stays."""
        folder = self.release(release)
        if folder.is_dir():
            return
        making = self.releases / (f".{release}")
        shutil.rmtree(str(making), ignore_errors=True)
        making.mkdir()
        try:
            os.link(str(self.stored(digest, file)), str(making / self.bundle_file))
            write_json(making / "release.json", record)
            making.rename(folder)
        except OSError:
            shutil.rmtree(str(making), ignore_errors=True)
            raise
        sync(self.releases)

    @property
    def bundle_file(self) -> str:
        """The name of the bundle in each release."""
        return f"{self.name}.edge"

    @property
    def served_path(self) -> Path:
        """The path that the service is given: it leads through the link."""
        return self._current / self.bundle_file

    def release(self, release: str) -> Path:
        """The folder of a release."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}", release):
            raise Refused(f"{release!r} is no release")
        return self.releases / release

    def record(self, release: str) -> dict[str, Any]:
        """What is known of a release."""
        try:
            found: dict[str, Any] = json.loads((self.release(release) / "release.json").read_text())
        except (OSError, ValueError):
            raise Refused(f"there is no release {release} of {self.name}") from None
        return found

    def current(self) -> str | None:
        """The release that answers."""
        try:
            return Path(os.readlink(str(self._current))).name  # noqa: PTH115 - Path.readlink is of Python 3.9
        except OSError:
            return None

    def history(self) -> list[str]:
        """The releases that answered, the last one at the end, as far as they are kept."""
        try:
            found = json.loads(self._history.read_text())
        except (OSError, ValueError):
            return []
        return [release for release in found if self.release(release).is_dir()]

    def all_releases(self) -> list[str]:
        """Every release that lies there whole."""
        if not self.releases.is_dir():
            return []
        return sorted(entry.name for entry in self.releases.iterdir() if not entry.name.startswith("."))

    def pending(self) -> dict[str, Any] | None:
        """The switch that was under way when its process ended; None where none was."""
        try:
            found: dict[str, Any] = json.loads(self._pending.read_text())
        except OSError:
            return None
        except ValueError:
            return {"to": None, "from": self.current()}  # the disk was full before anything was switched
        return found

    def prepare(self, release: str) -> None:
        """Writes everything that the switch to a release and the way back need."""
        before = self.current()
        for link, leads in ((self._next, release), (self._back, before)):
            _remove(link)
            if leads is not None:
                link.symlink_to(Path("releases") / leads)
        kept = [one for one in self.history() if one != release]
        write_json(self._history_next, [*kept, release])
        write_json(self._pending, {"to": release, "from": before})
        sync(self.folder)

    def switch(self) -> None:
        """Lets the link lead to the release that was prepared: one rename."""
        self._next.replace(self._current)
        sync(self.folder)

    def commit(self) -> None:
        """Ends a switch: there is no way back any more but `--rollback`."""
        self._history_next.replace(self._history)
        self._pending.unlink()
        sync(self.folder)
        _remove(self._back)

    def revert(self) -> str | None:
        """Lets the link lead where it led before; gives that release, None where nothing was there."""
        pending = self.pending()
        before: str | None = pending["from"] if pending else self.current()
        if before is None:
            _remove(self._current)
        elif self.current() != before:
            if not self._back.is_symlink():
                self._back.symlink_to(Path("releases") / before)
            self._back.replace(self._current)
        sync(self.folder)
        return before

    def forget(self) -> None:
        """Ends a switch that did not come about."""
        for path in (self._pending, self._next, self._back, self._history_next):
            _remove(path)
        sync(self.folder)

    def remove(self, release: str) -> None:
        """Removes a release that never answered."""
        if release != self.current() and release not in self.history():
            shutil.rmtree(str(self.release(release)), ignore_errors=True)

    def tidy(self, keep: int) -> None:
        """Removes all but the last releases, and what no release of any deployment needs."""
        kept = set(self.history()[-keep:]) | {self.current()}
        for release in self.all_releases():
            if release not in kept:
                shutil.rmtree(str(self.releases / release), ignore_errors=True)
        environments: set[str] = set()
        for record in (self.root / "deployments").glob("*/releases/*/release.json"):
            environments.add(str(json.loads(record.read_text()).get("environment")))
        wheels: set[str] = set()
        for folder in self.environments.iterdir():
            complete = folder / "complete.json"
            if folder.name not in environments:
                shutil.rmtree(str(folder), ignore_errors=True)
            elif complete.is_file():
                wheels.update(json.loads(complete.read_text())["wheels"])
        for entry in self.files.iterdir():
            if entry.is_dir() and entry.name not in wheels:
                shutil.rmtree(str(entry), ignore_errors=True)
            elif entry.is_file():
                _remove(entry)

    def _places(self, digest: str, file: str) -> tuple[Path, Path]:
        if not (_DIGEST.fullmatch(digest) and _FILE.fullmatch(file)):
            raise Refused(f"{file!r} is no name of a file")
        return self.files / digest / file, self.files / (f"{digest}.part")


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    making = path.with_name(".{}.new".format(path.name.lstrip(".")))
    try:
        descriptor = os.open(str(making), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        making.replace(path)
    except OSError:
        _remove(making)
        raise


def sync(*folders: Path) -> None:
    """Waits until renames and removals in a folder are on the disk."""
    for folder in folders:
        descriptor = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Bytes that the disk of a folder, or of its nearest parent that is there, has left for us."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(str(folder))
    return found.f_bavail * found.f_frsize


def first_words(lines: Iterable[str]) -> str:
    """The last line that says something."""
    found = [line.strip() for line in lines if line.strip()]
    return found[-1][:500] if found else "it says nothing"


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
