"""Golden cases: recorded inputs and the answers that the reference gave to them, as one npz file.

Keys are ``"{index:03d}/{case name}/in/{tensor}"`` and ``".../out/{tensor}"``, so that any npz reader can use them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from runtime.errors import BundleError

MAX_GOLDEN_BYTES = 1 << 30  # uncompressed; golden cases are small, whoever sends more wants to fill the memory
MAX_ARRAYS = 20_000
_DATE = (1980, 1, 1, 0, 0, 0)  # fixed: the same cases give the same bytes


class RecordedInputs(dict[str, NDArray[Any]]):
    """The inputs of a recorded case. A graph was proven on them, so an engine takes any size and number in them."""


@dataclass(frozen=True, slots=True)
class GoldenCase:
    """One recorded call: what went in, and what the reference answered."""

    name: str
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)


def golden_to_npz(cases: Iterable[GoldenCase]) -> bytes:
    """Encodes cases as a compressed npz; the same cases give the same bytes.

    Raises:
        ValueError: a case or tensor name holds a slash, or an array holds Python objects.
    """
    import zipfile

    from runtime.npy import dump_npy

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, case in enumerate(cases):
            if "/" in case.name or not case.name:
                raise ValueError(f"the golden case {case.name!r} needs a name without a slash")
            for side, tensors in (("in", case.inputs), ("out", case.outputs)):
                for tensor, array in tensors.items():
                    member = zipfile.ZipInfo(f"{index:03d}/{case.name}/{side}/{tensor}.npy", _DATE)
                    member.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(member, dump_npy(array))
    return stream.getvalue()


def golden_from_npz(data: bytes) -> tuple[GoldenCase, ...]:
    """Decodes what ``golden_to_npz`` wrote.

    Raises:
        BundleError: damaged, too large when unpacked, or keys of another form.
    """
    import zipfile  # here, because a first answer begins quicker without

    from runtime.npy import load_npy

    cases: dict[tuple[int, str], GoldenCase] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_GOLDEN_BYTES or len(members) > MAX_ARRAYS:
                raise BundleError(f"golden cases: {len(members)} arrays of {total} bytes, more than is read")
            for member in members:
                key, case_name, side, tensor = _key(member.filename)
                case = cases.setdefault((key, case_name), GoldenCase(case_name, RecordedInputs()))
                # zipfile hands out at most `file_size` bytes and checks their CRC: the sum above bounds the memory.
                (case.inputs if side == "in" else case.outputs)[tensor] = load_npy(archive.read(member))
    except BundleError:
        raise
    # Damaged bytes reach zipfile, zlib and numpy, which raise many kinds of errors.
    except Exception as error:
        raise BundleError(f"golden cases: damaged npz: {error}") from error
    return tuple(case for _, case in sorted(cases.items(), key=lambda item: item[0]))


def _key(filename: str) -> tuple[int, str, str, str]:
    index, _, rest = filename.partition("/")
    case_name, _, rest = rest.partition("/")
    side, _, tensor = rest.partition("/")
    tensor = tensor.removesuffix(".npy")
    if not index.isdecimal() or not case_name or side not in ("in", "out") or not tensor:
        raise BundleError(f"golden cases: the key {filename!r:.80} is not index/case/in|out/tensor")
    return int(index), case_name, side, tensor
