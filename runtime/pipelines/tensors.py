"""The pipeline of a bundle whose graph already does everything: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError, TooLargeError
from runtime.lines import LineStream
from runtime.manifest import TensorSpec
from runtime.npy import load_npy, load_npz
from runtime.occlusion import Probe
from runtime.pieces import count_outputs, run_in_pieces, run_together
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import ArrayPipeline, Source
from runtime.pipelines.results import OUTPUTS
from runtime.rows import rows_stand_alone, telling_case

_ZIP = b"PK"

MOST_NUMBERS = 1 << 22
"""In an answer: as Python's lists and then as JSON, each takes some sixty bytes."""


class TensorPipeline(ArrayPipeline):
    """Runs a bundle's only model on arrays: a .npy file (one input) or a .npz file (inputs by name).

    Of a model that carries a state whole sequences are asked for: a state that is not given begins with zeros.
    """

    result = OUTPUTS

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        if len(bundle.manifest.models) != 1:
            raise BundleError(
                f"{bundle.path}: task {bundle.manifest.task!r} has no pipeline in this version, and only a bundle "
                f"with a single model can be run without one; this one has {', '.join(bundle.manifest.models)}"
            )
        super().__init__(bundle, device=device, threads=threads, variant=variant)
        (self.engine,) = self.engines.values()
        self._apart: bool | None = None

    def predict(self, source: Source, **options: Any) -> Answer:
        """Answers arrays with arrays: {"outputs": {name: nested lists}}.

        Args:
            source: a .npy or .npz file or its bytes, an array for the first input, or arrays by the inputs' names.
            **options: none; they are named in the error.

        Raises:
            InputError: the source is not a .npy or .npz, or does not fit the model's inputs.
            TooLargeError: the answer has more than `MOST_NUMBERS`.
        """
        self.refuse(options)
        return _as_lists(run_in_pieces(self.engine, self._checked(source), apart=self._rows_apart))

    def batch(self, sources: Sequence[Source], **options: Any) -> list[Answer]:
        """Answers several calls; small ones of equal shapes go through the graph together. See `predict`."""
        self.refuse(options)
        return [_as_lists(answers) for answers in run_together(self.engine, [self._checked(one) for one in sources])]

    @property
    def array_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the graph."""
        return self.engine.spec.inputs

    @property
    def has_steps(self) -> bool:
        """Whether the model carries a state, so that it can be asked step by step."""
        return bool(self.engine.spec.state)

    def lines(self) -> LineStream:
        """Answers lines of text step by step.

        Raises:
            InputError: the model carries no state.
        """
        return LineStream(self.engine)

    def probe(self, source: Source) -> Probe:
        """A picture and the number to watch while parts of it are hidden, see `runtime.occlusion`.

        Raises:
            InputError: the model takes no picture, or answers with no number.
        """
        from runtime.pipelines.picture_tensors import picture_probe

        return picture_probe(self.engine, source)

    def _rows_apart(self) -> bool:
        """Whether recorded cases show that rows do not depend on each other; found out when it is first asked."""
        if self._apart is None:
            case = telling_case(self.engine.spec, self.bundle.golden(self.engine.name))
            self._apart = case is not None and rows_stand_alone(self.engine, case, self.variant or "fp32")
        return self._apart

    def _checked(self, source: Source) -> Mapping[str, NDArray[Any]]:
        """The inputs of a call whose answer can be given as lists."""
        inputs = self._inputs(source)
        numbers = count_outputs(self.engine.spec, self.engine.check(inputs, partial=True)[1])
        if numbers > MOST_NUMBERS:
            raise TooLargeError(
                f"the answer has {numbers:,} numbers; at most {MOST_NUMBERS:,} are given as lists. Ask for fewer rows "
                "or steps at a time"
            )
        return inputs

    def _inputs(self, source: Source) -> Mapping[str, NDArray[Any]]:
        carried = {spec.input for spec in self.engine.spec.state}
        # What is not carried comes first: a single array is never the state.
        names = sorted((spec.name for spec in self.engine.spec.inputs), key=carried.__contains__)
        if isinstance(source, Mapping):
            return source
        if isinstance(source, np.ndarray):
            return {names[0]: source}
        if not isinstance(source, str | PathLike | bytes):
            expected = f"a .npy or .npz file, an array, or arrays by name: {', '.join(names)}"
            raise InputError(f"this model takes {expected}; got {type(source).__name__}")
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            return load_npz(data) if data.startswith(_ZIP) else {names[0]: load_npy(data)}
        except (OSError, ValueError) as error:
            what = "the body" if isinstance(source, bytes) else str(source)
            raise InputError(
                f"{what} is not a .npy or .npz file ({error}); this model takes {', '.join(names)}"
            ) from error


def _as_lists(answers: Mapping[str, NDArray[Any]]) -> Answer:
    return Answer(outputs={name: value.tolist() for name, value in answers.items()})
