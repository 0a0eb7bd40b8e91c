"""What judges a variant: every task with a metric measures it on three parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedl.tasks import task
from edgedl.tasks.timer.evaluation import SEQUENCES, evaluate_timer
from exporters.quantize.judge import AnyJudge
from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.pipelines.tensors import TensorPipeline
from tests.digits import write_digits_bundle
from tests.timers import write_timer_bundle


@pytest.mark.parametrize("name", ["age", "caption", "chars", "digits", "gradients", "longlag", "timer"])
def test_the_parts_have_samples(name: str) -> None:
    judge: AnyJudge = task(name).judge(None, None, 50)
    assert set(judge.sizes) == {"calibrate", "choose", "judge"}
    assert min(judge.sizes.values()) > 0
    assert judge.sizes["judge"] == 50
    assert judge.drop(0.5, 0.4) == pytest.approx(-0.1 if judge.lower_is_better else 0.1)


def test_a_task_without_a_metric_says_so() -> None:
    with pytest.raises(InputError, match="the task sgd has no metric by which a variant could be judged"):
        task("sgd").judge(None, None, None)


@pytest.mark.parametrize("name", ["digits", "gradients", "longlag", "timer"])
def test_data_that_are_not_read_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--data is not read"):
        task(name).judge("faces.zip", None, None)


def test_the_value_is_that_of_evaluate(tmp_path: Path) -> None:
    bundle = write_timer_bundle(tmp_path / "late.edge", late=1)
    judge = task("timer").judge(None, None, None)
    with judge.open(bundle, None) as pipeline, TensorPipeline.open(bundle, threads=1) as other:
        assert judge.measure(pipeline, "judge", None) == evaluate_timer(other, "test", SEQUENCES)["metrics"]["exact"]


def test_a_part_can_be_cut_short(tmp_path: Path) -> None:
    bundle = write_digits_bundle(tmp_path / "digits.edge", draws=False)
    judge = task("digits").judge(None, None, None)
    with judge.open(bundle, None) as pipeline:
        values = {judge.measure(pipeline, "judge", first) for first in (1, 10, None)}
    assert values <= {n / d for d in (1, 10, judge.sizes["judge"]) for n in range(d + 1)}
    assert len(values) > 1


@pytest.mark.parametrize("part", ["calibrate", "choose", "judge"])
def test_ages_of_painted_faces_have_an_error(age_bundle: Path, part: str) -> None:
    judge = task("age").judge(None, None, 12)
    bundle = Bundle.open(age_bundle)
    with judge.open(bundle, None) as pipeline:
        value = judge.measure(pipeline, part, 4)
        assert value == judge.measure(pipeline, part, 4)
    assert 0 < value < 100
