"""Image operators for use inside a network: the same arithmetic in torch and in the exported graph.

Each is a torch custom operator with an eager implementation (float32 and float64) and a translation into standard
ONNX operators of opset 18, so that the graph takes raw uint8 pixels and nothing is left to do outside:

- ``resize_images``: (N, H, W, C) of any height and width -> (N, C, h, w), bilinear with antialias;
- ``letterbox``: one photo -> a picture of bounded size, with what is needed to map boxes back;
- ``non_maximum_suppression``: boxes and scores -> the indices of the detections.

Why float and channels first: ONNX Runtime 1.32, one thread of an x86-64 core, float64 as the truth:

===============================  =================  ============  ===========================
form                             1280×1920→128×192  256²→64²      worst error on random pixels
===============================  =================  ============  ===========================
uint8 transpose, cast, Resize    10.2–14.2 ms       0.37–0.41 ms  5e-5 and 2e-5 levels
cast, transpose, Resize          17.3–34.1 ms       0.38–0.40 ms  the same
cast, Resize NHWC, transpose     12.6–25.0 ms       0.39–0.44 ms  the same
uint8 Resize NHWC, cast          12.8 ms            0.53 ms       0.75 and 0.86 (truncated)
===============================  =================  ============  ===========================

uint8 Resize truncates and is not even faster. At ratios that float32 cannot hold (427×640→128×192, noise) both torch
and ONNX Runtime are up to 1.2e-3 levels off, because the sampling positions are float32 in either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LETTERBOX_CHANNELS = 3


def resize_images(images: Tensor, size: tuple[int, int], dtype: torch.dtype | None = None) -> Tensor:
    """Resizes images bilinearly, with antialias where they shrink (as PIL does, without its rounding).

    Args:
        images: (N, H, W, C) uint8 or float, any N, H and W.
        size: Height and width of the result.
        dtype: Of the result; by default torch's default dtype for integer images (so that a float64 reference
            computes in float64), else the images' own.

    Returns:
        (N, C, height, width) in levels of the input; nothing is scaled.
    """
    height, width = size
    resized: Tensor = _resize(images, height, width, dtype or _float_dtype(images))
    return resized


def letterbox(
    image: Tensor, longest: int, step: int, *, fill: float = 0.0, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Shrinks a photo to a longest side and sets it into the least border that makes both sides multiples of a step.

    The aspect is kept and the photo centred; one that is small enough keeps its size. The resized sides are defined in
    integers, ``max(1, (side * t + m // 2) // m)`` with ``m = max(H, W)`` and ``t = min(m, longest)``, so that no
    rounding mode can disagree about them.

    Args:
        image: (H, W, 3) uint8 or float.
        longest: Longest side of the photo in the result, a multiple of the step.
        step: Of the sides of the result, which have at least one.
        fill: Level of the border.
        dtype: As in `resize_images`.

    Returns:
        The picture, (1, 3, h, w), and (3,) ``scale, pad_x, pad_y``: a point of the photo lies at
        ``x * scale + pad_x, y * scale + pad_y`` of the picture, ``scale = t / m``, to within half a pixel of the
        picture (the shorter side is rounded to whole pixels).
    """
    picture, placement = _letterbox(image, longest, step, fill, dtype or _float_dtype(image))
    return picture, placement


def non_maximum_suppression(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float, score_threshold: float, max_detections: int
) -> Tensor:
    """Greedy non-maximum suppression, exactly as ONNX defines it.

    Args:
        boxes: (M, 4) x1 y1 x2 y2.
        scores: (M,).
        iou_threshold: A box is dropped if its IoU with a kept one is strictly above.
        score_threshold: Only boxes with a score strictly above are looked at.
        max_detections: At most so many are kept.

    Returns:
        (D,) int64 indices into ``boxes`` by falling score; of equal scores the lower index comes first. D may be 0.
    """
    selected: Tensor = _nms(boxes, scores, iou_threshold, score_threshold, max_detections)
    return selected


@cache
def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` of `torch.onnx.export` for the operators of this module."""
    import onnxscript

    op: Any = onnxscript.opset18  # its own type hints only fit values, not the graph values seen while tracing

    def to_float_channels_first(images: Any, perm: list[int], dtype: int) -> Any:
        # uint8 moves a quarter of the bytes, so transpose before the cast.
        return op.Cast(op.Transpose(images, perm=perm), to=dtype)

    def resize_to(pixels: Any, sizes: Any) -> Any:
        # Sizes of all axes: see `exporters.quantize.resizing`.
        return op.Resize(
            pixels, None, None, op.Concat(op.Shape(pixels, start=0, end=2), sizes, axis=0), **_RESIZE_ATTRIBUTES
        )

    def resize(images: Any, height: int, width: int, dtype: int) -> Any:
        pixels = to_float_channels_first(images, [0, 3, 1, 2], dtype)
        return resize_to(pixels, op.Constant(value_ints=[height, width]))

    def letterboxed(image: Any, longest: int, step: int, fill: float, dtype: int) -> tuple[Any, Any]:
        pixels = op.Unsqueeze(
            to_float_channels_first(image, [2, 0, 1], dtype), op.Constant(value_ints=[0])
        )  # (1, 3, H, W)
        photo = op.Shape(image, start=0, end=2)  # H, W
        largest = op.ReduceMax(photo, keepdims=1)
        target = op.Min(largest, op.Constant(value_ints=[longest]))
        two, one_step = op.Constant(value_ints=[2]), op.Constant(value_ints=[step])
        inner = op.Div(op.Add(op.Mul(photo, target), op.Div(largest, two)), largest)
        inner = op.Max(inner, op.Constant(value_ints=[1]))  # h, w
        outer = op.Mul(op.Div(op.Add(inner, op.Constant(value_ints=[step - 1])), one_step), one_step)
        before = op.Div(op.Sub(outer, inner), two)  # pad_y, pad_x
        after = op.Sub(op.Sub(outer, inner), before)
        resized = resize_to(pixels, inner)
        none = op.Constant(value_ints=[0, 0])
        picture = op.Pad(
            resized,
            op.Concat(none, before, none, after, axis=0),
            op.CastLike(op.Constant(value_float=fill), pixels),
        )
        scale = op.Div(op.Cast(target, to=dtype), op.Cast(largest, to=dtype))
        across = op.Gather(before, op.Constant(value_ints=[1, 0]))  # pad_x, pad_y
        return picture, op.Concat(scale, op.Cast(across, to=dtype), axis=0)

    def nms(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, max_detections: int) -> Any:
        # ONNX wants (batch, M, 4) and (batch, classes, M); it takes the corners in either order, so x1 y1 x2 y2 may
        # stand where it says y1 x1 y2 x2.
        selected = op.NonMaxSuppression(
            op.Unsqueeze(boxes, op.Constant(value_ints=[0])),
            op.Unsqueeze(scores, op.Constant(value_ints=[0, 1])),
            op.Constant(value_ints=[max_detections]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
            center_point_box=0,
        )  # (D, 3): batch, class, index
        return op.Gather(selected, op.Constant(value_int=2), axis=1)

    operators = torch.ops.edgedl
    return {
        operators.resize_images.default: resize,
        operators.letterbox.default: letterboxed,
        operators.non_maximum_suppression.default: nms,
    }


# exclude_outside=1 renormalises the weights at the border as PIL and torch do; 0 is off by 2 to 3 levels there.
_RESIZE_ATTRIBUTES: dict[str, Any] = {
    "mode": "linear",
    "coordinate_transformation_mode": "half_pixel",
    "antialias": 1,
    "exclude_outside": 1,
}


def _float_dtype(images: Tensor) -> torch.dtype:
    return images.dtype if images.is_floating_point() else torch.get_default_dtype()


@torch.library.custom_op("edgedl::resize_images", mutates_args=())
def _resize(images: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).to(dtype)  # (N, C, H, W)
    resized = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.contiguous().clone()  # a custom operator must never return a view of its input


@_resize.register_fake
def _(images: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return images.new_empty((images.shape[0], images.shape[3], height, width), dtype=dtype)


@torch.library.custom_op("edgedl::letterbox", mutates_args=())
def _letterbox(image: Tensor, longest: int, step: int, fill: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    height, width = image.shape[0], image.shape[1]
    largest = max(height, width)
    target = min(largest, longest)
    inner_height = max(1, (height * target + largest // 2) // largest)
    inner_width = max(1, (width * target + largest // 2) // largest)
    across, down = -inner_width % step, -inner_height % step
    left, top = across // 2, down // 2
    resized = _resize(image[None], inner_height, inner_width, dtype)
    picture = F.pad(resized, (left, across - left, top, down - top), value=fill)
    placement = torch.stack(
        [torch.tensor(target, dtype=dtype) / largest, torch.tensor(left, dtype=dtype), torch.tensor(top, dtype=dtype)]
    )
    return picture, placement.to(image.device)


@_letterbox.register_fake
def _(image: Tensor, longest: int, step: int, fill: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    context = torch.library.get_ctx()
    steps = (context.new_dynamic_size(min=1, max=longest // step) for _ in range(2))
    height, width = (step * number for number in steps)
    picture = image.new_empty((1, LETTERBOX_CHANNELS, height, width), dtype=dtype)
    return picture, image.new_empty((3,), dtype=dtype)


@torch.library.custom_op("edgedl::non_maximum_suppression", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_detections: int) -> Tensor:
    order = torch.argsort(scores, descending=True, stable=True)  # stable: of equal scores the lower index first
    order = order[scores[order] > score_threshold]
    kept: list[Tensor] = []
    while len(order) and len(kept) < max_detections:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[_iou(boxes[best], boxes[order]) <= iou_threshold]
    return torch.stack(kept) if kept else order.new_empty((0,))


def _iou(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (4,) with (M, 4) -> (M,); 0 where a box or the intersection has no area."""
    low, high = torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:])
    lows, highs = torch.minimum(others[:, :2], others[:, 2:]), torch.maximum(others[:, :2], others[:, 2:])
    overlap = (torch.minimum(high, highs) - torch.maximum(low, lows)).clamp(min=0).prod(dim=1)
    area, areas = (high - low).prod(), (highs - lows).prod(dim=1)
    union = area + areas - overlap
    valid = (overlap > 0) & (area > 0) & (areas > 0) & (union > 0)
    return torch.where(valid, overlap / torch.where(valid, union, 1), 0)


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_detections: int) -> Tensor:
    detections = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty((detections,), dtype=torch.int64)
