"""The contracts of pipelines and tasks: `tests.contracts` names them all, and what they declare is what they do."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from edgedl.tasks import task, task_names
from edgedl.tasks.base import Task
from runtime.pipelines import load, pipeline_class
from runtime.pipelines.base import Pipeline
from tests.contracts import PIPELINES, TASKS

ROOT = Path(__file__).parents[1]
CLASSES = pytest.mark.parametrize("kind", PIPELINES, ids=lambda kind: kind.__name__)


def test_mypy_sees_every_pipeline_and_every_task() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert "tests.contracts" in settings["modules"]
    assert TASKS.keys() == set(task_names())
    assert all(type(task(name)) is type(one) for name, one in TASKS.items())
    assert {pipeline_class(name) for name in (*task_names(), "something new")} == set(PIPELINES)
    modules = {path.stem for path in (ROOT / "runtime" / "pipelines").glob("*.py")}
    named = {kind.__module__.rpartition(".")[2] for kind in PIPELINES}
    assert modules - named == {"__init__", "answer", "base", "picture_tensors", "results"}


@pytest.mark.parametrize(
    ("seam", "gives"), [(load, Pipeline), (pipeline_class, type[Pipeline]), (task, Task)], ids=["load", "class", "task"]
)
def test_a_seam_says_what_it_gives(seam: Any, gives: Any) -> None:
    names = {"Task": Task} if seam is task else None
    assert get_type_hints(seam, localns=names)["return"] == gives


@CLASSES
def test_options_are_those_of_predict_with_their_types(kind: type[Pipeline]) -> None:
    hints = get_type_hints(kind.predict)
    named = inspect.signature(kind.predict).parameters.values()
    keywords = {one.name: hints[one.name] for one in named if one.kind is one.KEYWORD_ONLY}
    assert keywords == dict(kind.options)


@CLASSES
def test_a_pipeline_says_what_it_takes_and_gives(kind: type[Pipeline]) -> None:
    assert kind.modality in ("picture", "clip", "text", "arrays")
    assert kind.result["type"] == "object"
    assert set(kind.result["required"]) <= set(kind.result["properties"])
    assert len({one.result["title"] for one in PIPELINES}) == len(PIPELINES), "titles name schemas of OpenAPI"


@CLASSES
def test_a_session_is_given_back_in_one_place(kind: type[Pipeline]) -> None:
    assert not {"close", "__enter__", "__exit__"} & kind.__dict__.keys()
