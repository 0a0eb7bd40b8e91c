"""Age prediction after DEX: find the faces, crop each with its margin, and let the graph answer in years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError
from runtime.example import first_inputs
from runtime.faces import Crop, Detection, Pixels, crop_from_json, cut, framed, halved, overlap, shrunk
from runtime.media.pictures import Picture
from runtime.occlusion import Probe
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import PicturePipeline, Source, picture_of
from runtime.pipelines.results import FACES

SAME_FACE = 0.3
"""Overlap (IoU) from which the second look is taken to have found the face of the first."""

LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class AgeSettings:
    """What the bundle fixes outside its graphs, from the manifest's `pipeline`.

    Attributes:
        years: (K,) the classes of the distribution.
        crop: how a face is cut out.
        look_again: the detector looks once more at each face, in a square of this times the box: the keypoints of a
            small face in a big photo are only as fine as the detector's 192 pixels. 0 leaves it at the first look.
        frame: a photo in which no face is found is looked at once more inside a frame of this share of its sides,
            because the detector misses faces that fill the picture. 0 does not.
        overview: a photo is halved, 2×2 pixels to their mean, as often as its longest side stays at least this before
            the detector looks at the whole of it: ten pixels to one inside the graph cost ten times as much. 0 leaves
            it to the graph.
        close_up: side in pixels that the second look's square is shrunk to, where the bundle has the model
            ``closeup``. 0 leaves it to the graph.
        close_enough: a face whose box takes this share of the longest side of what the detector looked at is not
            looked at again: the second look would show it no larger. 0 looks at every face again.
    """

    years: tuple[float, ...]
    crop: Crop
    look_again: float = 2.5
    frame: float = 0.5
    overview: int = 0
    close_up: int = 0
    close_enough: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AgeSettings:
        """Reads the manifest's `pipeline`.

        Raises:
            BundleError: a key is missing, unknown or of the wrong type.
        """
        fields = dict(data)
        try:
            settings = cls(
                years=tuple(float(y) for y in fields.pop("years")),
                crop=crop_from_json(fields.pop("crop")),
                look_again=float(fields.pop("look_again", 0)),
                frame=float(fields.pop("frame", 0)),
                overview=int(fields.pop("overview", 0)),
                close_up=int(fields.pop("close_up", 0)),
                close_enough=float(fields.pop("close_enough", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the pipeline settings of this age bundle cannot be read: {error!r}") from error
        if fields:
            raise BundleError(
                f"unknown pipeline settings {', '.join(sorted(fields))}; "
                "an age bundle has years, crop, look_again, frame, overview, close_up, close_enough"
            )
        return settings


@dataclass(frozen=True, slots=True)
class Face:
    """One face and its age.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the photo, the right way up; the part of the face that lies in it.
        score: 0..1, how sure the detector is.
        age: expectation, in years.
        low: a tenth of the distribution lies below; the age itself where that is lower.
        high: a tenth of the distribution lies above; the age itself where that is higher.
        keypoints: (6, 2) right eye, left eye, nose tip, mouth, right ear, left ear, in pixels of the photo; those of a
            face at its border may lie outside.
        probabilities: (K,) over the bundle's years.
    """

    box: tuple[float, float, float, float]
    score: float
    age: float
    low: float
    high: float
    keypoints: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def to_json(self, *, distribution: bool = False) -> dict[str, Any]:
        """The face as in DESIGN §4; boxes and ages to the hundredth, which is finer than either is known."""
        document: dict[str, Any] = {
            "box": [round(v, 2) for v in self.box],
            "score": round(self.score, 4),
            "age": round(self.age, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "keypoints": np.round(self.keypoints.astype(np.float64), 2).tolist(),
        }
        if distribution:
            document["probabilities"] = np.round(self.probabilities.astype(np.float64), 6).tolist()
        return document


class AgePipeline(PicturePipeline):
    """A photo in, its faces with their ages out; see `runtime.pipelines.base.Pipeline`."""

    options = {"distribution": bool}  # noqa: RUF012 - nobody changes it
    result = FACES
    models = ("faces", "age")

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        self.settings = AgeSettings.from_json(bundle.manifest.pipeline)
        super().__init__(bundle, device=device, threads=threads, variant=variant)
        # The same detector for a smaller picture; bundles made before there was one look again with the large one.
        self._closeup = "closeup" if "closeup" in self.engines and self.settings.close_up > 0 else None

    def example(self) -> NDArray[np.uint8] | None:
        """The first photo that the detector was recorded on."""
        inputs = first_inputs(self.bundle, self.first_model)
        return None if inputs is None else next(iter(inputs.values()))

    def faces(self, source: Source) -> list[Face]:
        """Finds every face of a photo and its age, the surest first; no face gives an empty list, not a guess.

        Args:
            source: what `runtime.media.pictures.read_picture` takes.

        Raises:
            InputError: not an image, or too large.
        """
        return self._faces([picture_of(source)])[0]

    def predict(self, source: Source, *, distribution: bool = False, **options: Any) -> Answer:
        """Answers with {"faces": [...]}, see `Face.to_json`; `distribution` adds the probabilities.

        "note" is there where something about the photo should be known, e.g. that its file has no end.
        """
        return self.batch([source], distribution=distribution, **options)[0]

    def batch(self, sources: Sequence[Source], *, distribution: bool = False, **options: Any) -> list[Answer]:
        """Answers several photos; the faces of all of them go through the network together. See `predict`."""
        self.refuse(options)
        pictures = [picture_of(source) for source in sources]
        return [
            Answer(
                {"faces": [face.to_json(distribution=distribution) for face in faces]}
                | ({} if picture.note is None else {"note": picture.note})
            )
            for picture, faces in zip(pictures, self._faces(pictures), strict=True)
        ]

    def find(self, image: Pixels) -> list[Detection]:
        """Finds the faces of uint8 RGB pixels (H, W, 3), the surest first, in pixels of the image."""
        overview, factor = self._overview(image)
        seen = overview
        first = self._detect(overview)
        if not first and self.settings.frame > 0:
            seen, across, down = framed(overview, self.settings.frame)
            height, width = overview.shape[:2]
            first = [
                face
                for face in (_moved(face, -across, -down) for face in self._detect(seen))
                if _inside((face.box[:2] + face.box[2:]) / 2, width, height)
            ]
        close = self.settings.close_enough * max(seen.shape[:2])
        return [
            _moved(face, 0, 0, factor)
            if self.settings.look_again <= 0 or (0 < close <= _side(face))
            else self._look_again(image, _moved(face, 0, 0, factor))
            for face in first
        ]

    def ages(self, crops: Sequence[Pixels]) -> list[dict[str, Any]]:
        """The network alone: crops (H, W, 3) of any sizes -> age, low, high in years, and probabilities, in order."""
        answers = self.engines["age"].batch([{"face": crop[None]} for crop in crops], limit=LARGEST_BATCH)
        return [{name: values[0] for name, values in answer.items()} for answer in answers]

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The photo, as it was read, with each face's box and age drawn into it."""
        from runtime.drawing import draw_faces

        picture = picture_of(source)
        return draw_faces(picture.pixels, result["faces"], scale=picture.scale)

    def probe(self, source: Source) -> Probe:
        """The surest face of a photo as the network gets it, and its age: see `runtime.occlusion`.

        Raises:
            InputError: not an image, or no face is found in it.
        """
        image = picture_of(source).pixels
        found = self.find(image)
        if not found:
            raise InputError("no face was found in this photo, so there is no age to watch")

        def ages(crops: Pixels) -> NDArray[np.float64]:
            return np.array([float(answer["age"]) for answer in self.ages(list(crops))])

        return Probe(self.settings.crop(image, found[0]), ages, "age", "year")

    def _faces(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """The faces of each picture."""
        found = [self.find(picture.pixels) for picture in pictures]
        crops = [
            self.settings.crop(picture.pixels, face)
            for picture, faces in zip(pictures, found, strict=True)
            for face in faces
        ]
        answers = iter(self.ages(crops))
        return [
            [_face(picture, face, next(answers)) for face in faces]
            for picture, faces in zip(pictures, found, strict=True)
        ]

    def _overview(self, image: Pixels) -> tuple[Pixels, int]:
        """The photo with fewer pixels for the first look, and the factor to its own ones."""
        if self.settings.overview <= 0:
            return image, 1
        return halved(image, max(image.shape[:2]) / self.settings.overview)

    def _detect(self, image: Pixels, model: str = "faces") -> list[Detection]:
        found = self.engines[model].run({"image": np.ascontiguousarray(image)})
        return [
            Detection(box, float(score), keypoints)
            for box, score, keypoints in zip(found["boxes"], found["scores"], found["keypoints"], strict=True)
        ]

    def _look_again(self, image: Pixels, face: Detection) -> Detection:
        """The same face, measured in a close-up; as it was if the close-up does not show it."""
        # Of a strip the square would be border for the most part, and of a long one too large for the memory.
        if _side(face) > 2 * min(image.shape[:2]):
            return face
        middle = (face.box[:2] + face.box[2:]) / 2
        half = self.settings.look_again * _side(face) / 2
        left, top = (int(v) for v in np.floor(middle - half))
        right, bottom = (int(v) for v in np.ceil(middle + half))
        side = max(right - left, bottom - top)  # a square but for the rounding
        picture = cut(image, left, top, left + side, top + side)
        if self._closeup is None:
            found = self._detect(picture)
        else:
            shown = shrunk(picture, self.settings.close_up)
            zoom = picture.shape[0] / shown.shape[0]
            found = [_moved(f, 0, 0, zoom) for f in self._detect(shown, self._closeup)]
        close = [_moved(f, left, top) for f in found]
        if not close:
            return face
        overlaps = overlap(face.box, np.stack([f.box for f in close]))
        best = int(overlaps.argmax())
        if overlaps[best] < SAME_FACE:
            return face
        return Detection(close[best].box, face.score, close[best].keypoints)


def _face(picture: Picture, face: Detection, answer: Mapping[str, Any]) -> Face:
    """A face in pixels of the photo itself; the box is cut off at the photo's border."""
    x1, y1, x2, y2 = (float(v) * picture.scale for v in face.box)
    width, height, age = picture.width, picture.height, float(answer["age"])
    return Face(
        box=(min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)),
        score=face.score,
        age=age,
        # The mean of a distribution with a long tail lies outside of the central part of it.
        low=min(float(answer["low"]), age),
        high=max(float(answer["high"]), age),
        keypoints=np.asarray(face.keypoints, dtype=np.float32) * picture.scale,
        probabilities=answer["probabilities"],
    )


def _side(face: Detection) -> float:
    return float((face.box[2:] - face.box[:2]).max())


def _moved(face: Detection, x: int, y: int, scale: float = 1) -> Detection:
    """Scaled about the first pixel's corner, then shifted."""
    shift = np.array([x, y], dtype=np.float32)
    factor = np.float32(scale)
    return Detection(face.box * factor + np.tile(shift, 2), face.score, face.keypoints * factor + shift)


def _inside(point: NDArray[Any], width: int, height: int) -> bool:
    return bool(0 <= point[0] < width and 0 <= point[1] < height)
