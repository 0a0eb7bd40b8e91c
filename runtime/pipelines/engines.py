"""Opens the models of a bundle, beside each other where there are cores for it.

Reading a model, comparing its hash and opening its session take most of a cold start, and all three let other threads
of Python run.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from runtime.bundle import Bundle
from runtime.devices import onnxruntime
from runtime.engine import Engine
from runtime.errors import BundleError
from runtime.threads import default_threads


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
        device: See `runtime.devices`. Only sessions on the CPU are opened beside each other.
        threads: Of one model's run.
        variant: A variant that only some models have (an int8 network beside a float32 detector) leaves the others as
            they are.
        meanwhile: Called in this thread, while the sessions are opened in others.

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
    onnxruntime()  # imported once, before the threads ask for it
    opened: dict[str, Engine] = {}
    failed: dict[str, Exception] = {}

    def open_one(name: str) -> None:
        spec = models[name]
        taken = variant if variant is not None and variant in spec.variants else "fp32"
        try:
            opened[name] = Engine(bundle.graph(name, taken), spec=spec, device=device, threads=threads, name=name)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that asked
            failed[name] = error

    beside = device == "cpu" and default_threads() > 1
    opening = [Thread(target=open_one, args=(name,), name=f"open {name}") for name in models]
    for thread in opening:
        thread.start()
        if not beside:
            thread.join()
    try:
        meanwhile()
    finally:
        for thread in opening:
            thread.join()
    if failed:
        for engine in opened.values():
            engine.close()
        raise next(failed[name] for name in models if name in failed)
    return {name: opened[name] for name in models}
