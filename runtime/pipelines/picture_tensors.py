"""How a picture goes into a bundle of tensors, and which of its answers is the number to watch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.engine import Engine
from runtime.errors import InputError
from runtime.occlusion import Pixels, Probe
from runtime.pipelines.base import Source, picture_of

_LAYOUTS = "uint8 [H, W, 3], [N, H, W, 3], [N, H, W, 1] or [N, H, W]"


def picture_probe(engine: Engine, source: Source) -> Probe:
    """A picture and the largest number that the graph answers to it.

    The answer is the first floating-point output; of an output with several values per picture (probabilities), the
    one that is largest for the whole picture.

    Args:
        engine: of a graph with one input, raw pixels.
        source: what `runtime.media.pictures.read_picture` takes.

    Raises:
        InputError: the graph takes no picture, or one of another size, or gives no number.
    """
    (spec, *more) = engine.spec.inputs
    shape = tuple(spec.shape)
    channels = shape[-1] if len(shape) == 4 or (len(shape) == 3 and shape[-1] == 3) else 1
    if more or spec.dtype != "uint8" or len(shape) not in (3, 4) or channels not in (1, 3):
        found = ", ".join(f"{t.dtype} [{', '.join(map(str, t.shape))}]" for t in engine.spec.inputs)
        raise InputError(f"this bundle takes {found}; a picture can be hidden in one input {_LAYOUTS}")
    outputs = [tensor.name for tensor in engine.spec.outputs if tensor.dtype.startswith("float")]
    if not outputs:
        raise InputError("this bundle answers with no number that could change a little")
    batched = not (len(shape) == 3 and channels == 3)
    pixels = picture_of(source).pixels
    wanted = shape[1:3] if batched else shape[:2]
    for size, have, axis in zip(wanted, pixels.shape[:2], ("height", "width"), strict=True):
        if isinstance(size, int) and size != have:
            raise InputError(f"this bundle takes pictures of {axis} {size}, this one has {have}; scale it first")
    together = batched and isinstance(shape[0], str)

    def run(pictures: Pixels) -> NDArray[np.float64]:
        """(N, H, W, 3) -> (N, …) flattened to (N, K)."""
        given = pictures if channels == 3 else _grey(pictures)[..., None]
        given = given if len(shape) == 4 or channels == 3 else given[..., 0]
        if together:
            answers = engine.run({spec.name: given}, outputs=outputs[:1])[outputs[0]]
            return np.asarray(answers, np.float64).reshape(len(pictures), -1)
        each = [
            engine.run({spec.name: row[None] if batched else row}, outputs=outputs[:1])[outputs[0]] for row in given
        ]
        return np.stack([np.asarray(answer, np.float64).reshape(-1) for answer in each])

    first = run(pixels[None])
    if not first.size:
        raise InputError(f"the output {outputs[0]!r} is empty for this picture; there is no number to watch")
    chosen = int(first[0].argmax())
    unit = next(tensor.unit for tensor in engine.spec.outputs if tensor.name == outputs[0])
    meaning = outputs[0] if first.shape[1] == 1 else f"{outputs[0]}[{chosen}]"
    return Probe(pixels, lambda pictures: run(pictures)[:, chosen], meaning, unit)


def _grey(pictures: Pixels) -> Pixels:
    """(…, 3) -> (…): luminance after ITU-R BT.601."""
    return np.asarray((pictures @ np.array((0.299, 0.587, 0.114))).round(), np.uint8)
