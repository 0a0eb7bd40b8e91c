"""From a clip to sentences, with a graph whose answers are worked out by hand."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError, MediaError, TooLargeError
from runtime.manifest import TensorSpec
from runtime.media import clips as video_module
from runtime.media.clips import VideoLimits
from runtime.media.frames import FrameSampling
from runtime.media.pictures import encode_jpeg, read_image, read_picture, write_png
from runtime.occlusion import occlude
from runtime.pipelines import caption as caption_module
from runtime.pipelines import load
from runtime.pipelines.caption import Caption, CaptionPipeline, CaptionSettings
from runtime.verify import verify
from runtime.vocabulary import Vocabulary
from tests.bundles import scale_graph
from tests.captions import SCORES, SETTINGS, caption_of, write_caption_bundle
from tests.videos import write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_caption_bundle(tmp_path_factory.mktemp("bundles") / "caption.edge")


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle):
    with load(bundle, threads=1) as opened:
        yield opened


def clip_of(levels: list[int], size: tuple[int, int] = (12, 16)) -> np.ndarray:
    clip = np.zeros((len(levels), *size, 3), np.uint8)
    clip[..., 0] = np.array(levels)[:, None, None]
    return clip


def test_the_task_chooses_the_pipeline(pipeline: Any, bundle: Bundle) -> None:
    assert type(pipeline) is CaptionPipeline
    assert pipeline.settings == CaptionSettings(FrameSampling.even(4), 96)
    assert verify(bundle).ok


def test_a_clip_its_caption_and_its_alternatives(pipeline: Any) -> None:
    answer = pipeline.predict(clip_of([0, 255, 0, 255, 0, 255, 0, 0, 0]))  # frames 1, 3, 5, 7 of 9
    assert answer == {
        "caption": "light picture",
        "score": SCORES[0],
        "frames": [{"index": index, "seconds": None} for index in (1, 3, 5, 7)],
        "alternatives": [
            {"caption": "light scene", "score": SCORES[1]},
            {"caption": "light view", "score": SCORES[2]},
        ],
    }


def test_a_photo_is_a_clip_of_one_frame(pipeline: Any, tmp_path: Path) -> None:
    write_png(tmp_path / "photo.png", clip_of([70])[0])
    for source in (tmp_path / "photo.png", str(tmp_path / "photo.png"), (tmp_path / "photo.png").read_bytes()):
        answer = pipeline.predict(source)
        assert answer["caption"] == "dim picture"
        assert answer["frames"] == [{"index": 0, "seconds": 0.0}]


def test_a_video_and_its_limits(pipeline: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 50)
    answer = pipeline.predict(path)
    assert [frame["index"] for frame in answer["frames"]] == [6, 18, 31, 43]
    assert [frame["seconds"] for frame in answer["frames"]] == [0.24, 0.72, 1.24, 1.72]
    assert "note" not in answer
    with pytest.raises(TooLargeError, match="more than 10 frames"):
        pipeline.read(path, limits=VideoLimits(frames=10))
    with pytest.raises(TooLargeError, match="16×12 pixels, at most 100"):
        pipeline.read(clip_of([3])[0], max_pixels=100)


def test_a_note_about_the_clip_reaches_the_answer(pipeline: Any, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "promises 50 frames" in pipeline.predict(path)["note"]


def test_big_frames_are_reduced_before_they_are_kept(pipeline: Any) -> None:
    assert pipeline.read(np.zeros((9, 300, 500, 3), np.uint8)).pixels.shape == (4, 75, 125, 3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.sampled_from([(8, 8), (8, 9), (3, 5)])),
        max_size=12,
    )
)
def test_clips_together_answer_as_each_alone(pipeline: Any, clips: list[tuple[list[int], tuple[int, int]]]) -> None:
    answers = pipeline.captions([clip_of(levels, size) for levels, size in clips])
    for (levels, _), answer in zip(clips, answers, strict=True):
        level = float(np.float32(sum(levels)) / np.float32(len(levels)))
        if abs(level / 64 - round(level / 64)) > 1e-5 or len(set(levels)) == 1:
            assert [caption.text for caption in answer] == [caption_of(level, thing) for thing in range(3)]
        assert [caption.score for caption in answer] == pytest.approx(SCORES)


@pytest.fixture
def runs(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of the clips in each run of the graph."""
    shapes: list[tuple[int, ...]] = []
    engine = pipeline.engines["caption"]
    run = engine.run

    def watched(inputs: Any) -> Any:
        shapes.append(inputs["clips"].shape)
        return run(inputs)

    monkeypatch.setattr(engine, "run", watched)
    return shapes


def test_fewer_sentences_than_hypotheses(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = pipeline.engines["caption"]
    run = engine.run

    def few(inputs: Any) -> Any:
        found = run(inputs)
        found["scores"][:, 1:] = -np.inf
        return found

    monkeypatch.setattr(engine, "run", few)
    answer = pipeline.predict(clip_of([9]))
    assert (answer["score"], answer["alternatives"]) == (SCORES[0], []), "JSON has no infinity"


def test_clips_run_in_batches_of_bounded_size(
    pipeline: Any, runs: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_module, "FRAMES_AT_ONCE", 8)
    pipeline.captions([clip_of([9] * count) for count in (1, 4, 3, 20, 1, 1)] + [clip_of([9], (7, 7))])
    assert [shape[:2] for shape in runs] == [(3, 1), (2, 4), (1, 20), (1, 1)]


def test_a_clip_is_filled_up_to_less_than_twice_its_length(pipeline: Any, runs: list[tuple[int, ...]]) -> None:
    lengths = range(1, 33)
    pipeline.captions([clip_of([9] * count) for count in lengths])
    assert sum(shape[0] for shape in runs) == len(lengths)
    assert sum(shape[0] * shape[1] for shape in runs) < 2 * sum(lengths)
    assert len(runs) < len(lengths)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([(8, 8), (16, 24), (3, 5)])), min_size=1, max_size=12),
    st.integers(1, 16),
    st.integers(6 * 16 * 24 * 3, 20_000),
)
def test_any_bound_gives_the_same_answers(
    pipeline: Any, runs: list[tuple[int, ...]], clips: list[tuple[int, tuple[int, int]]], frames: int, most: int
) -> None:
    pixels = [clip_of([(67 * number + 31 * i) % 256 for i in range(n)], size) for number, (n, size) in enumerate(clips)]
    alone = [pipeline.captions([clip])[0] for clip in pixels]
    runs.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_module, "FRAMES_AT_ONCE", frames)
        patch.setattr(caption_module, "MAX_CLIP_BYTES", most)
        together = pipeline.captions(pixels)
    assert together == alone
    assert all(np.prod(shape) <= most and (shape[0] == 1 or shape[0] * shape[1] <= frames) for shape in runs)


def test_a_clip_that_would_fill_the_memory_is_refused(pipeline: Any, runs: list[tuple[int, ...]]) -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (9, 1000, 3000, 3))
    with pytest.raises(TooLargeError, match="9 frames of 3000×1000 pixels take 81000000 bytes"):
        pipeline.captions([clip_of([9]), huge])
    assert runs == []


def test_hundreds_of_large_photos_as_frames(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """500 photos of 12 megapixels are 18 GB; one at a time is decoded, and only those that are looked at."""
    photo = np.zeros((3000, 4000, 3), np.uint8)
    photo[..., 0] = 200
    data, decoded = encode_jpeg(photo), []

    def counted(*args: Any, **options: Any) -> Any:
        picture = read_picture(*args, **options)
        decoded.append(picture.pixels)
        return picture

    monkeypatch.setattr(video_module, "read_picture", counted)
    frames = pipeline.read([data] * 500)
    assert [image.shape for image in decoded] == [(3000, 4000, 3)] * 4
    assert frames.indices == (62, 187, 312, 437)
    assert frames.pixels.shape == (4, 93, 125, 3), "reduced to the bundle's `shorter` before it is kept"
    assert pipeline.predict(frames)["caption"] == "bright picture"


def test_several_threads_at_once(pipeline: Any) -> None:
    clips = [clip_of([level] * (1 + level % 5)) for level in range(0, 256, 8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(pipeline.predict, clips))
    assert [answer["caption"] for answer in answers] == [caption_of(level) for level in range(0, 256, 8)]


def test_thumbnails_are_pictures_of_the_frames(pipeline: Any) -> None:
    answer = pipeline.predict(clip_of([0, 80, 160, 240], (200, 320)), thumbnails=True)
    for level, frame in zip((0, 80, 160, 240), answer["frames"], strict=True):
        head, _, data = frame["thumbnail"].partition(",")
        assert head == "data:image/jpeg;base64"
        picture = read_image(base64.b64decode(data))
        assert picture.shape[0] <= 160
        assert abs(picture[..., 0].mean() - level) < 6


def test_a_sheet_of_the_frames(pipeline: Any) -> None:
    frames = pipeline.read(clip_of([60, 60, 60, 60]))
    sheet = pipeline.draw(frames, {"caption": "dark picture"})
    assert (sheet == [60, 0, 0]).all(axis=2).sum() == 4 * 12 * 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {}}, "are empty; a caption bundle has frames, shorter"),
        ({"settings": {**SETTINGS, "crop": 1}}, "are crop, frames, shorter; a caption bundle has frames, shorter"),
        ({"settings": {**SETTINGS, "shorter": 0}}, "shorter is 0, expected a number of pixels"),
        ({"settings": {**SETTINGS, "shorter": "448"}}, "shorter is '448'"),
        ({"settings": {**SETTINGS, "frames": {"kind": "all"}}}, "frame sampling is"),
        ({"vocabulary": None}, "a file called vocabulary"),
        ({"model": "captions"}, "needs the models caption; caption is missing"),
    ],
    ids=["empty", "unknown key", "zero", "text", "frames", "no vocabulary", "no model"],
)
def test_bundles_that_are_no_caption_bundles(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    bundle = write_caption_bundle(tmp_path / "odd.edge", **change)
    with pytest.raises(BundleError, match=words):
        load(bundle, threads=1)


def test_settings_there_and_back() -> None:
    assert CaptionSettings.from_json(SETTINGS).to_json() == SETTINGS
    assert CaptionSettings().to_json() == {"frames": {"kind": "even", "n": 8}, "shorter": 448}


def test_a_vocabulary_of_another_network_is_the_bundles_fault(tmp_path: Path) -> None:
    bundle = write_caption_bundle(tmp_path / "odd.edge", vocabulary=Vocabulary(("</s>", "<unk>", "dark", "dim")))
    with load(bundle, threads=1) as pipeline, pytest.raises(BundleError, match="the token 6 has no word"):
        pipeline.predict(clip_of([0]))


def test_a_graph_of_another_task(tmp_path: Path) -> None:
    graph = scale_graph(np.array([1.0, 2.0, 3.0], np.float32))
    bundle = write_caption_bundle(
        tmp_path / "odd.edge",
        graph=graph,
        inputs=(TensorSpec("x", "float32", ("N", 3)),),
        outputs=(TensorSpec("y", "float32", ("N", 3)),),
    )
    with pytest.raises(BundleError, match="takes x and gives y; expected clips, counts and lengths, scores, tokens"):
        load(bundle, threads=1)


def test_sources_and_options_that_do_not_fit(pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'caption' has no option distribution; it has thumbnails"):
        pipeline.predict(clip_of([0]), distribution=True)
    with pytest.raises(MediaError, match="No such file"):
        pipeline.predict(tmp_path / "none.mp4")
    with pytest.raises(InputError, match=r"clip 1: expected uint8 \(T, H, W, 3\)"):
        pipeline.captions([clip_of([0]), clip_of([0])[0]])


def test_the_score_of_a_photo_is_what_its_parts_are_hidden_for(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = clip_of([70])[0]
    probe = pipeline.probe(photo[None])
    assert (probe.meaning, probe.unit) == ("score of the best caption", "nat per word")
    assert probe.answer(np.stack([photo, photo])).tolist() == [SCORES[0], SCORES[0]]

    def by_brightness(clips: list[np.ndarray]) -> list[tuple[Caption, ...]]:
        return [(Caption("", float(clip[0, 4:8, 8:12, 0].sum())), Caption("", 1e9)) for clip in clips]

    monkeypatch.setattr(pipeline, "captions", by_brightness)
    found = occlude(pipeline.probe(photo[None]), patch=4, stride=4, fill=(0, 0, 0))
    assert np.flatnonzero(found.effect).tolist() == [1 * 4 + 2]
    assert found.effect.max() == 16 * 70


def test_parts_are_hidden_of_one_picture_only(pipeline: Any) -> None:
    with pytest.raises(InputError, match="this clip has 3 frames"):
        pipeline.probe(clip_of([1, 2, 3]))
