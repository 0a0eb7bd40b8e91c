"""Where results lie: a folder of Parquet parts, of which each answers a fixed piece of the inputs.

Which inputs a part answers follows from the list of inputs alone. A part is written as a whole or not at all. So what
was killed goes on where it stood: parts that are there are kept, the others are made, and nothing is done twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgedl.deploy.many.inputs import Item, fingerprint
from edgedl.deploy.many.tables import count_rows
from runtime.errors import InputError

PART = 256
"""Inputs in a part: some seconds of work for one core, which is what a kill loses at most."""

_RUN = "_run.json"  # readers of Parquet folders skip what begins with an underscore


@dataclass(frozen=True, slots=True)
class Run:
    """What results depend on. A folder of results belongs to one run.

    Attributes:
        bundle: The bundle's digest.
        variant: The form of the graphs.
        options: Of the pipeline.
        inputs: Tells the list of inputs, see `fingerprint`.
        number: How many inputs there are.
        part: Inputs in a part.
    """

    bundle: str
    variant: str
    options: Mapping[str, Any]
    inputs: str
    number: int
    part: int

    @classmethod
    def of(cls, bundle: str, variant: str | None, options: Mapping[str, Any], items: Sequence[Item]) -> Run:
        """The run that answers a list of inputs."""
        return cls(bundle, variant or "fp32", dict(options), fingerprint(items), len(items), PART)


class Results:
    """The folder of a run.

    Args:
        folder: It is made where it is not there.
        run: What it belongs to.

    Raises:
        InputError: the folder holds something else, or the results of another run.
    """

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        self.parts = -(-run.number // run.part)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = folder / _RUN
            if held.exists():
                self._check_same(json.loads(held.read_text(encoding="utf-8")))
            elif any(folder.iterdir()):
                raise InputError(f"{folder} holds something else; name a new folder for the results")
            else:
                temporary = held.with_name(f".{_RUN}")
                temporary.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")
                temporary.replace(held)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: {getattr(error, 'strerror', None) or error}") from error

    def path(self, part: int) -> Path:
        """Of a part."""
        return self.folder / f"part-{part:07d}.parquet"

    def open_parts(self) -> list[int]:
        """The parts that are not there yet."""
        there = {path.name for path in self.folder.glob("part-*.parquet")}
        return [part for part in range(self.parts) if self.path(part).name not in there]

    def rows_of(self, part: int) -> slice:
        """Which of the inputs a part answers."""
        return slice(part * self.run.part, min((part + 1) * self.run.part, self.run.number))

    def count(self) -> tuple[int, int]:
        """Rows, and how many of them hold an error.

        Raises:
            InputError: a part is damaged or has not the rows that it should have.
        """
        rows = errors = 0
        for part in range(self.parts):
            found, wrong = count_rows(self.path(part))
            wanted = self.rows_of(part)
            if found != wanted.stop - wanted.start:
                raise InputError(
                    f"{self.path(part)} has {found} rows, expected {wanted.stop - wanted.start}; remove it, run again"
                )
            rows, errors = rows + found, errors + wrong
        return rows, errors

    def _check_same(self, held: Mapping[str, Any]) -> None:
        mine = asdict(self.run)
        differs = [key for key in mine if held.get(key) != mine[key]]
        if differs:
            verb = "is" if len(differs) == 1 else "are"
            raise InputError(
                f"{self.folder} holds the results of another run: {', '.join(differs)} {verb} not the same; "
                "name another folder, or remove this one"
            )
