"""What is no picture that is read is called by its name, with what to do about it."""

from __future__ import annotations

import struct

import pytest

from runtime.errors import MediaError
from runtime.media.pictures import read_image
from tests.pictures import RGB, encode


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(40)


SAID = {
    "empty": (b"", "the input is empty; JPEG, PNG, WebP, BMP, GIF and npy files are read"),
    "text": (b"hello, world", r"not an image \(it begins with b'hello, w'\)"),
    "HEIC": (ftyp(b"heic"), "a HEIC picture, which is not read; save it as JPEG first .an iPhone"),
    "HEIC of another brand": (ftyp(b"mif1", b"heic"), "a HEIC picture"),
    "HEIC sequence": (ftyp(b"hevc"), "a HEIC picture"),
    "AVIF": (ftyp(b"avif"), "an AVIF picture, which is not read; save it as JPEG first"),
    "AVIF of another brand": (ftyp(b"mif1", b"miaf", b"avif"), "an AVIF picture"),
    "CR3": (ftyp(b"crx "), "raw data of a camera, which is not read; develop them"),
    "MP4": (ftyp(b"isom"), r"a video \(MP4\), which is not read; give it to a bundle that describes clips"),
    "Matroska": (b"\x1a\x45\xdf\xa3", "a video"),
    "TIFF": (encode(RGB, "TIFF"), "a TIFF picture, or raw data of a camera, which is not read; save it as PNG"),
    "TIFF, big-endian": (b"MM\0*....", "a TIFF picture"),
    "BigTIFF": (b"II+\0\x08\0\0\0", "a TIFF picture"),
    "CR2": (b"II*\0\x10\0\0\0CR\2\0", "raw data of a camera"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "raw data of a camera"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    "JPEG 2000 codestream": (b"\xff\x4f\xff\x51\0", "a JPEG 2000 picture"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    "JPEG XL codestream": (b"\xff\x0a\xfa", "a JPEG XL picture"),
    "JPEG XR": (b"II\xbc\1", "a JPEG XR picture"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop document"),
    "icon": (encode(RGB, "ICO"), "an icon"),
    "Netpbm": (encode(RGB, "PPM"), "a Netpbm picture"),
    "EXR": (b"v/1\1\2\0\0\0", "high dynamic range"),
    "QOI": (b"qoif\0\0", "of a rare kind"),
    "PDF": (encode(RGB, "PDF"), "a PDF document, which is not read; save the picture in it"),
    "PostScript": (encode(RGB, "EPS"), "a PostScript drawing"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "SVG, declared": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- Tool -->\n<svg>', "an SVG drawing"),
    "error page": (b"\n<!DOCTYPE html>\n<html><title>404</title>", "a web page, .* its address gave a page"),
    "old page": (b"<HTML><BODY>Not found", "a web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS.*git lfs pull"),
    "AppleDouble": (b"\0\5\x16\7\0\2\0\0", r"what macOS writes beside a file.*without \._"),
    "zip": (b"PK\3\4\x14\0", "an archive, which is not read; unpack it first"),
    "zeros": (bytes(500), "a file of zeros"),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr': '|O'", "npy file cannot be read"),
    "CgBI": (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI\x50\0\x20\2+\xd5\xb3\x7f", "an iPhone's program"),
    "BMP of a JPEG": (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 8, 8, 1, 0, 4) + bytes(20), "BMP holds a JPEG"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_no_picture_is_called_by_its_name(name: str) -> None:
    data, words = SAID[name]
    with pytest.raises(MediaError, match=words) as error:
        read_image(data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 260
