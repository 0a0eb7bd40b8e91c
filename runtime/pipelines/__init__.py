"""From raw input to answer: one pipeline per task, chosen by the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os import PathLike
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import BundleError

# Task -> module and class. Named here, imported when asked for.
_PIPELINES = {
    "age": ("runtime.pipelines.age", "AgePipeline"),
    "caption": ("runtime.pipelines.caption", "CaptionPipeline"),
    "digits": ("runtime.pipelines.digits", "DigitsPipeline"),
    "chars": ("runtime.pipelines.chars", "CharsPipeline"),
}
_ANY_TASK = ("runtime.pipelines.tensors", "TensorPipeline")

Source = str | PathLike[str] | bytes | NDArray[Any]


class Pipeline(Protocol):
    """What every task's pipeline offers to the command line and the service."""

    bundle: Bundle
    engines: Mapping[str, Engine]

    def predict(self, source: Source, **options: Any) -> dict[str, Any]:
        """Answers one input with a JSON document, see DESIGN §4 for its shape per task."""

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The input (H, W, 3) with the answer drawn into it."""

    def close(self) -> None:
        """Gives the sessions back."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def load(
    path: str | PathLike[str] | Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
) -> Any:
    """Opens a bundle as its task's pipeline.

    Args:
        path: a bundle's folder or file, or an opened `Bundle`.
        device: "cpu", "gpu", "auto" or another device that ONNX Runtime offers; strict, never a silent fallback.
        threads: of one model's run; None takes what affinity and the container's quota allow.
        variant: "fp32", "int8" …; None takes float32.

    Returns:
        The task's `Pipeline` (typed Any, because each task adds its own methods), a `TensorPipeline` for a task
        that has no steps outside the graph.

    Raises:
        BundleError: the bundle is damaged, or its settings do not fit its task.
        DeviceError: the device cannot be had.
    """
    # Each file is compared with its hash when it is read; recorded answers, which are not read here, need not delay it.
    bundle = path if isinstance(path, Bundle) else Bundle.open(path, check=False)
    module, name = _PIPELINES.get(bundle.manifest.task, _ANY_TASK)
    return getattr(import_module(module), name)(bundle, device=device, threads=threads, variant=variant)


def open_engines(
    bundle: Bundle, *, device: str, threads: int | None, variant: str | None, expected: tuple[str, ...] = ()
) -> dict[str, Engine]:
    """One engine per model of the bundle.

    Raises:
        BundleError: a model that the task needs is missing, or the variant is.
    """
    models = bundle.manifest.models
    missing = [name for name in expected if name not in models]
    if missing:
        raise BundleError(
            f"{bundle.path}: task {bundle.manifest.task!r} needs the models {', '.join(expected)}; "
            f"{', '.join(missing)} is missing, the bundle holds {', '.join(models) or 'none'}"
        )
    if variant is not None and not any(variant in spec.variants for spec in models.values()):
        found = sorted({name for spec in models.values() for name in spec.variants})
        raise BundleError(f"{bundle.path} has no variant {variant!r}; it has {', '.join(found)}")
    # A variant that only some models have (an int8 network beside a float32 detector) leaves the others as they are.
    return {
        name: Engine(
            bundle.graph(name, variant if variant is not None and variant in spec.variants else "fp32"),
            spec=spec,
            device=device,
            threads=threads,
            name=name,
        )
        for name, spec in models.items()
    }
