"""The tasks: each binds its data, network, objective, metrics and deployment together."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedl.tasks.base import Task

SUMMARIES = {
    "age": "the ages of the faces in a photo",
    "caption": "what a photo or a video shows, in a sentence",
    "timer": "a pulse of a given length, by a recurrent network",
    "chars": "the next characters of a text",
    "digits": "handwritten digits: soft-max, CNN, deep belief network",
    "sgd": "descent on a cost of two weights, by several methods",
    "longlag": "what stands far before: adding, copying, order, pixels",
    "gradients": "how much of a gradient reaches the first step",
}
"""The tasks in the order of the deck, each with a summary. The module ``edgedl.tasks.NAME.task`` holds its `TASK`."""


def task_names() -> tuple[str, ...]:
    """All tasks, in the order of the deck."""
    return tuple(SUMMARIES)


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        InputError: there is none.
    """
    from runtime.errors import InputError

    if name not in SUMMARIES:
        raise InputError(f"unknown task {name!r}; there is {', '.join(SUMMARIES)}")
    found: Task = import_module(f"edgedl.tasks.{name}.task").TASK
    return found
