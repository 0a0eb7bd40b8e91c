"""Every pipeline and every task, each assigned to its contract: mypy checks this file beside the packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import edgedl
from edgedl.tasks import task
from edgedl.tasks.age.task import AgeTask
from edgedl.tasks.base import Task
from edgedl.tasks.caption.task import CaptionTask
from edgedl.tasks.chars.task import CharsTask
from edgedl.tasks.digits.task import DigitsTask
from edgedl.tasks.gradients.task import GradientsTask
from edgedl.tasks.longlag.task import LongLagTask
from edgedl.tasks.sgd.task import SgdTask
from edgedl.tasks.timer.task import TimerTask
from runtime.bundle import Bundle
from runtime.pipelines import load, pipeline_class
from runtime.pipelines.age import AgePipeline
from runtime.pipelines.base import ArrayPipeline, ClipPipeline, PicturePipeline, Pipeline, TextPipeline
from runtime.pipelines.caption import CaptionPipeline
from runtime.pipelines.chars import CharsPipeline
from runtime.pipelines.digits import DigitsPipeline
from runtime.pipelines.tensors import TensorPipeline

PICTURES: tuple[type[PicturePipeline], ...] = (AgePipeline, DigitsPipeline)
CLIPS: tuple[type[ClipPipeline], ...] = (CaptionPipeline,)
TEXTS: tuple[type[TextPipeline], ...] = (CharsPipeline,)
ARRAYS: tuple[type[ArrayPipeline], ...] = (TensorPipeline,)
PIPELINES: tuple[type[Pipeline], ...] = (*PICTURES, *CLIPS, *TEXTS, *ARRAYS)
AGES: type[AgePipeline] = edgedl.AgePipeline
CAPTIONS: type[CaptionPipeline] = edgedl.CaptionPipeline
CHARACTERS: type[CharsPipeline] = edgedl.CharsPipeline
DIGITS: type[DigitsPipeline] = edgedl.DigitsPipeline
TENSORS: type[TensorPipeline] = edgedl.TensorPipeline
OPENED: tuple[Callable[[Bundle], Pipeline], ...] = PIPELINES
"""Each can be made: mypy refuses a class here that lacks a method of the contract."""

TASKS: Mapping[str, Task] = {
    "age": AgeTask(),
    "caption": CaptionTask(),
    "timer": TimerTask(),
    "chars": CharsTask(),
    "digits": DigitsTask(),
    "sgd": SgdTask(),
    "longlag": LongLagTask(),
    "gradients": GradientsTask(),
}

LOAD: Callable[[str], Pipeline] = load
CLASS: Callable[[str], type[Pipeline]] = pipeline_class
TASK: Callable[[str], Task] = task
