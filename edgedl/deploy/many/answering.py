"""What each process does: open the bundle once, then answer one part of the inputs after the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedl.deploy.many.inputs import Item
from edgedl.deploy.many.tables import Row
from runtime.errors import InputError
from runtime.pipelines import load
from runtime.pipelines.base import ClipPipeline, PicturePipeline, Pipeline, Source

TOGETHER = 8
"""Pictures that are held in memory and answered at a time."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a process opens the bundle.

    Attributes:
        bundle: Its path.
        digest: Its digest; another bundle at the path is refused.
        device: Where it runs.
        threads: Of one run.
        variant: The form of the graphs.
        options: Of the pipeline.
    """

    bundle: str
    digest: str
    device: str = "cpu"
    threads: int | None = 1
    variant: str | None = None
    options: Mapping[str, Any] | None = None


class Answerer:
    """An open bundle that answers inputs, and turns what cannot be read into rows with an error.

    Raises:
        InputError: the bundle at the path is another one.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.pipeline: Pipeline = load(
            setting.bundle, device=setting.device, threads=setting.threads, variant=setting.variant
        )
        if self.pipeline.bundle.digest != setting.digest:
            self.pipeline.close()
            raise InputError(f"{setting.bundle} was replaced while the files were answered; begin again")

    def answer(self, items: Sequence[Item]) -> list[Row]:
        """A row for each input, in their order."""
        rows: list[Row] = []
        for begin in range(0, len(items), TOGETHER):
            rows += self._together(items[begin : begin + TOGETHER])
        return rows

    def _together(self, items: Sequence[Item]) -> list[Row]:
        digests, opened, errors = [""] * len(items), {}, {}
        for place, item in enumerate(items):
            try:
                data = item.read()
                digests[place] = hashlib.sha256(data).hexdigest()
                opened[place] = self._open(data)
            except (InputError, OSError) as error:
                errors[place] = _told(error)
        answers = self._answers(opened, errors)
        return [
            Row(item.name, digests[place], self.setting.digest, answers.get(place, ""), errors.get(place, ""))
            for place, item in enumerate(items)
        ]

    def _open(self, data: bytes) -> Source:
        if isinstance(self.pipeline, PicturePipeline):
            return self.pipeline.open_picture(data)
        if isinstance(self.pipeline, ClipPipeline):
            return self.pipeline.read(data)
        return data

    def _answers(self, opened: Mapping[int, Source], errors: dict[int, str]) -> dict[int, str]:
        """JSON by place; what the pipeline refuses goes to the errors."""
        options = self.setting.options or {}
        try:
            found = dict(zip(opened, self.pipeline.batch(list(opened.values()), **options), strict=True))
        except InputError:
            # One of them is at fault. The others have an answer, each by itself.
            found = {}
            for place, source in opened.items():
                try:
                    found[place] = self.pipeline.predict(source, **options)
                except InputError as error:
                    errors[place] = _told(error)
        return {place: json.dumps(answer, ensure_ascii=False) for place, answer in found.items()}


def _told(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
