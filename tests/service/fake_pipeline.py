"""A pipeline whose answers a test can work out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from runtime.errors import InputError
from runtime.manifest import Manifest
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import PicturePipeline, picture_of
from runtime.pipelines.results import FACES as FACES_SCHEMA

YEARS = list(range(81))
# Two faces in every picture of at least 32 pixels, as shares of its width and height.
FACES = ((0.10, 0.20, 0.40, 0.60), (0.55, 0.15, 0.90, 0.75))


class FakePipeline(PicturePipeline):
    """Stands in for the age pipeline: the first face's age is the mean red over four, the second's 20 years more."""

    options = {"distribution": bool, "limit": int}  # noqa: RUF012
    interval: Mapping[str, Any] = {"calibrated": True, "level": 0.8, "note": "Eight of ten true ages lie inside."}
    result = FACES_SCHEMA

    def __init__(self, name: str = "age", task: str = "age") -> None:
        tensor = {"name": "face", "dtype": "uint8", "shape": ["N", "H", "W", 3]}
        model = {
            "variants": {"fp32": {"file": "age.onnx", "sha256": "0" * 64, "bytes": 1}},
            "inputs": [tensor],
            "outputs": [{"name": "age", "dtype": "float32", "shape": ["N"], "unit": "year"}],
        }
        manifest = Manifest.from_json(
            {
                "schema_version": 1,
                "name": name,
                "version": "1.2.3",
                "task": task,
                "license": "CC0-1.0",
                "description": "Ages of faces.",
                "models": {"age": model},
                "pipeline": {"years": YEARS},
            }
        )
        self.bundle: Any = SimpleNamespace(manifest=manifest, digest="0" * 64)
        self.engines = {}
        self.variant = None
        self.fault: Exception | None = None
        self.calls = 0

    def open_picture(self, source: Any, **limits: int) -> np.ndarray:
        return picture_of(source, **limits).pixels

    def predict(self, source: Any, *, distribution: bool = False, limit: int = 8, **options: Any) -> Answer:
        self.refuse(options)
        self.calls += 1
        if self.fault is not None:
            raise self.fault
        height, width = source.shape[:2]
        if min(height, width) < 4:
            raise InputError(f"the image is {width} x {height}; faces need at least 4 x 4")
        if min(height, width) < 32:
            return Answer(faces=[], interval=self.interval)
        faces = []
        for index, (x1, y1, x2, y2) in enumerate(FACES[:limit]):
            age = float(source[..., 0].mean()) / 4 + 20 * index
            box = [x1 * width, y1 * height, x2 * width, y2 * height]
            face = {"box": box, "score": 0.9, "age": age, "low": age - 8, "high": age + 8, "keypoints": [box[:2]] * 6}
            if distribution:
                weights = np.exp(-0.5 * ((np.array(YEARS) - age) / 6.2) ** 2)
                face["probabilities"] = (weights / weights.sum()).astype(np.float32)
            faces.append(face)
        return Answer(faces=faces, interval=self.interval)


def picture(width: int = 80, height: int = 60, red: int = 100) -> np.ndarray:
    """uint8 RGB, [height, width, 3]."""
    return np.full((height, width, 3), (red, 30, 60), np.uint8)


def encoded(extension: str = ".png", **size: int) -> bytes:
    ok, data = cv2.imencode(extension, picture(**size)[..., ::-1])
    assert ok
    return data.tobytes()


class ShownPipeline(FakePipeline):
    """Has an example."""

    has_example = True

    def example(self) -> np.ndarray:
        return picture(120, 90)
