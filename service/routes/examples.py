"""``GET /v1/NAME/example``: a recorded input of a bundle, as the JSON that ``POST /v1/NAME`` takes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import BundleError
from runtime.media.pictures import encode_png
from runtime.pipelines.base import ArrayPipeline, ClipPipeline, PicturePipeline, TextPipeline
from service.bundles.served import Served
from service.problems import Problem


def example(one: Served, max_images: int) -> dict[str, Any]:
    """The body of a request that asks a bundle about its own example.

    Args:
        one: The bundle.
        max_images: The most images of a request; of a longer clip, so many frames are given.

    Returns:
        ``{"image": base64}``, ``{"images": [base64, …]}`` (the frames of a clip), ``{"prompt": text}`` or
        ``{"inputs": {name: array}}``, by what the bundle takes. Pictures are PNG files.

    Raises:
        Problem: 404, there is none.
    """
    # Made anew each time: people ask for it now and then, and a photo kept as text would hold a megabyte.
    try:
        found = _body(one, max_images)
    except BundleError as error:  # the bundle's files have changed since it was loaded
        raise Problem(404, f"The recorded inputs of the bundle {one.name!r} can no longer be read.") from error
    if found is None:
        raise Problem(404, f"The bundle {one.name!r} has no recorded input to show.")
    return found


def _body(one: Served, max_images: int) -> dict[str, Any] | None:
    pipeline = one.pipeline
    if isinstance(pipeline, PicturePipeline):
        picture = pipeline.example()
        return None if picture is None else {"image": _png(picture)}
    if isinstance(pipeline, ClipPipeline):
        frames = pipeline.example()
        return None if frames is None else {"images": [_png(frame) for frame in frames[:max_images]]}
    if isinstance(pipeline, TextPipeline):
        prompt = pipeline.example()
        return None if prompt is None else {"prompt": prompt}
    if isinstance(pipeline, ArrayPipeline):
        inputs = pipeline.example()
        return None if inputs is None else {"inputs": {name: _numbers(array) for name, array in inputs.items()}}
    return None


def _numbers(array: NDArray[Any]) -> Any:
    """An array that is written with no more digits than its type has; texts and single values as lists."""
    return np.ascontiguousarray(array) if array.ndim and array.dtype.kind in "iufb" else array.tolist()


def _png(picture: NDArray[Any]) -> str:
    return base64.b64encode(encode_png(picture)).decode()
