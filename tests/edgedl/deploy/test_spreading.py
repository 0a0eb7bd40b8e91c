"""An evaluation gives the same figures, bit for bit, whoever answers and in whatever order the answers come."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgedl.cli import main
from edgedl.data.spreading import Answers, Elsewhere, Work, answered, pieces_of
from edgedl.data.synthetic_faces import SyntheticFaces
from edgedl.deploy.many.processes import Cores, in_order
from edgedl.tasks import task
from edgedl.tasks.caption import evaluation as caption_evaluation
from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
from edgedl.tasks.caption.evaluation import evaluate_captions
from runtime.errors import CheckFailedError, InputError
from runtime.pipelines.caption import CaptionPipeline
from tests.captions import SETTINGS, write_caption_bundle

FACES = 20


def backwards(prepare: Callable[[], Work], pieces: Sequence[range]) -> Iterator[Answers]:
    """A `Spread` of two machines, as far as that can be told here: what they are given and what they answer travels."""
    works = [pickle.loads(pickle.dumps(prepare))() for _ in range(2)]
    done = [(number, works[number % 2](pieces[number])) for number in reversed(range(len(pieces)))]
    return in_order((number, json.loads(json.dumps(answers))) for number, answers in done)


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Painted faces in UTKFace's format, one of them damaged."""
    folder = tmp_path / "utkface"
    folder.mkdir()
    painted = SyntheticFaces(n=FACES)
    for index, sample in enumerate(painted):
        name = f"{round(sample.age)}_{index % 2}_{index % 5}_2017010900000{index:04}.jpg"
        cv2.imwrite(str(folder / name), painted.image(index)[..., ::-1])
    damaged = sorted(folder.iterdir())[7]
    damaged.write_bytes(damaged.read_bytes()[:400])
    return folder


def test_two_processes_judge_ages_as_one_does(age_bundle, faces, capsys, monkeypatch):
    monkeypatch.setattr("edgedl.tasks.age.evaluation.TOGETHER", 3)
    words = (age_bundle, "--data", faces, "--by", "gender", "--max-unreadable", "0.1")
    one = evaluated(capsys, *words)
    assert (one["n"], one["unreadable"]["count"]) == (FACES - 1, 1)
    assert evaluated(capsys, *words, "--workers", "2") == one


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray uses what it has deprecated itself
def test_ray_judges_ages_as_one_process_does(age_bundle, faces, capsys, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'edgedl[ray]'")
    monkeypatch.setattr("edgedl.tasks.age.evaluation.TOGETHER", 3)
    words = (age_bundle, "--data", faces, "--max-unreadable", "0.1")
    assert evaluated(capsys, *words, "--ray", "--workers", "1") == evaluated(capsys, *words)


@pytest.mark.parametrize(
    "spread", [backwards, pytest.param(Cores(2), marks=pytest.mark.slow)], ids=["backwards", "cores"]
)
def test_captions_are_judged_the_same(tmp_path, monkeypatch, spread):
    monkeypatch.setattr(caption_evaluation, "CLIPS_AT_ONCE", 5)
    opened = partial(CaptionPipeline.open, threads=1)
    clips = BouncingDigits(0, 10, 24).split("val")
    path = write_caption_bundle(tmp_path / "four.edge").path
    with opened(path) as pipeline:
        one = evaluate_captions(pipeline, clips, scored=False)
        other = evaluate_captions(pipeline, clips, scored=False, elsewhere=Elsewhere(spread, opened))
    assert len(one[1]) == len(clips) > 5
    assert json.dumps(one) == json.dumps(other)


def test_answers_come_in_the_order_of_the_samples():
    assert list(in_order([(2, "c"), (0, "a"), (1, "b"), (3, "d")])) == ["a", "b", "c", "d"]
    assert pieces_of(5, 2) == [range(2), range(2, 4), range(4, 5)]


def test_a_bundle_that_is_replaced_meanwhile_is_refused(tmp_path):
    path = tmp_path / "caption.edge"
    opened = partial(CaptionPipeline.open, threads=1)
    with opened(write_caption_bundle(path).path) as pipeline:
        path.rename(tmp_path / "before.edge")
        write_caption_bundle(path, settings=SETTINGS | {"shorter": 48})
        with pytest.raises(InputError, match="was replaced while it was evaluated"):
            list(answered(pipeline, _lengths, [range(3)], Elsewhere(backwards, opened)))


def _lengths(pipeline: CaptionPipeline, piece: range) -> Answers:
    return [len(piece)]


class Dying:
    """Doubles numbers. The process that has piece 4 dies, the first time or each time."""

    def __init__(self, flag: Path, always: bool) -> None:
        self.flag, self.always = flag, always

    def __call__(self, piece: range) -> Answers:
        if 4 in piece and (self.always or not self.flag.exists()):
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 * number for number in piece]


def test_a_process_that_dies_is_replaced(tmp_path):
    answers = Cores(1)(partial(Dying, tmp_path / "died", always=False), pieces_of(9, 3))
    assert np.concatenate(list(answers)).tolist() == [2 * number for number in range(9)]


def test_a_piece_that_ends_each_process_is_told(tmp_path):
    with pytest.raises(CheckFailedError, match="the process that answered samples 4 to 6 ended 2 times"):
        list(Cores(1)(partial(Dying, tmp_path / "died", always=True), pieces_of(9, 3)))


def _refused() -> Work:
    raise InputError("the bundle is gone")


def test_what_a_process_cannot_open_is_told():
    with pytest.raises(InputError, match="the bundle is gone"):
        list(Cores(1)(_refused, pieces_of(9, 3)))


def test_a_task_without_files_refuses_workers():
    with pytest.raises(InputError, match="a timer bundle is evaluated with --variant, not with --workers or --ray"):
        task("timer").evaluate("timer.edge", None, None, "cpu", None, spread=Cores(1))
