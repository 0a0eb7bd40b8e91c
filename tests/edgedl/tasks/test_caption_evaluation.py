"""Which frames a caption bundle is judged on, in which batches, and that what is told apart is counted apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgedl.data import spreading
from edgedl.data.unreadable import Unreadable
from edgedl.tasks.caption import evaluation as caption_evaluation
from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
from edgedl.tasks.caption.evaluation import captions_of, evaluate_captions, exact_by_digits
from runtime.errors import InputError
from runtime.pipelines import load
from runtime.pipelines.caption import CaptionPipeline
from tests.captions import SETTINGS, caption_of, write_caption_bundle


class Shown:
    """Clips given as arrays, each with one caption."""

    name = "shown"

    def __init__(self, clips, captions=None) -> None:
        self.clips = clips
        self.said = captions or ["nothing"] * len(clips)

    def __len__(self) -> int:
        return len(self.clips)

    def clip_name(self, index: int) -> str:
        return f"clip {index}"

    def captions(self, index: int) -> tuple[str, ...]:
        return (self.said[index],)

    def media(self, index: int):
        return self.clips[index]


def rising(count: int, height: int = 6, width: int = 8) -> np.ndarray:
    """A clip (T, H, W, 3) whose frames rise in brightness from 0 to 255."""
    levels = np.linspace(0, 255, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def pipeline(bundles: Path):
    with load(write_caption_bundle(bundles / "four.edge").path, threads=1) as pipeline:
        yield pipeline


@pytest.mark.parametrize(
    ("frames", "level"),
    [
        ({"kind": "even", "n": 1}, 255 * 8 // 15),
        ({"kind": "every", "n": 15, "most": 4}, 255 // 2),
        ({"kind": "every", "n": 20, "most": 4}, 0),
    ],
    ids=["the middle", "first and last", "the first"],
)
def test_the_bundle_chooses_the_frames(bundles: Path, frames: dict, level: int) -> None:
    """Sixteen frames of rising brightness: what is said of them depends on which are taken."""
    path = bundles / f"{frames['kind']}-{frames['n']}.edge"
    if not path.exists():
        write_caption_bundle(path, settings={**SETTINGS, "frames": frames})
    with load(path, threads=1) as pipeline:
        assert captions_of(pipeline, Shown([rising(16)])) == {0: caption_of(level)}


def test_captions_come_in_the_order_of_the_clips(pipeline: CaptionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos and clips of several sizes and lengths, some threads, and stretches that they are cut into."""
    monkeypatch.setattr(caption_evaluation, "CLIPS_AT_ONCE", 4)
    monkeypatch.setattr(spreading, "default_threads", lambda: 3)
    chance = np.random.default_rng(0)
    levels = chance.integers(0, 256, 30).tolist()
    clips = [
        np.full((chance.integers(1, 6), *[(6, 8), (9, 5)][chance.integers(2)], 3), level, np.uint8) for level in levels
    ]
    told = []
    said = captions_of(pipeline, Shown(clips), progress=lambda done, total: told.append((done, total)))
    assert list(said.items()) == [(number, caption_of(level)) for number, level in enumerate(levels)]
    assert told == [*((done, 30) for done in range(4, 30, 4)), (30, 30)]


def test_no_more_is_held_than_may_be(pipeline: CaptionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of 4 × 6 × 8 × 3 bytes, two of which reach the limit; one alone may be larger."""
    monkeypatch.setattr(caption_evaluation, "HELD_BYTES", 1000)
    monkeypatch.setattr(spreading, "default_threads", lambda: 1)
    batches: list[int] = []
    captions = CaptionPipeline.captions
    monkeypatch.setattr(
        CaptionPipeline, "captions", lambda self, clips: batches.append(len(clips)) or captions(self, clips)
    )
    small, large = rising(4), rising(4, 30, 40)
    assert len(captions_of(pipeline, Shown([small, small, small, large, small, large, large, small]))) == 8
    assert batches == [2, 2, 2, 1, 1]


def test_what_is_given_back(pipeline: CaptionPipeline) -> None:
    levels = [10, 80, 150, 220, 90, 30, 250, 190, 100, 60, 130, 20]
    said = [caption_of(level) for level in levels]
    said[2] = said[7] = "another thing"
    dataset = Shown([np.full((1, 4, 4, 3), level, np.uint8) for level in levels], said)
    result, found = evaluate_captions(pipeline, dataset, scored=False)
    assert found == [caption_of(level) for level in levels]
    assert (result["n"], result["dataset"], result["metrics"]) == (12, "shown", {"accuracy": pytest.approx(10 / 12)})
    assert [example["clip"] for example in result["examples"]] == [f"clip {i}" for i in (1, 3, 6, 8, 10)]
    assert result["examples"][2] == {"clip": "clip 6", "caption": caption_of(250), "reference": caption_of(250)}


def test_no_clips_are_no_result(pipeline: CaptionPipeline) -> None:
    with pytest.raises(InputError, match="there are no clips of shown"):
        evaluate_captions(pipeline, Shown([]), scored=False)


def test_a_clip_that_cannot_be_read_is_named(pipeline: CaptionPipeline) -> None:
    with pytest.raises(InputError, match=r"of 3 files of shown cannot be read.*: clip 1 \(the input is not"):
        captions_of(pipeline, Shown([rising(2), b"no picture", rising(3)]))


def test_clips_that_cannot_be_read_are_left_out(pipeline: CaptionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others keep their own captions and references, whichever stretch they are read in."""
    monkeypatch.setattr(caption_evaluation, "CLIPS_AT_ONCE", 3)
    levels = [10, 80, 150, 220, 90, 30, 250]
    clips = [np.full((1, 4, 4, 3), level, np.uint8) for level in levels]
    for row in (0, 3, 4, 5):
        clips[row] = b"no picture"
    unreadable = Unreadable("shown", 7, 0.6)
    dataset = Shown(clips, [caption_of(level) for level in levels])
    result, said = evaluate_captions(pipeline, dataset, scored=False, unreadable=unreadable)
    assert said == [caption_of(level) for level in (80, 150, 250)]
    assert (result["n"], result["references"], result["metrics"]) == (3, 3, {"accuracy": 1.0})
    assert [example["clip"] for example in result["examples"]] == ["clip 1", "clip 2", "clip 6"]
    assert unreadable.names == ("clip 0", "clip 3", "clip 4", "clip 5")


@pytest.mark.parametrize(
    ("share", "said"), [(0.6, "3 of 4 files of shown"), (1.0, None), (0.0, "at least 1 of 4 files of shown")]
)
def test_too_many_clips_that_cannot_be_read(pipeline: CaptionPipeline, share: float, said: str | None) -> None:
    dataset = Shown([b"", b"<html>", rising(2), b"no"])
    if said is None:
        assert list(captions_of(pipeline, dataset, unreadable=Unreadable("shown", 4, share))) == [2]
        return
    with pytest.raises(InputError, match=said):
        captions_of(pipeline, dataset, unreadable=Unreadable("shown", 4, share))


def test_nothing_that_can_be_read_is_no_result(pipeline: CaptionPipeline) -> None:
    with pytest.raises(InputError, match="none of the clips of shown can be read: clip 0"):
        evaluate_captions(pipeline, Shown([b"", b"x"]), scored=False, unreadable=Unreadable("shown", 2, 1))


def test_digits_are_counted_apart() -> None:
    """Of six clips with one digit two are told wrongly, of six with two digits one."""
    digits = BouncingDigits(0, 4, 12).split("val")
    said = [digits.captions(i)[0].removesuffix(" .") for i in range(12)]
    for wrong in (0, 5, 9):
        said[wrong] = "the digits 1 is moving"
    assert exact_by_digits(said, digits) == {
        "one": {"accuracy": pytest.approx(4 / 6), "n": 6},
        "two": {"accuracy": pytest.approx(5 / 6), "n": 6},
    }
    two = digits.split("val-2")
    assert exact_by_digits(said[6:], two) == {"two": {"accuracy": pytest.approx(5 / 6), "n": 6}}


def test_an_embedded_clip_is_its_frames() -> None:
    digits = BouncingDigits(0, 4, 4).split("val")
    np.testing.assert_array_equal(digits.media(1), digits.frames(1))
