"""The tasks: each binds its data, network, objective, metrics and deployment together."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.tasks.base import Task

# Task -> module; each has a `TASK`. Named here, imported when asked for.
_TASKS = {
    "age": "edgedl.tasks.age.task",
    "caption": "edgedl.tasks.caption.task",
    "timer": "edgedl.tasks.timer.task",
    "chars": "edgedl.tasks.chars.task",
    "digits": "edgedl.tasks.digits.task",
    "sgd": "edgedl.tasks.sgd.task",
    "longlag": "edgedl.tasks.longlag.task",
    "gradients": "edgedl.tasks.gradients.task",
}


def task_names() -> tuple[str, ...]:
    """All tasks, in the order of the deck."""
    return tuple(_TASKS)


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _TASKS:
        raise InputError(f"unknown task {name!r}; there is {', '.join(_TASKS)}")
    found: Task = import_module(_TASKS[name]).TASK
    return found
