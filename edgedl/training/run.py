"""The run folder: all that is needed to rebuild a trained network, to go on training it, and to see how it went.

::

    RUN/config.json             task, network and its options, data, seed, versions
    RUN/checkpoints/last.ckpt   everything that a resumed training needs
    RUN/checkpoints/best.ckpt   the weights with the best validation metric
    RUN/metrics.csv             one row per epoch
    RUN/curves.png, curves.csv  the same, drawn

Files are replaced atomically: a run that is killed leaves the previous state, never half a file. Only what reads or
writes weights needs torch.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl._version import __version__
from edgedl.training.processes import is_first_process
from runtime.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
Row = dict[str, float]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that readers, and a crash at any time, see the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def installed_versions() -> dict[str, str]:
    """Versions of what a training depends on."""
    found = {"python": platform.python_version(), "edgedl": __version__}
    for package in ("torch", "lightning", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder that exists; ``config`` is the parsed ``config.json``."""

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> Run:
        """Makes a new run folder.

        Args:
            path: A folder that does not exist or is empty.
            config: JSON-able; at least ``task`` (and for rebuilding: network, options, years, data, seed). The date and
                the versions are added.

        Raises:
            InputError: The folder is in use, or ``config`` is not JSON.
        """
        folder = Path(path)
        if "task" not in config:
            raise InputError("a run's configuration must name its task")
        full = {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": installed_versions(),
            **config,
        }
        text = _configuration(full)
        run = cls(folder, json.loads(text))
        if not is_first_process():
            return run
        if (folder / "config.json").exists():
            raise InputError(f"{folder} already holds a run; continue it with --resume, or choose another folder")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} exists and is not empty; a new run needs a folder of its own")
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.json", text.encode())
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Opens an existing run folder.

        Raises:
            InputError: Not a run, or one of a newer edgedl.
        """
        folder = Path(path)
        file = folder / "config.json"
        if not file.is_file():
            found = (
                "has no config.json" if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
            )
            raise InputError(f"{folder} is not a run: it {found}; `edgedl train` makes runs")
        try:
            config = json.loads(file.read_bytes())
        except ValueError as error:
            raise InputError(f"{file} is not valid JSON: {error}") from error
        if not isinstance(config, dict) or type(config.get("task")) is not str or "schema_version" not in config:
            raise InputError(f"{file} is not a run's configuration: `task` and `schema_version` are expected")
        if config["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{file} has schema_version {config['schema_version']}; this edgedl reads {SCHEMA_VERSION}; update it"
            )
        return cls(folder, config)

    @contextmanager
    def provisional(self) -> Iterator[Run]:
        """Deletes this new run if the data turn out to be unusable (`InputError`), so that its folder is free again."""
        try:
            yield self
        except InputError:
            if is_first_process():
                (self.path / "config.json").unlink(missing_ok=True)
                with suppress(OSError):  # somebody has put something there
                    self.checkpoints.rmdir()
                    self.path.rmdir()
            raise

    def amended(self, **entries: Any) -> Run:
        """Writes entries of the configuration anew that are known only after the run has begun.

        Returns:
            The run with the new configuration.
        """
        text = _configuration({**self.config, **entries})
        if is_first_process():
            write_atomically(self.path / "config.json", text.encode())
        return Run(self.path, json.loads(text))

    @property
    def task(self) -> str:
        """The task that the run belongs to."""
        name: str = self.config["task"]
        return name

    @property
    def created(self) -> str:
        """When it was begun, in ISO 8601."""
        return str(self.config["created"])

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed training starts from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best weights."""
        return self.checkpoints / "best.ckpt"

    @property
    def metrics(self) -> Path:
        """The CSV file with one row per epoch."""
        return self.path / "metrics.csv"

    def best_weights(self) -> dict[str, Tensor]:
        """State dictionary of the network at its best epoch, on the CPU; nothing in the file is executed."""
        return _read_weights(self.best)

    def save_best(self, weights: Mapping[str, Tensor], *, epoch: int, metric: str, value: float) -> None:
        """Replaces the best weights."""
        import torch

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        buffer = io.BytesIO()
        torch.save({"weights": state, "epoch": epoch, "metric": metric, "value": value}, buffer)
        write_atomically(self.best, buffer.getvalue())

    def history(self) -> list[Row]:
        """The rows of ``metrics.csv``, oldest first; an empty list before the first epoch has ended."""
        if not self.metrics.is_file():
            return []
        with self.metrics.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        try:
            return [{name: float(value) for name, value in row.items() if value} for row in rows]
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.metrics} holds something that is not a number: {error}") from error

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replaces ``metrics.csv``; whole numbers are written as such."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if name not in row else _number(row[name]) for name in names])
        write_atomically(self.metrics, text.getvalue().encode())


def _configuration(config: Mapping[str, Any]) -> str:
    try:
        return json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"a run's configuration must be plain JSON: {error}") from error


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"{file} does not exist: the run has not finished an epoch yet")
    import torch

    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)["weights"]
    except Exception as error:
        raise InputError(f"{file} is not a checkpoint of edgedl: {type(error).__name__}") from error
    return dict(weights)
