"""What a file is that is no picture of a kind that is read: its name, and what to do with it."""

from __future__ import annotations

import re

from runtime.media.containers import container

HEAD_BYTES = 1024
"""As much of a file's beginning as `name_of` looks at."""

FOREIGN_SUFFIXES = frozenset(
    (".3fr", ".ai", ".arw", ".avif", ".bpg", ".cr2", ".cr3", ".crw", ".cur", ".dds", ".dng", ".eps", ".erf", ".exr",
     ".flif", ".hdp", ".hdr", ".heic", ".heif", ".hif", ".ico", ".iiq", ".j2c", ".j2k", ".jls", ".jng", ".jp2", ".jpc",
     ".jpf", ".jpx", ".jxl", ".jxr", ".kdc", ".mef", ".mng", ".mrw", ".nef", ".nrw", ".orf", ".pam", ".pbm", ".pcx",
     ".pef", ".pfm", ".pgm", ".pnm", ".ppm", ".ps", ".psb", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".sr2", ".srf",
     ".srw", ".svg", ".svgz", ".tga", ".tif", ".tiff", ".wdp", ".x3f", ".xcf")
)  # fmt: skip
"""How pictures are called that are of kinds which are not read."""

_AS_PNG, _AS_JPEG, _DRAWN = "save it as PNG or JPEG first", "save it as JPEG first", "draw it into a PNG first"
_AVIF = "an AVIF picture", _AS_JPEG
_HEIC = "a HEIC picture", f"{_AS_JPEG} (an iPhone takes JPEG with Settings, Camera, Formats, Most Compatible)"
_RAW = "raw data of a camera", "develop them to a JPEG first"
_SVG = "an SVG drawing", _DRAWN
_WEB_PAGE = "a web page", "its address gave a page in place of the picture, perhaps one of an error"

_MAGIC = tuple(
    (re.compile(magic, re.DOTALL), said)
    for magic, said in (
        (rb"II\*\0....CR|IIR[OS]|IIU\0|MMOR|FUJIFILMCCD-RAW|FOVb", _RAW),
        (rb"II[*+]\0|MM\0[*+]", ("a TIFF picture, or raw data of a camera", _AS_PNG)),
        (rb"II\xbc", ("a JPEG XR picture", _AS_PNG)),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", ("a JPEG 2000 picture", _AS_PNG)),
        (rb"\0\0\0\x0cJXL |\xff\x0a", ("a JPEG XL picture", _AS_JPEG)),
        (rb"8BPS", ("a Photoshop document", _AS_PNG)),
        (rb"\0\0[\x01\x02]\0", ("an icon", _AS_PNG)),
        (rb"P[1-7fF]\s", ("a Netpbm picture", _AS_PNG)),
        (rb"v/1\x01|#\?R", ("a picture of high dynamic range", _AS_PNG)),
        (rb"gimp xcf|qoif|BPG\xfb|FLIF|DDS |\x8aMNG|\x8bJNG", ("a picture of a rare kind", _AS_PNG)),
        (rb"%PDF-", ("a PDF document", "save the picture in it as PNG or JPEG first")),
        (rb"%!PS|\xc5\xd0\xd3\xc6", ("a PostScript drawing", _DRAWN)),
        (rb"version https://git-lfs\.", ("a pointer of Git LFS", "fetch the file itself with git lfs pull")),
        (rb"\0\x05\x16[\0\x07]", ("what macOS writes beside a file", "give the file without ._ before its name")),
        (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|\xfd7zXZ|BZh", ("an archive", "unpack it first")),
        (rb"\0{16}", ("a file of zeros", "it was not written to its end, so copy it again")),
    )
)


def name_of(data: bytes) -> str:
    """What the first bytes of a file show, as the sentence of an error: what it is and how to mend that."""
    if not data:
        return "the input is empty"
    what, mend = _name(data[:HEAD_BYTES])
    return (
        f"the input is {what}, which is not read; {mend}"
        if what
        else (f"the input is not an image (it begins with {data[:8]!r})")
    )


def _name(head: bytes) -> tuple[str, str]:
    if head[4:8] == b"ftyp":
        # ISO/IEC 14496-12: the major brand, a version, and the brands that it is compatible with.
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return _AVIF
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return _HEIC
        if b"crx " in brands:
            return _RAW
    for magic, said in _MAGIC:
        if magic.match(head):
            return said
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        if b"<svg" in text:
            return _SVG
        if b"<html" in text or b"<!doctype html" in text:
            return _WEB_PAGE
    kind = container(head)
    return (f"a video ({kind})", "give it to a bundle that describes clips") if kind is not None else ("", "")
