"""Which kind of video a file is, from its first bytes alone.

Nothing else is handed to the decoder, and it is told which kind to read. Left to guess, it would also open text files
that name other files and addresses (HLS playlists, concatenation scripts), so an uploaded "video" could read what its
sender must not see.
"""

from __future__ import annotations

HEADER_BYTES = 512
"""As much of a file's beginning as `container` needs."""

DEMUXERS = {
    "AVI": "avi",
    "MP4": "mov",
    "Matroska": "matroska",
    "MPEG": "mpeg",
    "MPEG video": "mpegvideo",
    "MPEG-TS": "mpegts",
    "FLV": "flv",
    "Ogg": "ogg",
    "ASF": "asf",
    "DV": "dv",
    "GIF": "gif",
    "APNG": "apng",
}
"""Name of each container that is read -> FFmpeg's name for what reads it."""

MXF = bytes.fromhex("060e2b34020501010d0102")
"""How an MXF file begins. It is not read: its index promises any number of frames in a few bytes."""

_STILL_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"))
_QUICKTIME_ATOMS = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip"))
_TS_SYNC, _TS_PACKET = 0x47, 188
_MAGIC = (
    (b"\x1a\x45\xdf\xa3", "Matroska"),
    (b"\x00\x00\x01\xba", "MPEG"),
    (b"\x00\x00\x01\xb3", "MPEG video"),
    (b"FLV\x01", "FLV"),
    (b"OggS", "Ogg"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "ASF"),
    (b"\x1f\x07\x00", "DV"),
)


def container(data: bytes) -> str | None:
    """The container that the first bytes of a file show, a key of `DEMUXERS`; None if it is no video.

    WebM is a kind of Matroska, QuickTime and 3GP are kinds of MP4. Animated pictures are pictures, see `animation`.
    """
    head = bytes(data[:HEADER_BYTES])
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _STILL_BRANDS else "MP4"
    if head[4:8] in _QUICKTIME_ATOMS:
        return "MP4"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # A transport packet begins with its sync byte; Blu-ray and cameras put four bytes of time before each. The byte is
    # the letter G: three in their places, so that no text is taken for a video.
    for start, length in ((0, _TS_PACKET), (4, _TS_PACKET + 4)):
        if len(head) > start + 2 * length and {head[start + k * length] for k in range(3)} == {_TS_SYNC}:
            return "MPEG-TS"
    return None
