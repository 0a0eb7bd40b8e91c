"""The pipelines that a service holds, and whether they can answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from runtime.arena import release_memory
from runtime.axes import batch_axes, input_dimensions
from runtime.checks import size_range
from runtime.errors import BundleError, InputError, MediaError, TooLargeError
from runtime.fields import flat_name
from runtime.media.frames import VideoLimits
from runtime.npy import load_npy, load_npz
from runtime.pieces import count_outputs, run_in_pieces, run_together
from runtime.pipelines.base import ArrayPipeline, ClipPipeline, PicturePipeline, Pipeline, Source
from runtime.threads import default_threads
from service.bundles.batching import BatchingQueue, Call
from service.bundles.health import Health
from service.bundles.leases import Leases
from service.bundles.streams import StreamLimits, Streams
from service.bundles.watch import Watch
from service.media_types import raw_types
from service.settings import Settings
from service.visits import CURRENT

LOG = logging.getLogger("edgedl.service")

Answer = TypeVar("Answer")

NO_OTHERS = StreamLimits()

MOST_NUMBERS = 1 << 25
"""In the answer of a graph."""

LARGE = 1 << 16
"""Bytes of a request of arrays from which on its memory is given back soon."""

LONG_SECONDS, LARGE_FILE = 0.25, 4 << 20
"""The same of a picture or a clip: how long it took, or how many bytes it had. An ordinary photo stays below both."""


class Served:
    """One pipeline, its queue and its health.

    It answers under the name in its manifest unless it is given another.

    A pipeline that fails on a request is tried on its warm-up input at once: that tells a picture the pipeline cannot
    take from an engine that is broken. A broken one refuses requests (503) and reports unready until a later try
    succeeds, see `service.bundles.health`.

    Attributes:
        health: Whether it can answer, and what was proven.
        leases: Who is using it. It is closed when nobody does.

    Raises:
        CheckFailedError: It does not give a recorded answer.
    """

    def __init__(
        self, pipeline: Pipeline, limits: StreamLimits = NO_OTHERS, name: str | None = None, *, reprove: bool = False
    ) -> None:
        self.pipeline = pipeline
        self.name = pipeline.bundle.manifest.name if name is None else _checked(name)
        self.version = pipeline.bundle.manifest.version
        self.watch = Watch()
        self.streams = Streams(pipeline.lines, limits) if pipeline.has_steps else None
        self.leases = Leases()
        self.queue = BatchingQueue(self._answer, tidy=release_memory, lanes=_lanes(pipeline))
        self.health = Health(pipeline, self.name, lambda: self.leases.count > 0, reprove=reprove)

    @property
    def failure(self) -> str | None:
        """Why it cannot answer; None where it can."""
        return self.health.failure

    def ready(self) -> bool:
        """Whether the pipeline answers. This reads a state; a broken pipeline is tried again in the background."""
        return self.health.failure is None

    def may_stack(self, model: str | None) -> bool:
        """Whether the rows of several requests may run in one call.

        Args:
            model: One of the pipeline's engines; None stands for the pipeline, which asks all of them. A graph without
                a batch axis stands in nobody's way, because it is never stacked.
        """
        stackable = self.health.door.stackable
        models = stackable if model is None else (model,)
        return all(stackable[name] or batch_axes(self.pipeline.engines[name].spec) is None for name in models)

    def holds(self, stream: str) -> bool:
        """Whether a stream of this name is open on it."""
        return self.streams is not None and stream in self.streams

    @property
    def accepts(self) -> tuple[str, ...]:
        """The media types of a body that is not wrapped in a form or in JSON of its own."""
        match self.pipeline.modality:
            case "text":
                return ("application/json",)
            case "arrays":
                return ("application/json", "application/x-npy")
            case modality:
                return raw_types(clips=modality == "clip")

    def decode(self, files: Sequence[bytes], settings: Settings) -> Source:
        """What the pipeline takes.

        Args:
            files: One image; for a pipeline that takes clips one video or image, or the frames of a clip.
            settings: The limits.

        Returns:
            The frames of a clip, a picture, or, where the task is only a graph, any .npy array or those of a .npz.

        Raises:
            MediaError: A file cannot be decoded.
            TooLargeError: It has more pixels than allowed, or takes longer to decode.
        """
        start = time.perf_counter()
        try:
            return self._decode(files, settings)
        finally:
            self.watch.decoded(time.perf_counter() - start)

    def _decode(self, files: Sequence[bytes], settings: Settings) -> Source:
        pipeline = self.pipeline
        if isinstance(pipeline, ClipPipeline):
            limits = VideoLimits(
                seconds=settings.video_seconds,
                pixels=min(settings.max_pixels, VideoLimits().pixels),
                bytes=settings.max_bytes,
            )
            source = files[0] if len(files) == 1 else files
            return pipeline.read(source, limits=limits, max_pixels=settings.max_pixels)
        (data,) = files
        if isinstance(pipeline, PicturePipeline):
            return pipeline.open_picture(data, max_pixels=settings.max_pixels)
        try:
            return load_npz(data, most=settings.max_bytes) if data.startswith(b"PK") else load_npy(data)
        except ValueError as error:
            raise MediaError(f"{error}; this bundle takes arrays as .npy or .npz") from error

    def predict(self, source: Any, options: Mapping[str, Any]) -> Any:
        """The pipeline's answer for one image or clip; see `ask`.

        Args:
            source: What ``decode`` gave.
            options: The pipeline's own options.
        """
        return self.ask(Call(source, options=options))

    def ask(self, call: Call) -> Any:
        """Answers a call and waits for it.

        Raises:
            InputError: It does not suit the pipeline or the graph.
            Problem: 503, the engine is broken, or too many wait.
        """
        self.require()
        call.visit = CURRENT.get()
        return self.queue.ask(call)

    def submit(self, call: Call) -> None:
        """Puts a call into the queue.

        Raises:
            Problem: As `ask`.
        """
        self.require()
        call.visit = CURRENT.get()
        self.queue.submit(call)

    def mark(self, sent: int, seconds: float, *, graph: bool = False) -> None:
        """Has memory given back soon, where a request may have taken much of it.

        Args:
            sent: Bytes of its body.
            seconds: How long it took.
            graph: It asked a graph, not the pipeline.
        """
        arrays = graph or isinstance(self.pipeline, ArrayPipeline)
        if sent >= LARGE if arrays else sent > LARGE_FILE or seconds > LONG_SECONDS:
            self.queue.mark()

    def require(self) -> None:
        """Refuses where the pipeline is known to be broken.

        Raises:
            Problem: 503.
        """
        if not self.ready():
            raise self.health.problem()

    def guarded(self, work: Callable[[], Answer]) -> Answer:
        """Does a request's work; where it fails, the pipeline is tried on its warm-up input.

        Raises:
            InputError: The request does not suit the pipeline.
            Problem: 503, the engine is broken.
        """
        try:
            return work()
        except InputError:
            raise
        except Exception as error:
            self.health.warm_up()
            if self.failure is not None:
                raise self.health.problem() from error
            raise

    def close_if_idle(self) -> bool:
        """Closes it if no request is under way and no stream is open; gives whether it is closed."""
        if (self.streams is not None and len(self.streams)) or not self.leases.close_if_idle():
            return False
        self.close()
        return True

    def close(self) -> None:
        """Answers what was taken, then lets the sessions go. A second call does nothing."""
        self.queue.close()
        self.health.close()
        self.pipeline.close()

    def _answer(self, calls: Sequence[Call]) -> None:
        """Sets the outcome or the error of each call: those that may run together do."""
        groups: dict[Any, list[Call]] = {}
        for call in calls:
            self.watch.waited(call.taken - call.asked)
            try:
                if call.prepare is not None:
                    call.source = call.prepare(call.source)
            except Exception as error:  # noqa: BLE001 - it goes to whoever asks
                call.error = error
            else:
                groups.setdefault((call.model, *sorted(call.options.items())), []).append(call)
        for group in groups.values():
            self._answer_group(group)
        for call in calls:
            call.ended = time.perf_counter()
            if call.error is None and call.render is not None:
                try:
                    call.outcome = call.render(call.outcome, call)
                except Exception as error:  # noqa: BLE001 - it goes to whoever asks
                    call.error = error

    def _answer_group(self, calls: Sequence[Call]) -> None:
        """The calls ask the same model, with the same options."""
        model, options = calls[0].model, calls[0].options
        start = time.perf_counter()
        if len(calls) > 1 and self.may_stack(model):
            sources = [call.source for call in calls]
            try:
                if model is None:
                    outcomes: Sequence[Any] = self.pipeline.batch(sources, **options)
                else:
                    outcomes = run_together(self.pipeline.engines[model], sources, partial(_share_run, calls))
            # One of them is at fault: each is asked alone, and the others never learn of it.
            except Exception:
                LOG.debug("a batch of %d was refused", len(calls), exc_info=True)
            else:
                for call, outcome in zip(calls, outcomes, strict=True):
                    call.outcome = outcome
                self._ran(len(calls), start)
                return
        for call in calls:
            call.run = None
            start = time.perf_counter()
            token = CURRENT.set(call.visit)
            try:
                call.outcome = self.guarded(partial(self._one, model, call))
            except Exception as error:  # noqa: BLE001 - it goes to whoever asks
                call.error = error
            finally:
                CURRENT.reset(token)
            self._ran(1, start)

    def _ran(self, together: int, start: float) -> None:
        self.watch.together(together)
        self.watch.ran(time.perf_counter() - start)

    def _one(self, model: str | None, call: Call) -> Any:
        if model is None:
            return self.pipeline.predict(call.source, **call.options)
        engine = self.pipeline.engines[model]
        numbers = count_outputs(engine.spec, engine.check(call.source, partial=True)[1])
        if numbers > MOST_NUMBERS:
            raise TooLargeError(f"the answer has {numbers:,} numbers; at most {MOST_NUMBERS:,} are given at once")
        return run_in_pieces(engine, call.source, apart=partial(self.may_stack, model))

    def describe(self, versions: Sequence[str] = ()) -> dict[str, Any]:
        """The bundle as ``GET /v1`` lists it, with the versions of its name, the highest first."""
        manifest = self.pipeline.bundle.manifest
        return {
            "name": self.name,
            "version": manifest.version,
            "task": manifest.task,
            "license": manifest.license,
            "description": manifest.description,
            "data": _data(manifest.provenance),
            "metrics": list(manifest.metrics),
            "url": f"/v1/{self.name}",
            "versions": [
                {"version": version, "url": f"/v1/{self.name}/versions/{quote(version, safe='')}"}
                for version in versions or (self.version,)
            ],
            "streams": None if self.streams is None else f"/v1/{self.name}/streams",
            "drawings": f"/v1/{self.name}/drawings" if self.pipeline.can_draw else None,
            "example": f"/v1/{self.name}/example" if self.pipeline.has_example else None,
            "ready": self.failure is None,
            "options": {name: kind.__name__ for name, kind in self.pipeline.options.items()},
            "accepts": self.accepts,
            "pipeline": dict(manifest.pipeline),
            "models": {
                name: {
                    "inputs": [asdict(tensor) for tensor in model.inputs],
                    "outputs": [_without_finite(asdict(tensor)) for tensor in model.outputs],
                    "dimensions": {name: asdict(size_range(model, name)) for name in input_dimensions(model)},
                    "state": [asdict(carried) for carried in model.state],
                }
                | _engine(self.pipeline, name, tuple(model.variants))
                for name, model in manifest.models.items()
            },
        }


def _share_run(calls: Sequence[Call], places: Sequence[int]) -> None:
    """Notes that one run answered several calls."""
    together = [calls[place] for place in places]
    for call in together:
        call.run = 0
    together[0].run = sum(len(next(iter(call.source.values()))) for call in together)


def _checked(name: str) -> str:
    """A name that may stand in a route.

    Raises:
        InputError: it may not.
    """
    try:
        return flat_name(name)
    except BundleError:
        raise InputError(
            f"{name!r} is no name for a bundle in a route; it is made of letters, digits, '.', '_', '+' and '-'"
        ) from None


def _lanes(pipeline: Pipeline) -> int:
    """How many runs of a bundle use all cores."""
    threads = [engine.threads for engine in pipeline.engines.values()]
    return max(1, default_threads() // max(threads)) if threads else 1


def _data(provenance: Mapping[str, Any]) -> str | None:
    """What a network was trained on, in words, as far as the manifest says."""
    data = provenance.get("data")
    if isinstance(data, Mapping):
        name, count = data.get("name"), data.get("n")
        return f"{name}, {count:,} samples" if isinstance(name, str) and isinstance(count, int) else None
    return data if isinstance(data, str) else None


def _without_finite(tensor: dict[str, Any]) -> dict[str, Any]:
    """An output as it is listed: what numbers are taken is said of inputs only."""
    return {key: value for key, value in tensor.items() if key != "finite"}


def _engine(pipeline: Pipeline, model: str, variants: tuple[str, ...]) -> dict[str, Any]:
    engine = pipeline.engines.get(model)
    if engine is None:
        return {}
    return {
        "device": engine.device,
        "provider": engine.provider,
        "threads": engine.threads,
        # A variant that only some models have leaves the others as they are.
        "variant": pipeline.variant if pipeline.variant in variants else "fp32",
    }
