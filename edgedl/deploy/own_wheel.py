"""A wheel of the edgedl that runs here, so that a device gets the very same one.

It is made of the installed files. That needs no network, no source and no build tool, and the same files give the same
bytes.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import edgedl
from edgedl._version import __version__
from runtime.errors import InputError

PACKAGES = ("edgedl", "exporters", "runtime", "service")
_DATE = (1980, 1, 1, 0, 0, 0)


def write_own_wheel(folder: Path) -> Path:
    """Writes the wheel into a folder.

    Raises:
        InputError: edgedl is not installed here, so nothing says what it needs.
    """
    info = f"edgedl-{__version__}.dist-info"
    path = folder / f"edgedl-{__version__}-py3-none-any.whl"
    contents = dict(_files())
    contents[f"{info}/METADATA"] = own_metadata()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgedl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{info}/entry_points.txt"] = b"[console_scripts]\nedgedl = edgedl.cli:main\n"
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.external_attr = 0o100644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return path


def _files() -> list[tuple[str, bytes]]:
    root = Path(edgedl.__file__).parents[1]
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*"))]
    return [
        (path.relative_to(root).as_posix(), path.read_bytes())
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    ]


def own_metadata() -> bytes:
    """What the installed edgedl says of itself, its requirements among it.

    Raises:
        InputError: edgedl is not installed here.
    """
    try:
        text = metadata.distribution("edgedl").read_text("METADATA")
    except metadata.PackageNotFoundError:
        text = None
    if text is None:
        raise InputError("edgedl is not installed here; install it with pip, or deploy with --wheelhouse")
    return text.encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
