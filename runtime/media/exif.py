"""Which way up a picture is: the orientation in EXIF and XMP, read as Pillow reads it.

A damaged tag is not an error: the picture itself is whole, and every viewer shows it.
"""

from __future__ import annotations

import re
import struct

_ORIENTATION_TAG = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">"}
# TIFF 6.0, section 2, and LONG8 of BigTIFF: type -> struct's letters. Bytes and text are no numbers.
_NUMBERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}
_RATIONALS = {5: "LL", 10: "ll"}
_SIZES = {kind: struct.calcsize("=" + letters) for kind, letters in (_NUMBERS | _RATIONALS).items()}
_SIZES |= {1: 1, 2: 1, 7: 1}
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation, 1 to 8; 1 where there is none or it makes no sense.

    Args:
        exif: the TIFF data of EXIF, with or without the prefix ``Exif``.
        xmp: the XMP packet, which counts where EXIF has no such tag.
    """
    value = None if exif is None else _from_tiff(re.sub(rb"\A(?:Exif\0\0){1,2}", b"", exif))
    if value is None and xmp is not None and (found := _XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return int(value) if value is not None and value in range(1, 9) else 1


def _from_tiff(tiff: bytes) -> float | None:
    """The first orientation tag that has a value; None where there is no such tag."""
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        seen, elsewhere = set(), 0
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, kind, values, begin = struct.unpack_from(order + "HHLL", tiff, entry)
            size = values * _SIZES.get(kind, 0)
            if size == 0 or tag in seen:
                continue
            if size <= 4:
                begin = entry + 8  # the value stands in the entry itself
            else:
                elsewhere += size
                if elsewhere > len(tiff):
                    continue
                if begin + size > len(tiff):
                    return None  # a value that is cut off ends the list
            if tag == _ORIENTATION_TAG:
                return _value(tiff, begin, order, kind)
            seen.add(tag)
    except struct.error:
        return None
    return None


def _value(tiff: bytes, begin: int, order: str, kind: int) -> float:
    """The first value of a tag; 0, which is no orientation, for one that is no number."""
    if kind in _NUMBERS:
        value: float = struct.unpack_from(order + _NUMBERS[kind], tiff, begin)[0]
        return value
    if kind in _RATIONALS:
        above, below = struct.unpack_from(order + _RATIONALS[kind], tiff, begin)
        return above / below if below else 0
    return 0
