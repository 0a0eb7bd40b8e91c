"""One graph from a photo to ages, composed of a bundle's own networks and settings."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgedl.tasks.age.photo.crops import crops
from edgedl.tasks.age.photo.detector import Detector
from edgedl.tasks.age.photo.looks import Looker
from edgedl.tasks.age.photo.pixels import clipped, sides, to_double, to_float
from edgedl.tasks.age.photo.rows import KEYPOINTS, boxes_of, count, scores_of
from exporters.cutting import only, part
from exporters.writer import Value, Writer
from runtime.intervals import Interval
from runtime.pipelines.age import AgeSettings

AGES = ("age", "low", "high", "probabilities")


def photo_graph(
    faces: onnx.ModelProto, crowd: onnx.ModelProto, age: onnx.ModelProto, settings: AgeSettings
) -> onnx.ModelProto:
    """The graph: see `edgedl.tasks.age.photo.model` for its inputs and outputs.

    Args:
        faces: the model of that name in float32, as the two others.
        crowd: see there.
        age: see there.
        settings: the manifest's `pipeline`.

    Raises:
        GuardError: a graph or a setting is not as this version of edgedl makes them.
    """
    writer = Writer(ir_version=max(model.ir_version for model in (faces, crowd, age)))
    image = writer.input("image", TensorProto.UINT8, ["H", "W", 3])
    rows = Looker(image, settings.looks, Detector.of(faces, crowd)).found()
    resize = only(age, "Resize")
    first = part(age, [resize.input[0]], [resize.output[0]])
    network = part(age, [resize.output[0]], AGES)

    def resized(plane: Value) -> Value:
        return writer.insert(first, {resize.input[0]: plane})[resize.output[0]]

    def answered() -> list[Value]:
        planes = crops(image, rows, settings.crop, resized)
        with writer.step("age"):
            return list(writer.insert(network, {resize.output[0]: planes}).values())

    def nobody() -> list[Value]:
        years = len(settings.years)
        none = [writer.constant(np.zeros(0, np.float32)) for _ in AGES[:3]]
        return [*none, writer.constant(np.zeros((0, years), np.float32))]

    ages, low, high, probabilities = writer.choose(count(rows) > 0, answered, nobody)
    if settings.interval is not None:
        low, high = _ends(ages, settings.interval)
    height, width = sides(image)
    border = to_float(writer.joined([width, height, width, height]))
    writer.output("boxes", boxes_of(rows).most(0).least(border), ["D", 4])
    writer.output("scores", scores_of(rows), ["D"])
    writer.output("keypoints", rows.cut(5, 5 + 2 * KEYPOINTS, axis=1).reshaped(-1, KEYPOINTS, 2), ["D", KEYPOINTS, 2])
    writer.output("ages", ages, ["D"])
    # The mean of a distribution with a long tail lies outside of the central part of it.
    writer.output("low", low.least(ages), ["D"])
    writer.output("high", high.most(ages), ["D"])
    writer.output("probabilities", probabilities, ["D", len(settings.years)])
    return writer.model("photo")


def _ends(ages: Value, interval: Interval) -> tuple[Value, Value]:
    """See `runtime.intervals.Interval.ends`; the graph's outputs add the age itself.

    A curve's value is its first one and, of each piece, the share of its rise that lies below the age.
    """
    writer, predicted = ages.writer, to_double(ages).reshaped(-1, 1)

    def read(curve: tuple[float, ...]) -> Value:
        begin, rise = np.array(curve[:-1]), np.diff(interval.years)
        share = clipped((predicted - writer.constant(begin)) / writer.constant(np.diff(curve)), 0, 1)
        return to_float((share @ writer.constant(rise.reshape(-1, 1))).reshaped(-1) + interval.years[0])

    return read(interval.most), read(interval.least)
