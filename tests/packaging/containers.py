"""Images without an engine: bases by mmdebstrap, builds by buildah, and a command of an image in its own root.

Everything needs root and Debian's mmdebstrap and buildah. `why_not` says what is missing.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
"""Its Python is 3.11."""

BASE = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
"""What the image stands on: Python, and nothing that it does not need."""

BUILD = ("python3", "python3-pip", "dash", "coreutils", "bash", "sed")
NEEDED = ("buildah", "mmdebstrap", "ip", "chroot")


def why_not() -> str | None:
    """What keeps images from being built here; None where nothing does."""
    if os.geteuid():
        return "only root builds images without an engine"
    missing = [program for program in NEEDED if shutil.which(program) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


@dataclass(frozen=True, slots=True)
class PipConfiguration:
    """What this machine's pip is told, for the pip of another root.

    Attributes:
        text: A ``pip.conf``.
        paths: Files and folders of this machine that it names.
    """

    text: str
    paths: tuple[Path, ...]

    @classmethod
    def of_this_machine(cls) -> PipConfiguration:
        """Reads it as ``pip config list`` prints it: files first, the environment over them."""
        command = [sys.executable, "-m", "pip", "config", "list"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        values: dict[str, str] = {}
        lines = [line.partition("=") for line in printed.splitlines()]
        for key, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
            name = key.partition(".")[2]
            # The versions of an image are those of constraints.txt, whatever else this machine holds to.
            if name and name not in ("constraint", "build-constraint"):
                values[name] = str(ast.literal_eval(value))
        named = [Path(word.removeprefix("file://")) for value in values.values() for word in value.split()]
        paths = {_top(path) for path in named if path.is_absolute() and path.exists()}
        text = "[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
        return cls(text, tuple(sorted(paths)))


def _top(path: Path) -> Path:
    """What is mounted for a path: the file, or a folder high enough to hold what the path's index links to."""
    return path if path.is_file() or len(path.parts) < 4 else Path(*path.parts[:3])


@dataclass(frozen=True, slots=True)
class Images:
    """A store of images in a folder.

    Args:
        folder: Where everything lies.
    """

    folder: Path
    pip: PipConfiguration = field(default_factory=PipConfiguration.of_this_machine)

    def buildah(self, *words: str | Path) -> str:
        """Runs buildah on this store and gives what it prints."""
        store = ("--storage-driver", "vfs", "--root", self.folder / "store", "--runroot", self.folder / "run")
        done = subprocess.run(
            ["buildah", *store, *words], capture_output=True, text=True, check=False, timeout=900, cwd=ROOT
        )
        assert done.returncode == 0, f"buildah {words}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def base(self, name: str, packages: tuple[str, ...], architecture: str, label: str | None = None) -> str:
        """Makes an image of Debian's packages, which are only unpacked: nothing of the image runs.

        Args:
            name: Of the image.
            packages: What is in it, with all that they need.
            architecture: Of the packages.
            label: The architecture that the image says it has; None says the truth.
        """
        archive = self.folder / f"{name}-{architecture}.tar"
        if not archive.is_file():
            command = [
                "mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}",
                f"--include={','.join(packages)}", SUITE, archive,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode == 0, done.stderr[-3000:]
        label = label or architecture
        container = self.buildah("from", "--arch", label, "scratch")
        self.buildah("add", "-q", container, archive, "/")
        self.buildah("config", "--arch", label, "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
        tag = f"localhost/{name}:{label}"
        self.buildah("commit", "-q", "--rm", container, tag)
        return tag

    def build(self, architecture: str, tag: str, *arguments: str, file: Path | None = None) -> str:
        """Builds the Dockerfile of this tree, or another, for a processor."""
        secret = self.folder / "pip.conf"
        secret.write_text(self.pip.text)
        volumes = [word for path in self.pip.paths for word in ("--volume", f"{path}:{path}:ro")]
        self.buildah(
            "bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--platform", f"linux/{architecture}",
            "--secret", f"id=pip,src={secret}", *volumes, *arguments, "-t", tag,
            "-f", file or ROOT / "Dockerfile", ROOT if file is None else file.parent,
        )  # fmt: skip
        return tag

    def unpack(self, tag: str, architecture: str) -> Root:
        """The files of an image as a container sees them."""
        container = self.buildah("from", "--platform", f"linux/{architecture}", "--pull-never", tag)
        place = Path(self.buildah("mount", container))
        config = json.loads(self.buildah("inspect", "--type", "image", tag))["Docker"]["config"]
        return Root(place, config)


@dataclass(frozen=True, slots=True)
class Root:
    """The root of an image, and how the image says it is run."""

    path: Path
    config: dict[str, Any]

    @property
    def installed(self) -> int:
        """Bytes that the Dockerfile added to its base."""
        added = (path for path in (self.path / "opt" / "edgedl").rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in added)

    def serve(self, mounts: dict[str, Path], ask: str, *, emulator: Path | None = None) -> dict[str, Any]:
        """Runs the image's command as its user on a read-only root, waits for its health check, and asks it.

        Args:
            mounts: Folders of this machine by where they stand in the container.
            ask: Python that runs beside the service, in the same root. It prints one JSON document.
            emulator: A static qemu, where the image is for another processor.

        Returns:
            What `namespace` prints.
        """
        order = {
            "root": str(self.path),
            "user": self.config["User"],
            "environment": self.config["Env"],
            "command": [*self.config["Entrypoint"], *self.config["Cmd"]],
            "health": self.config["Healthcheck"]["Test"][1:],
            "mounts": {place: str(folder) for place, folder in mounts.items()},
            "ask": ask,
            "emulator": None if emulator is None else str(emulator),
        }
        # A network of its own: whatever address the command listens on, no other machine reaches it.
        command = [
            "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", sys.executable,
            str(Path(__file__).with_name("namespace.py")), json.dumps(order),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))
