"""The wheels that a device needs: fetched for its processor and its Python by pip, or taken from a folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedl.deploy.own_wheel import own_metadata, write_own_wheel
from edgedl.weights.fetch import cache_folder
from runtime.errors import InputError

EXTRAS = "cpu,serve"
OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = 17
PIP_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Platform:
    """What wheels have to fit.

    Attributes:
        machine: The processor, as wheels name it: ``x86_64``, ``aarch64``.
        python: Version of Python, two numbers.
        glibc: Version of the C library, two numbers.
    """

    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]

    @classmethod
    def of(cls, facts: Mapping[str, object], device: str) -> Platform:
        """The platform of a device.

        Args:
            facts: What the device tells of itself.
            device: How messages call it.

        Raises:
            InputError: No wheels of ONNX Runtime fit it.
        """
        python = str(facts["python"])
        numbers = tuple(int(part) for part in python.split(".")[:2])
        if numbers < OLDEST_PYTHON or facts["implementation"] != "cpython":
            raise InputError(
                f"{device}: its python3 is {facts['implementation']} {python}, and edgedl needs CPython 3.11 or newer; "
                "name another one there with --python3"
            )
        libc = facts["libc"]
        name, version = libc if isinstance(libc, list | tuple) and len(libc) == 2 else ("", "")
        if facts["system"] != "linux" or name != "glibc":
            raise InputError(
                f"{device}: it is {facts['system']} with the C library {name or 'musl or another'}, and ONNX Runtime "
                "has wheels for Linux with glibc only; install edgedl there by other means and name its "
                "interpreter with --python"
            )
        major, minor = (int(part) for part in str(version).split(".")[:2])
        return cls(str(facts["machine"]), (numbers[0], numbers[1]), (major, minor))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads ``MACHINE-PYTHON-GLIBC``, such as ``aarch64-3.11-2.36``.

        Raises:
            InputError: It has another form.
        """
        match = re.fullmatch(r"([a-z0-9_]+)-(3)\.(\d+)-(2)\.(\d+)", text)
        if match is None:
            raise InputError(f"{text!r} is no platform; expected MACHINE-PYTHON-GLIBC, such as aarch64-3.11-2.36")
        machine, *numbers = match.groups()
        return cls(machine, (int(numbers[0]), int(numbers[1])), (int(numbers[2]), int(numbers[3])))

    def __str__(self) -> str:
        return f"{self.machine}-{self.python[0]}.{self.python[1]}-{self.glibc[0]}.{self.glibc[1]}"

    def pip_options(self) -> list[str]:
        """What tells pip to look for wheels of this platform. It takes each tag by its name."""
        abi = f"cp{self.python[0]}{self.python[1]}"
        words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", abi[2:]]
        for one in (abi, "abi3", "none"):
            words += ["--abi", one]
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc[1], OLDEST_GLIBC - 1, -1)]
        for tag in (*tags, f"manylinux2014_{self.machine}", f"linux_{self.machine}"):
            words += ["--platform", tag]
        return words


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        path: Where it lies here.
        sha256: Of its bytes.
    """

    path: Path
    sha256: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.path.name

    @property
    def name(self) -> str:
        """The name of its package."""
        return self.file.split("-")[0].replace("_", "-").lower()

    @property
    def version(self) -> str:
        """The version of its package."""
        return self.file.split("-")[1]


def fetch_wheels(platform: Platform, extras: str = EXTRAS) -> tuple[Wheel, ...]:
    """Everything that edgedl needs on a platform, from the cache or by pip.

    Args:
        platform: What the wheels have to fit.
        extras: Those of edgedl.

    Raises:
        InputError: pip finds no wheel of a package for this platform, or there is no network.
    """
    own = _own_wheel()
    key = hashlib.sha256(f"{platform} {extras} {own_metadata().decode()}".encode()).hexdigest()[:16]
    folder = cache_folder() / "wheelhouses" / f"{platform}-{key}"
    if not folder.is_dir():
        making = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
        try:
            _download([f"{own.path}[{extras}]", "pip"], platform, making)
            making.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was quicker
                raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return (*(wheel for wheel in _wheels(folder) if wheel.name != own.name), own)


def read_wheels(folder: Path) -> tuple[Wheel, ...]:
    """The wheels of a folder.

    Raises:
        InputError: There is no such folder, or it lacks what an environment needs.
    """
    wheels = _wheels(folder)
    names = [wheel.name for wheel in wheels]
    for needed in ("edgedl", "onnxruntime", "pip"):
        if needed not in names:
            raise InputError(
                f"{folder}: no wheel of {needed} in it; make the folder with: edgedl pack B --wheelhouse FOLDER"
            )
    return wheels


def _wheels(folder: Path) -> tuple[Wheel, ...]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".whl")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; expected a folder of wheels") from error
    return tuple(Wheel(path, _sha256(path)) for path in paths)


def _own_wheel() -> Wheel:
    """The wheel of this edgedl, in the cache."""
    folder = cache_folder() / "wheelhouses"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".own-", dir=folder) as made:
        path = write_own_wheel(Path(made))
        digest = _sha256(path)
        kept = folder / f"own-{digest[:16]}" / path.name
        if not kept.is_file():
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)
    return Wheel(kept, digest)


def environment_key(wheels: Iterable[Wheel], python: str) -> str:
    """The name of an environment: other wheels or another version of Python make another one."""
    text = "\n".join(sorted(f"{wheel.sha256} {wheel.file}" for wheel in wheels))
    return hashlib.sha256(f"{python}\n{text}".encode()).hexdigest()[:16]


def _download(packages: list[str], platform: Platform, folder: Path) -> None:
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    words += [*platform.pip_options(), "--dest", str(folder), *packages]
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=PIP_SECONDS, check=False, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError(
            f"pip finds no wheels for {platform}: {lines[-1].removeprefix('ERROR: ') if lines else done.stderr[-200:]}"
        )


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
    return found.hexdigest()
