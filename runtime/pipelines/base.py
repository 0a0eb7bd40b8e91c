"""The contract of a pipeline: raw input in, answer out.

The command line, the service and its OpenAPI document ask nothing else. What goes in is a pipeline's modality; for each
modality there is a class here with the methods that only its kind of input needs:

    Pipeline
     ├─ PicturePipeline   one picture
     ├─ ClipPipeline      the frames of a photo, a video or a camera
     ├─ TextPipeline      text, which goes on
     └─ ArrayPipeline     arrays by name
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import BundleError, InputError
from runtime.manifest import TensorSpec
from runtime.media.clip import ClipSource, Frames
from runtime.media.pictures import MAX_PIXELS, Picture, PictureSource, read_picture
from runtime.memory import give_back
from runtime.pipelines.answer import Answer, page_of, shortened
from runtime.pipelines.results import Schema

if TYPE_CHECKING:
    from runtime.lines import LineStream
    from runtime.media.frames import FrameSampling, VideoLimits
    from runtime.occlusion import Probe

Modality = Literal["picture", "clip", "text", "arrays"]
Source = PictureSource | ClipSource | Picture | Frames | Mapping[str, NDArray[Any]]
"""All that any pipeline takes. A pipeline refuses what is of another modality."""

Options = Mapping[str, type[bool] | type[int] | type[float]]


class Pipeline(ABC):
    """A bundle opened for use: raw input in, answer out. Safe to use from several threads.

    Args:
        bundle: an opened bundle.
        device: "cpu", "gpu", "auto" or another device that ONNX Runtime offers; strict, never a silent fallback.
        threads: of one model's run; None takes what affinity and the container's quota allow.
        variant: "fp32", "int8" …; None takes float32.

    Attributes:
        modality: What goes in.
        options: What `predict` takes by keyword, with its types.
        result: The answer as JSON Schema, with a title.
        models: The models that the task needs.
        later: Models that few inputs need; on the CPU each is opened when the first of them does.
        composed: Models that hold what the pipeline does itself, for hosts without Python; it does not open them.
        bundle: The bundle.
        variant: As given.
        engines: One for each model of the bundle that is not composed.

    Raises:
        BundleError: the bundle is damaged, or not one of this task.
        DeviceError: the device cannot be had.
    """

    modality: ClassVar[Modality]
    options: ClassVar[Options] = {}
    result: ClassVar[Schema]
    models: ClassVar[tuple[str, ...]] = ()
    later: ClassVar[tuple[str, ...]] = ()
    composed: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        self.bundle = bundle
        self.variant = variant
        self.engines: dict[str, Engine] = _open_engines(bundle, device, threads, variant, type(self))
        give_back()  # what reading and optimising the graphs took

    @classmethod
    def open(
        cls,
        path: str | PathLike[str] | Bundle,
        *,
        device: str = "cpu",
        threads: int | None = None,
        variant: str | None = None,
    ) -> Self:
        """Opens a bundle of this very task; `runtime.pipelines.load` finds the task out.

        Args:
            path: a bundle's folder or file, or an opened `Bundle`.
            device: see the class, as for the rest.
            threads: see the class.
            variant: see the class.
        """
        # Each file is compared with its hash when it is read; recorded answers, which are not read, need not delay it.
        bundle = path if isinstance(path, Bundle) else Bundle.open(path, check=False)
        return cls(bundle, device=device, threads=threads, variant=variant)

    @abstractmethod
    def predict(self, source: Source, **options: Any) -> Answer:
        """Answers one input.

        Args:
            source: of the pipeline's modality.
            **options: those of `options`.

        Raises:
            InputError: the input cannot be read or does not fit, or there is no such option.
        """

    def batch(self, sources: Sequence[Source], **options: Any) -> list[Answer]:
        """Answers several inputs, in their order.

        Raises:
            InputError: as `predict` does.
        """
        return [self.predict(source, **options) for source in sources]

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The input with its answer drawn into it: uint8 RGB (H, W, 3).

        Raises:
            InputError: the answer has no picture.
        """
        raise InputError(f"the task {self.task!r} answers with {self.modality}; there is no picture to save")

    def probe(self, source: Source) -> Probe:
        """A picture, and the number to watch while parts of it are hidden; see `runtime.occlusion`.

        Raises:
            InputError: the bundle gives no number for a picture.
        """
        raise InputError(f"a bundle of the task {self.task!r} gives no number for a picture")

    def lines(self) -> LineStream:
        """Answers lines of text, a step each, with the state carried from line to line.

        Raises:
            InputError: the bundle has no steps.
        """
        raise InputError(f"a bundle of the task {self.task!r} has no steps to stream")

    @property
    def has_steps(self) -> bool:
        """Whether `lines` answers step by step."""
        return False

    @property
    def can_draw(self) -> bool:
        """Whether the bundle draws what it reads, when it is asked for ``digit:7``."""
        return False

    @property
    def first_model(self) -> str:
        """The model that takes the raw input."""
        return self.models[0] if self.models else next(iter(self.bundle.manifest.models))

    @property
    def has_example(self) -> bool:
        """Whether the bundle has recorded inputs, of which one can be its example."""
        return self.bundle.manifest.models[self.first_model].golden is not None

    @property
    def task(self) -> str:
        """The task in the manifest."""
        return self.bundle.manifest.task

    def refuse(self, options: Mapping[str, Any]) -> None:
        """Refuses options that `predict` does not have.

        Raises:
            InputError: there is one.
        """
        if options:
            has = f"; it has {', '.join(self.options)}" if self.options else ""
            raise InputError(f"the task {self.task!r} has no option {', '.join(options)}{has}")

    def close(self) -> None:
        """Gives the sessions back."""
        for engine in self.engines.values():
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        manifest = self.bundle.manifest
        devices = ", ".join(dict.fromkeys(engine.device for engine in self.engines.values()))
        return (
            f"{type(self).__name__}({manifest.name!r} {manifest.version}, task {manifest.task!r}, takes {self.modality}"
            f"{f', on {devices}' if devices else ''})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        manifest = self.bundle.manifest
        facts: dict[str, Any] = {
            "bundle": f"{manifest.name} {manifest.version}",
            "task": manifest.task,
            "description": manifest.description,
            "takes": self.modality,
            "options": ", ".join(f"{name}: {kind.__name__}" for name, kind in self.options.items()),
        }
        for name, engine in self.engines.items():
            inputs, outputs = _signature(engine.spec.inputs), _signature(engine.spec.outputs)
            facts[name] = f"{inputs} → {outputs}, on {engine.device}"
        return page_of({name: fact for name, fact in facts.items() if fact})


class PicturePipeline(Pipeline):
    """One picture in.

    Attributes:
        longest: A JPEG may be read at a fraction of its size at which its longest side has this many pixels; 0 reads
            it whole.
    """

    modality = "picture"
    longest: int = 0

    def open_picture(self, source: Source, *, max_pixels: int = MAX_PIXELS) -> Source:
        """Reads a picture once, for `predict` and `draw`; one that was read before stays as it is.

        Raises:
            InputError: not an image, or too large.
        """
        return picture_of(source, longest=self.longest, max_pixels=max_pixels)

    def example(self) -> NDArray[np.uint8] | None:
        """A recorded picture, uint8 RGB (H, W, 3); None where there is none."""
        return None


class ClipPipeline(Pipeline):
    """The frames of a clip in.

    Attributes:
        sampling: Which frames are taken.
        shorter: A frame whose shorter side has more pixels is reduced, see `runtime.media.clips.read_frames`.
    """

    modality = "clip"
    sampling: FrameSampling
    shorter: int | None = None

    def read(
        self,
        source: Source,
        *,
        limits: VideoLimits | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Frames:
        """The frames that the graph gets; frames that were read before stay as they are.

        Args:
            source: what `runtime.media.clips.read_frames` takes.
            limits: what a video may cost; None takes the defaults.
            max_pixels: of one picture, width times height.

        Raises:
            InputError: as `runtime.media.clips.read_frames` does.
        """
        if isinstance(source, Frames):
            return source
        if isinstance(source, Mapping):
            raise InputError(f"arrays by name ({shortened(list(source))}); a clip is a video, pictures or one array")
        from runtime.media.clips import read_frames  # here, because it brings all readers of videos
        from runtime.media.frames import VideoLimits

        limits = limits or VideoLimits()
        return read_frames(source, self.sampling, shorter=self.shorter, limits=limits, max_pixels=max_pixels)

    def example(self) -> NDArray[np.uint8] | None:
        """The frames of a recorded clip, uint8 RGB (T, H, W, 3); None where there is none."""
        return None


class TextPipeline(Pipeline):
    """Text in, which goes on."""

    modality = "text"

    @abstractmethod
    def read(self, source: Source) -> str:
        """The text of a file or of bytes.

        Raises:
            InputError: it cannot be read, or is no text.
        """

    @abstractmethod
    def generate(self, prompt: str = "", **options: Any) -> Iterator[str]:
        """Goes on with a text, a character at a time.

        Raises:
            InputError: an option is out of range, at once and not at the first character.
        """

    @abstractmethod
    def report(self, prompt: str, **options: Any) -> dict[str, Any]:
        """What is to be said of a text beside the text."""

    def example(self) -> str | None:
        """The beginning of a recorded text; None where there is none."""
        return None


class ArrayPipeline(Pipeline):
    """Arrays in, by name."""

    modality = "arrays"

    @property
    @abstractmethod
    def array_inputs(self) -> tuple[TensorSpec, ...]:
        """The arrays that it takes."""

    def example(self) -> Mapping[str, NDArray[Any]] | None:
        """Recorded arrays by name, without the carried state; None where there are none."""
        from runtime.example import longest_row

        return longest_row(self.bundle, self.first_model)


def picture_of(source: Source, *, longest: int = 0, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads one picture, see `runtime.media.pictures.read_picture`.

    Raises:
        InputError: not an image, too large, or several.
    """
    if isinstance(source, Frames | Mapping):
        raise InputError(f"a picture is expected, got {type(source).__name__}")
    if isinstance(source, Sequence) and not isinstance(source, str | bytes | bytearray | memoryview):
        raise InputError(f"{len(source)} pictures; `predict` takes one, `batch` takes several")
    return read_picture(source, longest=longest, max_pixels=max_pixels)


def _open_engines(
    bundle: Bundle,
    device: str,
    threads: int | None,
    variant: str | None,
    kind: type[Pipeline],
) -> dict[str, Engine]:
    """One engine per model of the bundle, but for those that hold what the pipeline does itself.

    Raises:
        BundleError: a model that the task needs is missing, or the variant is.
    """
    models = bundle.manifest.models
    missing = [name for name in kind.models if name not in models]
    if missing:
        raise BundleError(
            f"{bundle.path}: task {bundle.manifest.task!r} needs the models {', '.join(kind.models)}; "
            f"{', '.join(missing)} is missing, the bundle holds {', '.join(models) or 'none'}"
        )
    if variant is not None and not any(variant in spec.variants for spec in models.values()):
        found = sorted({name for spec in models.values() for name in spec.variants})
        raise BundleError(f"{bundle.path} has no variant {variant!r}; it has {', '.join(found)}")
    # A variant that only some models have (an int8 network beside a float32 detector) leaves the others as they are.
    return {
        name: Engine(
            bundle.graph(name, spec.form(variant)),
            spec=spec,
            device=device,
            threads=threads,
            name=name,
            later=name in kind.later,
        )
        for name, spec in models.items()
        if name not in kind.composed
    }


def _signature(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]" for tensor in tensors)
