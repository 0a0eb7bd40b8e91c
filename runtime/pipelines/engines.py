"""Opens the models of a bundle in a thread of its own, while the caller loads what else the first answer needs.

Reading a model, comparing its hash and opening its session take half of a cold start, and all three let other threads
of Python run. Two sessions at a time took no less time than one after the other, and more memory.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from runtime.bundle import Bundle
from runtime.devices import onnxruntime
from runtime.engine import Engine
from runtime.errors import BundleError


def open_engines(
    bundle: Bundle,
    expected: tuple[str, ...],
    *,
    device: str,
    threads: int | None,
    variant: str | None,
    meanwhile: Callable[[], None],
) -> dict[str, Engine]:
    """One engine for each model of a bundle, in the manifest's order.

    Args:
        bundle: The bundle.
        expected: The models that the task needs.
        device: See `runtime.devices`.
        threads: Of one model's run.
        variant: A variant that only some models have (an int8 network beside a float32 detector) leaves the others as
            they are.
        meanwhile: Called in the caller's thread, while the sessions are opened; after that, on an accelerator.

    Raises:
        BundleError: a model that the task needs is missing, or the variant is, or a graph cannot be opened.
        DeviceError: the device cannot be had.
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
    onnxruntime()  # an import takes a lock of its own, which the threads need not wait for
    opened: dict[str, Engine] = {}
    failed: list[Exception] = []

    def open_all() -> None:
        try:
            for name, spec in models.items():
                taken = variant if variant is not None and variant in spec.variants else "fp32"
                graph = bundle.graph(name, taken)
                opened[name] = Engine(graph, spec=spec, device=device, threads=threads, name=name)
        except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
            failed.append(error)

    opening = Thread(target=open_all, name="open models")
    opening.start()
    try:
        if device != "cpu":
            opening.join()
        meanwhile()
    finally:
        opening.join()
    if failed:
        for engine in opened.values():
            engine.close()
        raise failed[0]
    return opened
