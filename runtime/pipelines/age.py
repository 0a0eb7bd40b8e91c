"""Age prediction after DEX: find the faces, crop each with its margin, and let the graph answer in years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.crowds import AS_THE_BUNDLE_SAYS
from runtime.detection import Finder, Looks
from runtime.errors import BundleError, InputError
from runtime.faces import Crop, Detection, Pixels, crop_from_json
from runtime.media.pictures import Picture
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import PicturePipeline, Source, picture_of
from runtime.pipelines.results import FACES

if TYPE_CHECKING:
    from runtime.intervals import Interval
    from runtime.occlusion import Probe

LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class AgeSettings:
    """What the bundle fixes outside its graphs, from the manifest's `pipeline`.

    Attributes:
        years: (K,) the classes of the distribution.
        crop: how a face is cut out.
        looks: how the faces of a photo are found; its keys stand beside the others in the manifest.
        interval: where a true age lies; None where the bundle was not calibrated.
    """

    years: tuple[float, ...]
    crop: Crop
    looks: Looks
    interval: Interval | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AgeSettings:
        """Reads the manifest's `pipeline`.

        Raises:
            BundleError: a key is missing, unknown or of the wrong type.
        """
        left = dict(data)
        interval = left.pop("interval", None)
        try:
            settings = cls(
                years=tuple(float(y) for y in left.pop("years")),
                crop=crop_from_json(left.pop("crop")),
                looks=Looks.taken_from(left),
                interval=None if interval is None else _interval(interval),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the pipeline settings of this age bundle cannot be read: {error!r}") from error
        if left:
            known = ", ".join(["years", "crop", "interval", *(field.name for field in fields(Looks))])
            raise BundleError(f"unknown pipeline settings {', '.join(sorted(left))}; an age bundle has {known}")
        return settings

    def interval_json(self) -> dict[str, Any]:
        """What an answer says of its intervals: the share that they promise, null if none, and the same in words."""
        if self.interval is None:
            from runtime.intervals import UNCALIBRATED

            return {"calibrated": False, "level": None, "note": UNCALIBRATED}
        return {"calibrated": True, "level": self.interval.level, "note": self.interval.told()}


@dataclass(frozen=True, slots=True)
class Face:
    """One face and its age.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the photo, the right way up; the part of the face that lies in it.
        score: 0..1, how sure the detector is.
        age: expectation, in years.
        low: lower end of the calibrated interval; of a bundle that was not calibrated, a tenth of the distribution lies
            below. The age itself where that is lower.
        high: upper end, in the same way.
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

    options = {"distribution": bool, "smallest": float, "turned": bool}  # noqa: RUF012 - nobody changes it
    result = FACES
    models = ("faces", "age")
    later = ("crowd",)
    composed = ("photo",)

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        self.settings = AgeSettings.from_json(bundle.manifest.pipeline)
        super().__init__(bundle, device=device, threads=threads, variant=variant)
        self.longest = self.settings.looks.read
        self.finder = Finder(self.engines, self.settings.looks)

    def example(self) -> NDArray[np.uint8] | None:
        """The first photo that the detector was recorded on."""
        from runtime.example import first_inputs

        inputs = first_inputs(self.bundle, self.first_model)
        return None if inputs is None else next(iter(inputs.values()))

    def faces(self, source: Source) -> list[Face]:
        """Finds every face of a photo and its age, the surest first; no face gives an empty list, not a guess.

        Args:
            source: what `runtime.media.pictures.read_picture` takes.

        Raises:
            InputError: not an image, or too large.
        """
        ((_, faces),) = self._faces([self._read(source)], AS_THE_BUNDLE_SAYS, turned=False)
        return faces

    def predict(
        self,
        source: Source,
        *,
        distribution: bool = False,
        smallest: float = AS_THE_BUNDLE_SAYS,
        turned: bool = False,
        **options: Any,
    ) -> Answer:
        """Answers with {"faces": [...], "interval": {...}}, see `Face.to_json` and `AgeSettings.interval_json`.

        "note" is there where something about the photo should be known, e.g. that its file has no end.

        Args:
            source: what `runtime.media.pictures.read_picture` takes.
            distribution: adds the probabilities.
            smallest: side of the smallest face to look for, as a share of the photo's longest side, see
                `runtime.detection.Finder.find`.
            turned: looks at the photo in all four positions, for those that lie on their side and do not say so. The
                answer then has "turned": the degrees by which to turn the photo to the right.
            **options: there are no others.

        Raises:
            InputError: not an image, too large, or an option is out of range.
        """
        return self.batch([source], distribution=distribution, smallest=smallest, turned=turned, **options)[0]

    def batch(
        self,
        sources: Sequence[Source],
        *,
        distribution: bool = False,
        smallest: float = AS_THE_BUNDLE_SAYS,
        turned: bool = False,
        **options: Any,
    ) -> list[Answer]:
        """Answers several photos; the faces of all of them go through the network together. See `predict`."""
        self.refuse(options)
        pictures = [self._read(source) for source in sources]
        return [
            Answer(
                {
                    "faces": [face.to_json(distribution=distribution) for face in faces],
                    "interval": self.settings.interval_json(),
                }
                | ({"turned": -90 * quarters % 360} if turned else {})
                | ({} if picture.note is None else {"note": picture.note})
            )
            for picture, (quarters, faces) in zip(pictures, self._faces(pictures, smallest, turned=turned), strict=True)
        ]

    def find(self, image: Pixels, smallest: float = AS_THE_BUNDLE_SAYS, scale: int = 1) -> list[Detection]:
        """Finds the faces of uint8 RGB pixels (H, W, 3): see `runtime.detection.Finder.find`."""
        return self.finder.find(image, smallest, scale)

    def ages(self, crops: Sequence[Pixels]) -> list[dict[str, Any]]:
        """The network alone: crops (H, W, 3) of any sizes -> age, low, high in years, and probabilities, in order.

        Where the bundle is calibrated, low and high are the ends of its interval, else those that the network gives.
        """
        answers = self.engines["age"].batch([{"face": crop[None]} for crop in crops], limit=LARGEST_BATCH)
        return [self._with_ends({name: values[0] for name, values in answer.items()}) for answer in answers]

    def _with_ends(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self.settings.interval is None:
            return answer
        low, high = self.settings.interval.ends(answer["age"])
        return answer | {"low": low, "high": high}

    def draw(self, source: Source, result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The photo, as it was read, with each face's box and age drawn into it."""
        from runtime.drawing import draw_faces

        picture = self._read(source).at(1)
        return draw_faces(picture.pixels, result["faces"], scale=picture.scale)

    def probe(self, source: Source) -> Probe:
        """The surest face of a photo as the network gets it, and its age: see `runtime.occlusion`.

        Raises:
            InputError: not an image, or no face is found in it.
        """
        from runtime.occlusion import Probe

        picture, _, found = self._look(self._read(source), AS_THE_BUNDLE_SAYS, turned=False)
        if not found:
            raise InputError("no face was found in this photo, so there is no age to watch")

        def ages(crops: Pixels) -> NDArray[np.float64]:
            return np.array([float(answer["age"]) for answer in self.ages(list(crops))])

        return Probe(self.settings.crop(picture.pixels, found[0]), ages, "age", "year")

    def _faces(self, pictures: Sequence[Picture], smallest: float, *, turned: bool) -> list[tuple[int, list[Face]]]:
        """For each picture the quarter turns to the left at which it stands upright, and its faces."""
        looked = [self._look(picture, smallest, turned=turned) for picture in pictures]
        crops: list[Pixels] = []
        for picture, quarters, faces in looked:
            upright = np.ascontiguousarray(np.rot90(picture.pixels, quarters))
            crops += [self.settings.crop(upright, face) for face in faces]
        answers = iter(self.ages(crops))
        return [
            (
                quarters,
                [_face(picture, face.turned_back(quarters, picture.pixels.shape[:2]), next(answers)) for face in faces],
            )
            for picture, quarters, faces in looked
        ]

    def _read(self, source: Source) -> Picture:
        return picture_of(source, longest=self.longest)

    def _look(self, picture: Picture, smallest: float, *, turned: bool) -> tuple[Picture, int, list[Detection]]:
        """The picture, read as finely as the smallest face needs it, its quarter turns, and its faces when turned."""
        side = max(picture.width, picture.height)
        if (shown := self.finder.shown(smallest, side)) > 0:
            picture = picture.at(side / shown)
        pixels, scale = picture.pixels, picture.scale
        quarters, found = (
            self.finder.find_turned(pixels, smallest, scale) if turned else (0, self.find(pixels, smallest, scale))
        )
        if picture.again is None:
            return picture, quarters, found
        spare = min((self.settings.crop.spare(face) for face in found), default=1.0)
        finer = picture.at(picture.scale * min(spare, 1))
        zoom = picture.scale / finer.scale
        return finer, quarters, [face.moved(0, 0, zoom) for face in found] if zoom > 1 else found


def _interval(data: Any) -> Interval:
    from runtime.intervals import parse_interval  # here, because a first answer begins quicker without

    return parse_interval(data)


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
