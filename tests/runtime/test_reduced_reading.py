"""A JPEG read at a fraction of its size: which one, how it compares with the whole, and when the whole is read."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MediaError
from runtime.faces import overlap
from runtime.media import pictures
from runtime.media.pictures import encode_jpeg, encode_png, read_image, read_picture
from runtime.pipelines import load


def smooth(width: int, height: int) -> np.ndarray:
    """Slopes and waves, unlike in each channel and direction."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [x, y, 0.5 + 0.5 * np.sin(9 * x + 5 * y)]
    return np.stack([np.round(20 + 200 * wave) for wave in waves], axis=-1).astype(np.uint8)


def oriented(jpeg: bytes, orientation: int) -> bytes:
    """The same file with an EXIF segment of one tag."""
    tiff = b"II*\0" + struct.pack("<LHHHLHHL", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize(
    ("width", "height", "longest", "scale"),
    [(800, 640, 400, 2), (799, 640, 400, 1), (640, 800, 400, 2), (803, 603, 200, 4), (801, 300, 100, 8),
     (800, 640, 40, 8), (800, 640, 0, 1), (300, 200, 400, 1)],
    ids=str,
)  # fmt: skip
def test_the_longest_side_keeps_at_least_what_is_asked_for(width, height, longest, scale):
    image = smooth(width, height)
    picture = read_picture(encode_jpeg(image, quality=95), longest=longest)
    assert (picture.width, picture.height, picture.scale) == (width, height, scale)
    assert picture.pixels.shape == (-(-height // scale), -(-width // scale), 3)
    assert (picture.again is None) == (scale == 1)
    rows, columns = height // scale, width // scale
    mean = image[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels[:rows, :columns] - mean).max() <= 6, "the mean of each block, but for what JPEG loses"


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 300), st.integers(1, 8))
def test_reading_again_gives_what_reading_whole_gives(width, height, longest, scale):
    jpeg = encode_jpeg(smooth(width, height))
    picture = read_picture(jpeg, longest=longest)
    assert picture.scale in (1, 2, 4, 8)
    assert picture.scale == 1 or max(width, height) / picture.scale >= longest
    again = picture.at(scale)
    assert again.scale <= max(scale, 1)
    assert again.scale == max(s for s in (1, 2, 4, 8) if s <= min(scale, picture.scale))
    np.testing.assert_array_equal(picture.at(0.5).pixels, read_image(jpeg))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_holds_at_every_scale(orientation):
    jpeg = oriented(encode_jpeg(smooth(640, 400), quality=95), orientation)
    whole, half = read_picture(jpeg), read_picture(jpeg, longest=300)
    assert (half.scale, half.width, half.height) == (2, whole.width, whole.height)
    mean = cv2.resize(whole.pixels, half.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(half.pixels.astype(int) - mean).max() <= 6
    np.testing.assert_array_equal(half.at(1).pixels, whole.pixels)


def test_only_a_jpeg_is_reduced():
    image = smooth(640, 400)
    for source in (image, encode_png(image)):
        picture = read_picture(source, longest=100)
        assert picture.scale == 1
        assert picture.at(1) is picture
        np.testing.assert_array_equal(picture.pixels, image)


def test_a_file_without_its_end_is_read_whole():
    """Only then does it show whether something is missing."""
    jpeg = encode_jpeg(smooth(640, 400))
    picture = read_picture(jpeg[:-2], longest=100)
    assert picture.scale == 1
    assert picture.note == "the JPEG has no end marker; nothing of the picture is missing"
    with pytest.raises(MediaError, match="truncated"):
        read_picture(jpeg[: len(jpeg) // 2], longest=100)


def test_the_limits_stand_above_what_is_asked_for():
    jpeg = encode_jpeg(smooth(640, 400))
    most = 320 * 200
    assert read_picture(jpeg, max_pixels=most).scale == 2
    picture = read_picture(jpeg, longest=100, max_pixels=most)
    assert picture.scale == 4
    assert picture.at(1).scale == 2
    assert picture.at(1).again is None


@pytest.fixture(scope="module")
def pipeline(age_bundle):
    with load(age_bundle, threads=1) as opened:
        yield opened


@pytest.fixture
def scales(monkeypatch) -> list[int]:
    """The scales at which pictures are decoded from now on."""
    seen: list[int] = []
    decode = pictures._decode
    monkeypatch.setattr(
        pictures, "_decode", lambda header, data, scale: (seen.append(scale), decode(header, data, scale))[1]
    )
    return seen


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def test_a_large_face_is_read_at_a_half_and_answers_alike(pipeline, portrait_path, scales):
    photo = enlarged(read_image(portrait_path), 3)  # 1536 x 1800
    scales.clear()
    jpeg = encode_jpeg(photo, quality=95)
    (whole,), (half,) = pipeline.faces(photo), pipeline.faces(jpeg)
    assert scales == [2]
    assert float(overlap(np.array(whole.box), np.array([half.box]))[0]) > 0.95
    np.testing.assert_allclose(half.keypoints, whole.keypoints, atol=0.02 * (whole.box[2] - whole.box[0]))
    assert abs(half.age - whole.age) < 1
    result = pipeline.predict(jpeg)
    assert pipeline.draw(jpeg, result).shape == photo.shape


def test_a_small_face_has_the_photo_read_again(pipeline, portrait_path, scales):
    """110 pixels of 1,600: at a half the network would get fewer than the 64 that it looks at."""
    photo = np.full((1200, 1600, 3), 90, np.uint8)
    small = cv2.resize(read_image(portrait_path), None, fx=0.52, fy=0.52, interpolation=cv2.INTER_AREA)
    photo[520 : 520 + small.shape[0], 600 : 600 + small.shape[1]] = small
    scales.clear()
    jpeg = encode_jpeg(photo, quality=95)
    (whole,), (face,) = pipeline.faces(photo), pipeline.faces(jpeg)
    assert scales == [2, 1]
    assert float(overlap(np.array(whole.box), np.array([face.box]))[0]) > 0.8
    assert abs(face.age - whole.age) < 5
    picture = pipeline.open_picture(jpeg)
    scales.clear()
    assert pipeline.probe(picture).pixels.shape[0] >= 64
    assert scales == [1]


def test_a_photo_without_faces_is_read_once(pipeline, scales):
    jpeg = encode_jpeg(smooth(1700, 1300))
    assert pipeline.faces(jpeg) == []
    assert scales == [2]
