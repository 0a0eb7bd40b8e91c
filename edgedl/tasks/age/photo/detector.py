"""The detector inside a graph: the network of the models ``faces`` and ``crowd`` once, for whichever look asks.

The two models are one network. They differ in how they bring a picture to whole cells of the deepest map, which the
looks do, and in their thresholds, which become inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgedl.tasks.age.network.blazeface import SIZE, STEP
from edgedl.tasks.age.photo.pixels import to_float
from edgedl.tasks.age.photo.rows import rows_of
from exporters.cutting import constant_of, only, part
from exporters.errors import GuardError
from exporters.writer import Value

_THRESHOLD, _MOST = "threshold", "most"


@dataclass(frozen=True, slots=True)
class Detector:
    """The network of a bundle's detectors.

    Attributes:
        network: a picture in levels, the placement (scale, x, y) of the pixels in it, the threshold and the most faces
            -> boxes, scores and keypoints in the pixels that were placed.
        picture: the name of its first input.
        placement: the name of its second input.
        faces: threshold and most faces of the model ``faces``.
        crowd: the same of the model ``crowd``.
    """

    network: onnx.ModelProto
    picture: str
    placement: str
    faces: tuple[float, int]
    crowd: tuple[float, int]

    @classmethod
    def of(cls, faces: onnx.ModelProto, crowd: onnx.ModelProto) -> Detector:
        """Takes it out of the graphs of both models.

        Raises:
            GuardError: they are not two forms of one network, or not as `FaceDetector` is exported.
        """
        own = _weights(faces)
        if own != _weights(crowd):
            raise GuardError("the models faces and crowd of this bundle are not the same network")
        bounds = {name: _bounds(model) for name, model in (("faces", faces), ("crowd", crowd))}
        picture = only(faces, "Pad").output[0]
        placement = _placement(faces, picture)
        model = onnx.ModelProto()
        model.CopyFrom(faces)
        suppression = only(model, "NonMaxSuppression")
        compared = [
            node
            for node in model.graph.node
            if node.op_type == "Greater" and _is_number(model, node.input[1], bounds["faces"][0])
        ]
        if len(compared) != 1:
            raise GuardError(f"{len(compared)} comparisons with the threshold of the detector, expected one")
        compared[0].input[1] = suppression.input[4] = _THRESHOLD
        suppression.input[2] = _MOST
        model.graph.input.extend([
            helper.make_tensor_value_info(_THRESHOLD, TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info(_MOST, TensorProto.INT64, [1]),
        ])  # fmt: skip
        names = [output.name for output in model.graph.output]
        network = part(model, [picture, placement, _THRESHOLD, _MOST], names)
        return cls(network, picture, placement, bounds["faces"], bounds["crowd"])

    def rows(self, picture: Value, placement: Value, threshold: Value, most: Value) -> Value:
        """What the network finds, see `edgedl.tasks.age.photo.rows`.

        Args:
            picture: a plane whose sides are whole cells.
            placement: (3,).
            threshold: (1,) float32.
            most: (1,) int64.
        """
        with picture.writer.step("detector"):
            feeds = {self.picture: picture, self.placement: placement, _THRESHOLD: threshold, _MOST: most}
            boxes, scores, keypoints = picture.writer.insert(self.network, feeds).values()
            return rows_of(boxes, scores, keypoints)


def bordered(plane: Value, centred: Value) -> tuple[Value, Value]:
    """A plane with black around it up to whole cells, and how it is placed there.

    Args:
        plane: (1, 3, h, w).
        centred: (1,) int64: 1 puts it in the middle, as the model ``faces`` does; 0 at the top left, as ``crowd`` does.
    """
    writer = plane.writer
    size = writer.op("Shape", plane, dtype=TensorProto.INT64, start=2, end=4)
    beyond = _whole_cells(size) - size
    before = beyond / 2 * centred
    none = writer.whole(0, 0)
    picture = writer.op("Pad", plane, writer.joined([none, before, none, beyond - before]))
    scale = writer.constant(np.ones(1, np.float32))
    return picture, writer.joined([scale, to_float(before.take(writer.whole(1, 0)))])


def letterboxed(plane: Value) -> tuple[Value, Value]:
    """A plane shrunk to the size that the network was trained for, as `exporters.image.letterbox` does it."""
    writer = plane.writer
    size = writer.op("Shape", plane, dtype=TensorProto.INT64, start=2, end=4)
    largest = size.over("ReduceMax", 0, keep=True)
    target = largest.least(SIZE)
    inner = ((size * target + largest / 2) / largest).most(1)
    resized = writer.op(
        "Resize", plane, None, None, writer.joined([writer.whole(1, 3), inner]), mode="linear",
        coordinate_transformation_mode="half_pixel", antialias=1, exclude_outside=1,
    )  # fmt: skip
    picture, placement = bordered(resized, writer.whole(1))
    scale = to_float(target) / to_float(largest)
    return picture, writer.joined([scale, placement.cut(1, 3)])


def _whole_cells(size: Value) -> Value:
    return (size + (STEP - 1)) / STEP * STEP


def _weights(model: onnx.ModelProto) -> dict[str, bytes]:
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes()
        for tensor in model.graph.initializer
        if tensor.name.startswith("network.")
    }


def _bounds(model: onnx.ModelProto) -> tuple[float, int]:
    suppression = only(model, "NonMaxSuppression")
    return constant_of(model, suppression.input[4]), int(constant_of(model, suppression.input[2]))


def _is_number(model: onnx.ModelProto, name: str, number: float) -> bool:
    try:
        return constant_of(model, name) == number
    except (GuardError, ValueError):
        return False


def _placement(model: onnx.ModelProto, picture: str) -> str:
    """The value that says where the photo lies in the picture: what is joined from the photo's own sides alone."""
    weights = {tensor.name for tensor in model.graph.initializer}
    own: set[str] = {value.name for value in model.graph.input}
    used = _before(model, [output.name for output in model.graph.output], picture)
    joined = []
    for node in model.graph.node:
        if own.intersection(node.input) and picture not in node.output and set(node.input) <= own | weights | {""}:
            own.update(node.output)
            joined += [node.output[0]] if node.op_type == "Concat" and used.intersection(node.output) else []
    if len(joined) != 1:
        raise GuardError(f"the placement of the photo cannot be told: {len(joined)} values may be it")
    return str(joined[0])


def _before(model: onnx.ModelProto, outputs: list[str], without: str) -> set[str]:
    """All values that lead to some outputs, but those that do so through one value only."""
    given = {output: node for node in model.graph.node for output in node.output}
    waiting, seen = list(outputs), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen and name != without:
            seen.add(name)
            waiting += given[name].input if name in given else ()
    return seen
