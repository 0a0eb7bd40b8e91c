"""The folder of a training run, as far as the command line knows it: where it lies and which task it belongs to."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = "config.json"


def new_run(task: str) -> Path:
    """``runs/TASK-N`` with the next free N."""
    number = 1
    while (path := Path("runs") / f"{task}-{number}").exists():
        number += 1
    return path


def task_of(run: Path) -> str:
    """The task that a run belongs to. Reads its ``config.json`` only, so that no verb needs torch to find its task.

    Raises:
        InputError: the folder holds no run.
    """
    from runtime.errors import InputError

    if not (run / CONFIG).is_file():
        found = "it has no config.json" if run.is_dir() else "it is no folder" if run.exists() else "it does not exist"
        raise InputError(f"{run} is not a run: {found}; `edgedl train TASK -o RUN` makes one")
    try:
        config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{run / CONFIG} is not valid JSON: {error}") from error
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(task, str):
        raise InputError(f"{run / CONFIG} names no task, so this is not a run of `edgedl train`")
    return task
