"""From raw input to answer: one pipeline per task, chosen by the bundle."""

from __future__ import annotations

from os import PathLike

from runtime.bundle import Bundle
from runtime.errors import EdgedlError
from runtime.pipelines.base import Pipeline as Pipeline


def load(
    path: str | PathLike[str] | Bundle,
    *,
    device: str = "cpu",
    threads: int | None = None,
    variant: str | None = None,
    check: bool = False,
    reprove: bool = False,
) -> Pipeline:
    """Opens a bundle as its task's pipeline.

    A program that knows the task has more from its class, e.g. ``edgedl.AgePipeline.open``. Editors and mypy know its
    methods.

    Args:
        path: a bundle's folder or file, or an opened `Bundle`.
        device: "cpu", "gpu", "auto" or another device that ONNX Runtime offers; strict, never a silent fallback.
        threads: of one model's run; None takes what affinity and the container's quota allow.
        variant: "fp32", "int8" …; None takes float32.
        check: replay the smallest recorded case of each model first, as `verify` does with all of them.
        reprove: where proofs lie beside the bundle and none was made with this ONNX Runtime on this class of processor,
            replay all recorded cases and add a proof. Without it that is only said, as a warning in the log.

    Returns:
        The task's pipeline; a `TensorPipeline` for a task that has no steps outside the graph.

    Raises:
        BundleError: the bundle is damaged, or its settings do not fit its task.
        DeviceError: the device cannot be had.
        CheckFailedError: with `check` or `reprove`, an answer differs from the recorded one.
    """
    bundle = path if isinstance(path, Bundle) else Bundle.open(path, check=False)
    pipeline = pipeline_class(bundle.manifest.task).open(bundle, device=device, threads=threads, variant=variant)
    try:
        if check or reprove:
            _check(pipeline, reprove=reprove)
        elif bundle.has_proofs:
            from runtime.place import notice  # here, because a first answer begins quicker without

            notice(bundle, pipeline.engines, variant or "fp32")
    except EdgedlError:
        pipeline.close()
        raise
    return pipeline


def _check(pipeline: Pipeline, *, reprove: bool) -> None:
    """Replays the smallest case of each model, and all of them where a proof is asked for and none speaks of here."""
    from runtime.door import Door

    door = Door(pipeline.bundle, pipeline.engines, pipeline.variant)
    door.first()
    if reprove and not door.proven_before:
        from runtime.reprove import reprove as prove_here

        prove_here(door, pipeline.bundle)
    else:
        door.notice()


def pipeline_class(task: str) -> type[Pipeline]:
    """The pipeline of a task, imported when it is asked for; a task that is not named here has only its graph."""
    match task:
        case "age":
            from runtime.pipelines.age import AgePipeline

            return AgePipeline
        case "caption":
            from runtime.pipelines.caption import CaptionPipeline

            return CaptionPipeline
        case "digits":
            from runtime.pipelines.digits import DigitsPipeline

            return DigitsPipeline
        case "chars":
            from runtime.pipelines.chars import CharsPipeline

            return CharsPipeline
        case _:
            from runtime.pipelines.tensors import TensorPipeline

            return TensorPipeline
