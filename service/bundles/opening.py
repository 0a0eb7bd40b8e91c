"""How a service opens a bundle: checked, admitted, loaded, warmed up and tried on a recorded case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from runtime.bundle import Bundle
from runtime.errors import CheckFailedError, EdgedlError, InputError
from runtime.pipelines import pipeline_class
from runtime.pipelines.base import Pipeline
from runtime.threads import default_threads
from service.bundles.served import Served
from service.bundles.streams import StreamLimits

Source = str | PathLike[str] | Bundle | Pipeline
"""What is served: a path, an opened bundle, or a loaded pipeline."""

Admit = Callable[[Bundle], object]
"""Raises a `BundleError` for a bundle that may not be served, whatever it answers."""


def admit_all(_bundle: Bundle) -> None:
    """Admits every bundle."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens bundles for a service, at its start and at every swap.

    Attributes:
        device: Where paths and bundles run.
        threads: Threads of each engine; None takes half of what the process may use.
        variant: Which variant of the models; None takes the bundle's own choice.
        streams: How many streams a recurrent bundle may have open, and for how long.
        admit: Called with each bundle before any of its graphs is opened.
        workers: Processes that answer the same requests. With several, no bundle may stream.
        reprove: Keep a proof beside a bundle where none was made with this ONNX Runtime on this class of processor.
    """

    device: str = "cpu"
    threads: int | None = None
    variant: str | None = None
    streams: StreamLimits = StreamLimits()  # noqa: RUF009 - frozen
    admit: Admit = admit_all
    workers: int = 1
    reprove: bool = False

    def open(self, source: Source, name: str | None = None) -> Served:
        """Opens a bundle and gives it ready to answer.

        Args:
            source: What to open. A pipeline that was loaded is taken as it is.
            name: The name that it answers under, where that is not its own.

        Raises:
            BundleError: It is damaged, or not admitted.
            CheckFailedError: It does not answer as it was recorded.
            DeviceError: The device cannot be had.
            InputError: The name cannot stand in a route, or it streams and there are several workers.
        """
        if isinstance(source, Pipeline):
            self.admit(source.bundle)
            return self._served(source, name)
        bundle = source if isinstance(source, Bundle) else Bundle.open(source, check=False)
        self.admit(bundle)
        # Two runs side by side on half of the cores each answer more requests than one after the other on all of them.
        threads = self.threads or max(1, default_threads() // 2)
        opened = pipeline_class(bundle.manifest.task)
        pipeline = opened.open(bundle, device=self.device, threads=threads, variant=self.variant)
        try:
            return self._served(pipeline, name)
        except CheckFailedError as error:
            pipeline.close()
            raise CheckFailedError(f"{bundle.path}: {error}") from error
        except EdgedlError:
            pipeline.close()
            raise

    def _served(self, pipeline: Pipeline, name: str | None) -> Served:
        if self.workers > 1 and pipeline.has_steps:
            raise InputError(
                f"the bundle {pipeline.bundle.manifest.name!r} carries a state from step to step, and a stream lives "
                f"in one process; it cannot be served by {self.workers} workers: take one"
            )
        return Served(pipeline, self.streams, name, reprove=self.reprove)
