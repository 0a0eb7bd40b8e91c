"""The folder of a training run, as far as the command line knows it: where it lies and which task it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = "run.json"


def new_run(task: str, wanted: str | None) -> Path:
    """The folder that a run is written to: the one asked for, else ``runs/TASK-N`` with the next free N."""
    if wanted is not None:
        return Path(wanted)
    number = 1
    while (path := Path("runs") / f"{task}-{number}").exists():
        number += 1
    return path


def record(run: Path, **entries: Any) -> None:
    """Adds entries to the run's record, so that other verbs know its task without being told."""
    run.mkdir(parents=True, exist_ok=True)
    known = _read(run) if (run / RECORD).exists() else {"schema_version": 1}
    text = json.dumps(known | entries, indent=2, default=str) + "\n"
    temporary = run / f".{RECORD}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(run / RECORD)


def task_of(run: Path) -> str:
    """The task that a run belongs to.

    Raises:
        InputError: the folder holds no run.
    """
    from runtime.errors import InputError

    if not (run / RECORD).is_file():
        found = "a folder without" if run.is_dir() else "not the folder of a run: no"
        raise InputError(f"{run} is {found} {RECORD}; `edgedl train TASK -o RUN` writes one")
    task = _read(run).get("task")
    if not isinstance(task, str):
        raise InputError(f"{run / RECORD} names no task; was it written by `edgedl train`?")
    return task


def _read(run: Path) -> dict[str, Any]:
    from runtime.errors import InputError

    try:
        content = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{run / RECORD} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
