"""A bundle that describes clips, over HTTP: photos, frames and videos; and whatever is wrong with them."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import MissingExtraError
from runtime.media import decoder
from runtime.media.frames import reduced
from runtime.media.pictures import encode_jpeg, read_image
from service.app import create_app
from tests.captions import SCORES, SETTINGS, caption_of, write_caption_bundle
from tests.service.fake_pipeline import FakePipeline, encoded
from tests.service.test_service_problems import bomb, check
from tests.videos import KINDS, SIZE, Kind, film, number_of, numbered, write_video

FRAME = {"width": 48, "height": 32}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    bundle = write_caption_bundle(tmp_path_factory.mktemp("bundles") / "caption.edge")
    return create_app([bundle, FakePipeline()], threads=1, max_bytes=400_000, max_pixels=1_000_000, max_images=8)


@pytest.fixture(scope="module")
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    return {suffix: write_video(folder / f"clip{suffix}", 25).read_bytes() for suffix in (".avi", ".mp4", ".webm")}


def post(client: FlaskClient, data: Any, kind: str, query: str = "") -> Any:
    return client.post(f"/v1/caption{query}", data=data, content_type=kind)


def answer(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert (response.json["name"], response.json["version"]) == ("caption", "1.0.0")
    (result,) = response.json["results"]
    return result


@pytest.mark.parametrize(("extension", "kind"), [(".png", "image/png"), (".jpg", "image/jpeg"), (".jpg", "image/jpg")])
def test_a_photo(client: FlaskClient, extension: str, kind: str) -> None:
    result = answer(post(client, encoded(extension, red=100, **FRAME), kind))
    assert result == {
        "caption": "dim picture",
        "score": SCORES[0],
        "frames": [{"index": 0, "seconds": 0.0}],
        "alternatives": [{"caption": f"dim {thing}", "score": score} for thing, score in
                         (("scene", SCORES[1]), ("view", SCORES[2]))],
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".webm"])
@pytest.mark.parametrize("kind", ["video/mp4", "video/x-msvideo", "video/anything", "image/jpeg"])
def test_a_video_is_known_by_its_content(client: FlaskClient, videos: dict[str, bytes], suffix: str, kind: str) -> None:
    result = answer(post(client, videos[suffix], kind))
    assert [frame["index"] for frame in result["frames"]] == [3, 9, 15, 21]
    assert [frame["seconds"] for frame in result["frames"]] == pytest.approx([0.12, 0.36, 0.6, 0.84], abs=0.002)


def test_a_video_in_a_form(client: FlaskClient, videos: dict[str, bytes]) -> None:
    for name, kind in (("clip.mp4", "video/mp4"), ("clip", "application/octet-stream")):
        form = {"clip": (io.BytesIO(videos[".mp4"]), name, kind)}
        assert len(answer(post(client, form, "multipart/form-data"))["frames"]) == 4


def test_several_images_are_the_frames_of_one_clip(client: FlaskClient) -> None:
    frames = [encoded(red=red, **FRAME) for red in (0, 60, 120, 240, 255)]  # 0, 1, 3, 4 of them would be 139
    form = {"image": [(io.BytesIO(frame), "a.png") for frame in frames[:4]]}
    expected = caption_of((0 + 60 + 120 + 240) / 4)
    result = answer(post(client, form, "multipart/form-data"))
    assert result["caption"] == expected
    assert result["frames"] == [{"index": index, "seconds": None} for index in range(4)]
    document = {"images": [base64.b64encode(frame).decode() for frame in frames[:4]]}
    assert answer(post(client, json.dumps(document), "application/json"))["caption"] == expected
    stream = io.BytesIO()
    np.save(stream, np.full((3, 20, 20, 3), 70, np.uint8))
    result = answer(post(client, stream.getvalue(), "application/x-npy"))
    assert (result["caption"], len(result["frames"])) == ("dim picture", 3)


def test_thumbnails_are_an_option(client: FlaskClient, videos: dict[str, bytes]) -> None:
    result = answer(post(client, videos[".mp4"], "video/mp4", "?thumbnails=1"))
    assert all(frame["thumbnail"].startswith("data:image/jpeg;base64,/9j/") for frame in result["frames"])


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.interlaced and kind.size == SIZE])
def test_thumbnails_show_nothing_of_an_earlier_request(client: FlaskClient, kind: str) -> None:
    """Once they did, of interlaced videos: the decoder gave memory that it had not written."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    video = film(KINDS[kind], 25)
    for _ in range(3):
        answer(post(client, encode_jpeg(noise), "image/jpeg"))
        frames = answer(post(client, video, "video/mp4", "?thumbnails=1"))["frames"]
        pictures = [read_image(base64.b64decode(frame["thumbnail"].partition(",")[2])) for frame in frames]
        assert [number_of(picture) for picture in pictures] == [frame["index"] for frame in frames] == [3, 9, 15, 21]
        for picture, frame in zip(pictures, frames, strict=True):
            expected = reduced(numbered(frame["index"]), picture.shape[0])
            assert np.abs(picture.astype(int) - expected).mean() < 8


def test_an_animation_is_a_clip(client: FlaskClient) -> None:
    data = film(Kind("apng", "apng", "rgb24"), 25)
    assert [frame["index"] for frame in answer(post(client, data, "image/png"))["frames"]] == [3, 9, 15, 21]


def test_without_pyav_photos_are_answered(client: FlaskClient, videos: dict[str, bytes], monkeypatch: Any) -> None:
    def missing() -> Any:
        raise MissingExtraError("av", "video")

    monkeypatch.setattr(decoder, "pyav", missing)
    document = check(post(client, videos[".mp4"], "video/mp4"), 415)
    assert document["detail"].endswith("av is not installed; it is part of an extra: pip install 'edgedl[video]'.")
    assert answer(post(client, encoded(".png", red=100, **FRAME), "image/png"))["caption"] == "dim picture"


def test_the_note_of_a_video_that_breaks_off(client: FlaskClient, videos: dict[str, bytes]) -> None:
    data = videos[".avi"]
    assert "promises 25 frames" in answer(post(client, data[: len(data) * 3 // 4], "video/x-msvideo"))["note"]


def test_what_is_no_clip_is_a_problem(client: FlaskClient, videos: dict[str, bytes]) -> None:
    mp4 = videos[".mp4"]
    document = check(post(client, b"#EXTM3U\nfile:///etc/passwd\n", "video/mp4"), 422)
    assert "nor a video that is read here" in document["detail"]
    assert "damaged or truncated" in check(post(client, mp4[:600], "video/mp4"), 422)["detail"]
    assert "empty body" in check(post(client, b"", "video/mp4"), 400)["detail"]
    document = check(post(client, b"x", "text/plain"), 415)
    assert "video/*" in document["expected"]
    form = {"a": [(io.BytesIO(mp4), "a.mp4"), (io.BytesIO(encoded(**FRAME)), "b.png")]}
    assert "a video among 2 files" in check(post(client, form, "multipart/form-data"), 400)["detail"]
    form = {"a": [(io.BytesIO(encoded(width=40, height=30)), "a"), (io.BytesIO(encoded(**FRAME)), "b")]}
    assert "picture 2 of the clip is 48×32 pixels" in check(post(client, form, "multipart/form-data"), 422)["detail"]
    form = {"a": [(io.BytesIO(encoded(**FRAME)), "a"), (io.BytesIO(encoded(**FRAME)[:60]), "b")]}
    assert "picture 2 of the clip: the PNG is" in check(post(client, form, "multipart/form-data"), 422)["detail"]
    form = {"a": [(io.BytesIO(encoded(**FRAME)), "a")] * 9}
    check(post(client, form, "multipart/form-data"), 413)
    assert "the option 'distribution'" in check(post(client, mp4, "video/mp4", "?distribution=1"), 400)["detail"]


def test_limits_are_problems(tmp_path: Path, videos: dict[str, bytes]) -> None:
    bundle = write_caption_bundle(tmp_path / "caption.edge")
    small = create_app([bundle], threads=1, max_bytes=1_000_000, max_pixels=192 * 128 - 1).test_client()
    assert "192×128 pixels" in check(post(small, videos[".mp4"], "video/mp4"), 413)["detail"]
    check(post(small, bomb(60_000, 60_000), "image/png"), 413)
    slow = create_app([bundle], threads=1, video_seconds=0).test_client()
    assert "not decoded after 0 seconds" in check(post(slow, videos[".mp4"], "video/mp4"), 413)["detail"]
    narrow = create_app([bundle], threads=1, max_bytes=1000).test_client()
    check(post(narrow, videos[".mp4"], "video/mp4"), 413)


def test_a_bundle_for_photos_takes_no_video(client: FlaskClient, videos: dict[str, bytes]) -> None:
    document = check(client.post("/v1/age", data=videos[".mp4"], content_type="video/mp4"), 415)
    assert "video" not in document["expected"]
    check(client.post("/v1/age", data=videos[".mp4"], content_type="image/png"), 422)


def test_v1_and_openapi_tell(client: FlaskClient) -> None:
    listed = client.get("/v1").json
    caption, age = listed["bundles"]
    pictures = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "application/x-npy"]
    assert caption["accepts"] == [*pictures, "video/*"]
    assert "video/*" not in age["accepts"]
    assert caption["options"] == {"thumbnails": "bool"}
    assert caption["pipeline"] == SETTINGS
    assert listed["limits"]["video_seconds"] == 20
    document = client.get("/openapi.json").json
    operation = document["paths"]["/v1/caption"]["post"]
    assert set(operation["requestBody"]["content"]) == {*caption["accepts"], "multipart/form-data", "application/json"}
    assert "A video may take 20 seconds" in operation["description"]
    assert "video/*" not in document["paths"]["/v1/age"]["post"]["requestBody"]["content"]
    schemas = {name for name in document["components"]["schemas"] if not name.startswith("V2")}
    assert schemas == {"Faces", "Caption", "Bundles", "Problem"}
    schema = document["components"]["schemas"]["Caption"]
    result = answer(post(client, encoded(**FRAME), "image/png"))
    assert set(schema["required"]) <= set(result) <= set(schema["properties"])


def test_the_bundle_is_ready_and_counted(client: FlaskClient) -> None:
    answer(post(client, encoded(**FRAME), "image/png"))
    assert client.get("/readyz").status_code == 200
    assert 'edgedl_images_total{bundle="caption"}' in client.get("/metrics").text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    suffix=st.sampled_from([".avi", ".mp4", ".webm"]),
    seed=st.integers(0, 10**9),
    cut=st.floats(0.01, 1.0),
    flips=st.integers(0, 40),
)
def test_damaged_videos_are_answers_or_problems(
    client: FlaskClient, videos: dict[str, bytes], suffix: str, seed: int, cut: float, flips: int
) -> None:
    random_place = random.Random(seed)
    data = bytearray(videos[suffix][: max(12, int(cut * len(videos[suffix])))])
    for _ in range(flips):
        place = random_place.randrange(len(data) if seed % 2 else min(800, len(data)))
        data[place] = random_place.randrange(256)
    response = post(client, bytes(data), "video/mp4")
    if response.status_code != 200:
        check(response, response.status_code)
        assert response.status_code in (413, 422)
