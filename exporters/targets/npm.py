"""Packages from npm: fetched by its ordinary client at a pinned version, checked, and kept in the user's cache.

Nothing that a package brings is run while it is fetched: a package is unpacked, not installed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from exporters.cache import made_once
from exporters.targets.base import TargetError
from exporters.targets.setup import run, target_folder

log = logging.getLogger(__name__)

NPM_S = 300
"""Seconds that npm may take."""

_QUIETLY = ("--silent", "--ignore-scripts", "--update-notifier=false", "--fetch-timeout=60000", "--fetch-retries=1")

LARGEST_MEMBER = 256 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A package of npm.

    Attributes:
        name: Its name.
        version: Its version.
        integrity: Of its file, as npm writes it: ``sha512-`` and the digest in base64.
    """

    name: str
    version: str
    integrity: str

    @property
    def requirement(self) -> str:
        """As npm takes it."""
        return f"{self.name}@{self.version}"


RELEASE = "1.30.0"
"""Of ONNX Runtime for JavaScript."""

WEB = Package(
    "onnxruntime-web",
    RELEASE,
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
NODE = Package(
    "onnxruntime-node",
    RELEASE,
    "sha512-twhs1C2C/BFkz1yc5OY0KIU2GUq6DURO7hD4bx5Q2Qy3nAMJwRXW8xU3NVczE29VA9lolLOYepoD8fjTGOfIqw==",
)
COMMON = Package(
    "onnxruntime-common",
    RELEASE,
    "sha512-7fdVWjAID1dVhH/G8qK3APARunV4VkBFoCQAP7qp4Wkab0mrorvmc+sqiT+mKXOzDqdjN5j+/Z9nb4gzNPWcyA==",
)


def unpacked(name: str, *wanted: tuple[Package, tuple[str, ...]]) -> Path:
    """A folder of the cache with ``node_modules`` in it; packages are fetched where it is not there yet.

    Args:
        name: Of the folder, below that of the targets.
        *wanted: Packages, and for each the files and folders of it that are needed; the rest is left out.

    Raises:
        TargetError: npm is missing or cannot fetch one, or what came is not what was pinned.
    """
    chosen = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    return made_once(target_folder(f"{name}-{chosen}"), partial(_fill, wanted))


def _fill(wanted: tuple[tuple[Package, tuple[str, ...]], ...], folder: Path) -> None:
    for package, parts in wanted:
        target = folder / "node_modules" / package.name
        target.mkdir(parents=True)
        taken = 0
        with tarfile.open(fileobj=io.BytesIO(fetched(package))) as archive:
            for member in archive:
                path = PurePosixPath(member.name).relative_to("package")
                asked = any(path == PurePosixPath(part) or PurePosixPath(part) in path.parents for part in parts)
                source = archive.extractfile(member) if asked and member.isfile() else None
                if source is None or ".." in path.parts or member.size > LARGEST_MEMBER:
                    continue
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(source.read())
                taken += 1
        if not taken:
            raise TargetError(f"{package.requirement} holds none of {', '.join(parts)}")


def fetched(package: Package, given: Path | None = None) -> bytes:
    """The file of a package, checked.

    Args:
        package: Which one.
        given: A folder that holds what ``npm pack`` wrote elsewhere; None: npm fetches it.

    Raises:
        TargetError: as `unpacked`, or it is not in the folder.
    """
    if given is not None:
        packed = given / f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz"
        if not packed.is_file():
            raise TargetError(f"no {packed.name} in {given}; get it there with: npm pack {package.requirement}")
        return _checked(packed.read_bytes(), package)
    if shutil.which("npm") is None:
        raise TargetError(f"npm is not on the PATH; it fetches {package.requirement}. On Debian: apt-get install npm")
    log.info("fetching %s", package.requirement)
    with tempfile.TemporaryDirectory(prefix="edgedl-") as scratch:
        command = ["npm", "pack", package.requirement, *_QUIETLY, "--pack-destination", scratch]
        run(command, f"npm cannot fetch {package.requirement}", NPM_S)
        return _checked(next(Path(scratch).glob("*.tgz")).read_bytes(), package)


def _checked(data: bytes, package: Package) -> bytes:
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != package.integrity:
        raise TargetError(
            f"npm gave a {package.requirement} with the integrity {found}, pinned is {package.integrity}; it is not "
            "used"
        )
    return data


def web_engine() -> dict[str, Path]:
    """The files of ONNX Runtime Web that a page needs, by the names that they have there.

    They are called .js, because not every server knows what .mjs is.

    Raises:
        TargetError: as `unpacked`.
    """
    parts = {
        "ort.js": "dist/ort.wasm.min.mjs",
        "ort-wasm.js": "dist/ort-wasm-simd-threaded.mjs",
        "ort-wasm.wasm": "dist/ort-wasm-simd-threaded.wasm",
    }
    folder = unpacked(f"web-{RELEASE}", (WEB, tuple(parts.values()))) / "node_modules" / WEB.name
    return {name: folder / part for name, part in parts.items()}


def node() -> str:
    """Where Node lies.

    Raises:
        TargetError: it is missing or too old.
    """
    found = shutil.which("node")
    if found is None:
        raise TargetError(
            "node is not on the PATH; the target needs Node 18 or newer. On Debian: apt-get install nodejs"
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    if not major.isdecimal() or int(major) < 18:
        raise TargetError(f"{found} is {said.strip() or 'no Node'}; the target needs Node 18 or newer")
    return found
