"""Leaves out of an installation what a service never loads: ``python3 image/trim.py FOLDER`` (the Dockerfile calls it).

FOLDER is what ``pip install --target`` has filled. Licences stay.

The largest piece is the linear algebra that OpenCV's wheel carries (OpenBLAS and the Fortran library). edgedl decodes,
scales and turns pictures with OpenCV and solves nothing with it. OpenCV's library cannot be loaded without the names of
these functions, so a stub takes their place. A call of one would end the process.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from elf import machine_of, stub, symbols_of

UNUSED = (
    # Tools of ONNX Runtime for the machine on which a model is made.
    "onnxruntime/backend", "onnxruntime/datasets", "onnxruntime/quantization", "onnxruntime/tools",
    "onnxruntime/transformers",
    # They read and write models there; the session itself has its own reader.
    "flatbuffers", "google",
    # What compiles against numpy, and what numpy's own tests load.
    "numpy/_core/include", "numpy/_core/lib", "numpy/distutils", "numpy/f2py", "numpy/random/lib",
)  # fmt: skip

UNUSED_FILES = ("flatbuffers-*.dist-info", "protobuf-*.dist-info", "numpy/_core/*_tests.*.so", "numpy/_core/_simd.*.so")
"""Patterns of further files and folders."""

COMMANDS = frozenset(("edgedl", "gunicorn"))
"""Of ``bin``."""


def trim(folder: Path) -> int:
    """Trims an installation; gives the bytes that were saved."""
    before = _size(folder)
    unused = [folder / name for name in UNUSED]
    unused += [path for pattern in UNUSED_FILES for path in folder.glob(pattern)]
    unused += [path for path in folder.rglob("tests") if path.is_dir()]
    unused += [path for kind in ("*.pyi", "*.pyx", "*.pxd") for path in folder.rglob(kind)]
    unused += [path for path in (folder / "bin").glob("*") if path.name not in COMMANDS]
    for path in unused:
        _remove(path)
    _drop_unnamed(folder / "onnxruntime" / "capi", "libonnxruntime.so*")
    opencv = folder / "opencv_python_headless.libs"
    for library in opencv.glob("libopenblas*"):
        _replace(library, folder / "cv2")
    _drop_unnamed(opencv, "*.so*", folder / "cv2")
    return before - _size(folder)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(library: Path, user: Path) -> None:
    """Puts a stub in the place of a library, which defines what the libraries of a folder expect of it."""
    data = library.read_bytes()
    expected = frozenset[str]().union(*(symbols_of(other.read_bytes())[1] for other in user.glob("*.so")))
    library.write_bytes(stub(machine_of(data), library.name, symbols_of(data)[0] & expected))


def _drop_unnamed(folder: Path, pattern: str, *users: Path) -> None:
    """Removes libraries that no other library names, until there is none."""
    while True:
        others = {path: path.read_bytes() for place in (folder, *users) for path in _libraries(place)}
        unnamed = [
            path
            for path in sorted(folder.glob(pattern))
            if not any(path.name.encode() in data for other, data in others.items() if other != path)
        ]
        if not unnamed:
            return
        for path in unnamed:
            path.unlink()


def _libraries(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.so*") if path.is_file())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(f"left out: {trim(Path(sys.argv[1])) / 1e6:.1f} MB")
