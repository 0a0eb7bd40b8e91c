"""Captions: the frames of a clip that the bundle asks for -> one graph with the whole search inside -> sentences."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError
from runtime.example import first_inputs
from runtime.media.clip import Frames
from runtime.media.frames import MAX_CLIP_BYTES, FrameSampling, check_clip_size
from runtime.media.pictures import encode_jpeg
from runtime.occlusion import Probe
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import ClipPipeline, Source
from runtime.pipelines.results import CAPTION
from runtime.vocabulary import Vocabulary

MODEL = "caption"
INPUTS, OUTPUTS = {"clips", "counts"}, {"tokens", "lengths", "scores"}

FRAMES_AT_ONCE = 32
"""Frames in one run of the graph: as many clips as give that many, or a single one. With `MAX_CLIP_BYTES`, which all
pixels of a run stay below, it bounds the memory: EfficientNet-Lite0 takes 10 MB for a frame of any size."""

THUMBNAIL_HEIGHT = 160


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """What the bundle fixes outside its graph, from the manifest's `pipeline`.

    Attributes:
        frames: which frames of a clip the graph gets.
        shorter: a frame whose shorter side has more pixels is reduced by a whole factor before it is kept; twice what
            the network looks at loses nothing that its own resizing would keep.
    """

    frames: FrameSampling = field(default_factory=lambda: FrameSampling.even(8))
    shorter: int = 448

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaptionSettings:
        """Reads {"frames": {"kind": "even", "n": 8}, "shorter": 448}.

        Raises:
            BundleError: a key is missing or unknown, or a value does not fit.
        """
        if set(data) != {"frames", "shorter"}:
            raise BundleError(
                f"the pipeline settings of this caption bundle are {', '.join(sorted(map(str, data))) or 'empty'}; "
                "a caption bundle has frames, shorter"
            )
        shorter = data["shorter"]
        if type(shorter) is not int or not 1 <= shorter <= 4096:
            raise BundleError(f"the pipeline setting shorter is {shorter!r}, expected a number of pixels, 1 to 4096")
        return cls(FrameSampling.from_json(data["frames"]), shorter)

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads."""
        return {"frames": self.frames.to_json(), "shorter": self.shorter}


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence; the score is its log-probability over its length (with the bundle's length penalty), at most 0."""

    text: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """The sentence and its score to four digits."""
        return {"caption": self.text, "score": round(self.score, 4)}


class CaptionPipeline(ClipPipeline):
    """A clip in, sentences out; see `runtime.pipelines.base.Pipeline`."""

    options = {"thumbnails": bool}  # noqa: RUF012 - nobody changes it
    result = CAPTION
    models = (MODEL,)

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        self.settings = CaptionSettings.from_json(bundle.manifest.pipeline)
        if "vocabulary" not in bundle.manifest.files:
            raise BundleError(f"{bundle.path}: a caption bundle has a file called vocabulary, this one has none")
        self.vocabulary = Vocabulary.from_bytes(bundle.read(bundle.manifest.files["vocabulary"].file))
        self.sampling, self.shorter = self.settings.frames, self.settings.shorter
        super().__init__(bundle, device=device, threads=threads, variant=variant)
        spec = self.engines[MODEL].spec
        inputs, outputs = {tensor.name for tensor in spec.inputs}, {tensor.name for tensor in spec.outputs}
        if inputs != INPUTS or not outputs >= OUTPUTS:
            self.close()
            raise BundleError(
                f"{bundle.path}: the caption graph takes {', '.join(sorted(inputs))} and gives "
                f"{', '.join(sorted(outputs))}; expected {', '.join(sorted(INPUTS))} and {', '.join(sorted(OUTPUTS))}"
            )

    def example(self) -> NDArray[np.uint8] | None:
        """The first clip that the network was recorded on."""
        inputs = first_inputs(self.bundle, MODEL)
        return None if inputs is None else inputs["clips"][0, : inputs["counts"][0]]

    def captions(self, clips: Sequence[NDArray[np.uint8]]) -> list[tuple[Caption, ...]]:
        """The network alone: clips (T, H, W, 3), uint8 RGB, of any lengths and sizes -> their captions, the best first.

        Clips of one frame size and of like length (at most twice as long) run together, at most `FRAMES_AT_ONCE` frames
        and `MAX_CLIP_BYTES` at a time; a shorter clip is filled up with its last frame, which does not count. An answer
        depends on its own clip alone.

        Raises:
            InputError: an array is no clip.
            TooLargeError: a clip has more than `MAX_CLIP_BYTES`.
        """
        for index, clip in enumerate(clips):
            if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
                raise InputError(
                    f"clip {index}: expected uint8 (T, H, W, 3) with at least one frame, got {clip.dtype} {clip.shape}"
                )
            check_clip_size(clip.shape[1:], len(clip))
        longest: dict[tuple[int, ...], int] = {}
        kinds = [(*clip.shape[1:3], (len(clip) - 1).bit_length()) for clip in clips]
        for kind, clip in zip(kinds, clips, strict=True):
            longest[kind] = max(len(clip), longest.get(kind, 0))
        items: list[Mapping[str, NDArray[Any]]] = [
            {"clips": _filled(clip, longest[kind])[None], "counts": np.array([len(clip)], np.int64)}
            for kind, clip in zip(kinds, clips, strict=True)
        ]
        found = self.engines[MODEL].batch(items, limit=_rows_at_once)
        return [self._sentences(one["tokens"][0], one["lengths"][0], one["scores"][0]) for one in found]

    def predict(self, source: Source, *, thumbnails: bool = False, **options: Any) -> Answer:
        """Answers one clip with its caption.

        Args:
            source: what `read` takes.
            thumbnails: adds to each frame a small JPEG of it, as a data URL.
            **options: none; they are named in the error.

        Returns:
            {"caption", "score", "frames": [{"index", "seconds"}], "alternatives": [{"caption", "score"}]}, and "note"
            where something about the clip should be known. "seconds" is null where the source has no times.

        Raises:
            InputError: the source cannot be read, or an option is unknown.
        """
        return self.batch([source], thumbnails=thumbnails, **options)[0]

    def batch(self, sources: Sequence[Source], *, thumbnails: bool = False, **options: Any) -> list[Answer]:
        """Answers several clips; those that are alike go through the network together. See `predict`."""
        self.refuse(options)
        clips = [self.read(source) for source in sources]
        captions = self.captions([frames.pixels for frames in clips])
        return [_answer(frames, found, thumbnails) for frames, found in zip(clips, captions, strict=True)]

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The frames that were used, on one sheet with the caption below."""
        from runtime.drawing import draw_clip

        frames = self.read(source)
        return draw_clip(frames.pixels, frames.seconds, str(result["caption"]))

    def probe(self, source: Source) -> Probe:
        """A photo, and the score of the best caption of it, whichever it is: see `runtime.occlusion`.

        Raises:
            InputError: the source cannot be read, or has several frames.
        """
        frames = self.read(source)
        if len(frames.pixels) != 1:
            raise InputError(f"parts are hidden of one picture, and this clip has {len(frames.pixels)} frames")

        def scores(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
            return np.array([found[0].score for found in self.captions([picture[None] for picture in pictures])])

        return Probe(frames.pixels[0], scores, "score of the best caption", "nat per word")

    def _sentences(
        self, tokens: NDArray[np.int64], lengths: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> tuple[Caption, ...]:
        """The captions of one clip, from tokens (K, L), lengths (K,) and scores (K,)."""
        try:
            return tuple(
                Caption(self.vocabulary.decode(tokens[k, : lengths[k]]), float(scores[k]))
                for k in range(len(tokens))
                if k == 0 or scores[k] > -np.inf  # where fewer sentences exist than hypotheses, the rest are none
            )
        except InputError as error:  # the sender is not to blame
            raise BundleError(f"{self.bundle.path}: {error}") from error


def _answer(frames: Frames, captions: Sequence[Caption], thumbnails: bool) -> Answer:
    best, *others = captions
    documents: list[dict[str, Any]] = [
        {"index": index, "seconds": seconds} for index, seconds in zip(frames.indices, frames.seconds, strict=True)
    ]
    if thumbnails:
        for document, pixels in zip(documents, frames.pixels, strict=True):
            document["thumbnail"] = _thumbnail(pixels)
    answer = Answer(best.to_json() | {"frames": documents, "alternatives": [other.to_json() for other in others]})
    return answer if frames.note is None else Answer(answer | {"note": frames.note})


def _filled(clip: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """A clip with its last frame repeated until it has that length."""
    return clip if len(clip) == length else clip[np.minimum(np.arange(length), len(clip) - 1)]


def _rows_at_once(item: Mapping[str, NDArray[Any]]) -> int:
    """How many clips like this one run together."""
    frames: int = item["clips"].shape[1]
    return min(FRAMES_AT_ONCE // frames, MAX_CLIP_BYTES // item["clips"].nbytes)


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    from runtime.drawing import fitted

    small = fitted(pixels, 2 * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, quality=80)).decode("ascii")
