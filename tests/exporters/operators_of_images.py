"""Operators on images of any size: resizing, pooling, sampling, folding, padding, normalising."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.spec import Input
from tests.exporters.operator_groups import Arrays, Group
from tests.exporters.operators_of_arrays import normal

Operators = Mapping[str, Callable[..., Any]]
Size = Callable[[Tensor], tuple[Any, Any]]

IMAGE = (Input("x", "float32", ("N", 4, "H", "W")),)
SIZES = ((2, 7, 9), (1, 13, 8), (3, 32, 25), (1, 6, 6), (1, 47, 64))
IMAGES: tuple[Arrays, ...] = tuple((normal(n, 4, h, w, seed=h),) for n, h, w in SIZES)

TO: Mapping[str, Size] = {
    "fixed": lambda x: (11, 14),
    "one": lambda x: (1, 1),
    "larger": lambda x: (x.shape[2] * 3 // 2, x.shape[3] * 4 // 3 + 1),
    "smaller": lambda x: (x.shape[2] // 2, x.shape[3] * 2 // 3),
}
BY = (2, 3, 0.5, 1.5, 1.7, 0.6, (2.0, 0.7))


def _to(mode: str, size: Size, **options: Any) -> Callable[..., Any]:
    return lambda x: F.interpolate(x, size=size(x), mode=mode, **options)


def _by(mode: str, factor: Any, **options: Any) -> Callable[..., Any]:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode, **options)


def _resized(mode: str, **options: Any) -> Operators:
    tags = [mode, *options]
    made = {" ".join([*tags, name]): _to(mode, size, **options) for name, size in TO.items()}
    made |= {" ".join([*tags, f"by {factor}"]): _by(mode, factor, **options) for factor in BY}
    return made


NEAREST: Operators = {
    **_resized("nearest"),
    **_resized("nearest-exact"),
    "by 1.7, recomputed": _by("nearest", 1.7, recompute_scale_factor=True),
    "to another's size": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="nearest"),
    "upsample": nn.Upsample(scale_factor=3),
    "of one axis": lambda x: [F.interpolate(x.flatten(2), size=37, mode=mode) for mode in ("nearest", "nearest-exact")],
    "of three axes": lambda x: F.interpolate(x[:, :, None], scale_factor=(2, 1.5, 2), mode="nearest"),
}
SMOOTH: Operators = {
    **_resized("bilinear"),
    **_resized("bilinear", align_corners=True),
    **{f"bicubic {name}": _to("bicubic", size) for name, size in TO.items()},
    **{f"bicubic by {factor}": _by("bicubic", factor) for factor in (2, 1.7)},
    "bicubic aligned": _to("bicubic", TO["larger"], align_corners=True),
    **_resized("area"),
    "bilinear by 1.7, recomputed": _by("bilinear", 1.7, recompute_scale_factor=True),
    "of one axis": lambda x: (
        F.interpolate(x.flatten(2), scale_factor=1.3, mode="linear"),
        F.interpolate(x.flatten(2), size=17, mode="linear", align_corners=True),
    ),
    "of three axes": lambda x: (
        F.interpolate(x[:, :, None], scale_factor=(1, 2, 2), mode="trilinear"),
        F.interpolate(x[:, :, None], scale_factor=(2, 1.3, 2), mode="trilinear"),
    ),
    "upsample": nn.UpsamplingBilinear2d(scale_factor=2),
}
ANTIALIASED: Operators = {
    **_resized("bilinear", antialias=True),
    **_resized("bicubic", antialias=True),
    "bilinear aligned": _to("bilinear", TO["smaller"], antialias=True, align_corners=True),
    "bicubic aligned": _to("bicubic", TO["fixed"], antialias=True, align_corners=True),
}
POOLED: Operators = {
    **{
        f"average {options}": lambda x, o=options: F.avg_pool2d(x, **o)
        for options in (
            {"kernel_size": 3},
            {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
            {"kernel_size": 3, "stride": 2, "ceil_mode": True},
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
            {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True},
            {"kernel_size": 5, "stride": 4, "padding": 2, "ceil_mode": True},
            {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5},
            {"kernel_size": (2, 3), "divisor_override": 4},
        )
    },
    "average of one and three axes": lambda x: (
        F.avg_pool1d(x.flatten(2), 4, 3, 2, ceil_mode=True),
        F.avg_pool3d(x, 2, 2, 1, ceil_mode=True),
    ),
    **{
        f"maximum {options}": lambda x, o=options: F.max_pool2d(x, **o)
        for options in (
            {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": 2, "stride": 2, "ceil_mode": True},
            {"kernel_size": 3, "stride": 4, "padding": 1, "ceil_mode": True},
            {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": 2, "ceil_mode": True},
            {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True},
            {"kernel_size": 2, "dilation": 2, "return_indices": True},
        )
    },
    **{
        f"adaptive {n}": lambda x, n=n: (F.adaptive_avg_pool2d(x, n), F.adaptive_max_pool2d(x, n, return_indices=True))
        for n in (1, 3, (3, 7), (50, 60))
    },
    "adaptive, one axis kept": lambda x: (F.adaptive_avg_pool2d(x, (None, 5)), F.adaptive_avg_pool2d(x, (None, 1))),
    "adaptive to a share": lambda x: F.adaptive_avg_pool2d(x, (x.shape[2] // 2, x.shape[3] // 2)),
    "adaptive of one axis": lambda x: (F.adaptive_avg_pool1d(x.flatten(2), 5), F.adaptive_max_pool1d(x.flatten(2), 5)),
    "adaptive of three axes": lambda x: (F.adaptive_avg_pool3d(x, (2, 3, 3)), F.adaptive_max_pool3d(x, (2, 3, 3))),
    "adaptive of ties": lambda x: F.adaptive_max_pool2d(torch.round(x), (3, 2), return_indices=True),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :6, :6], 2, return_indices=True), 2),
    "power": lambda x: F.lp_pool2d(x, 2.0, 2),
}
MOVED: Operators = {
    "shuffled": lambda x: (F.pixel_shuffle(x, 2), F.pixel_unshuffle(x[..., :6, :6], 2), F.channel_shuffle(x, 2)),
    "unfolded": lambda x: (F.unfold(x, 3, padding=1, stride=2), F.unfold(x, (2, 3), dilation=(2, 1))),
    "folded": lambda x: F.fold(F.unfold(x[..., :6, :6], 3), (6, 6), 3),
    "padded": lambda x: [
        F.pad(x, (1, 2, 3, 1), mode=mode) for mode in ("reflect", "replicate", "circular", "constant")
    ],
    "cropped": lambda x: F.pad(x, (-1, 2, 0, -2)),
    "padded to a multiple": lambda x: F.pad(x, (0, (4 - x.shape[3] % 4) % 4, 0, (4 - x.shape[2] % 4) % 4)),
    "turned": lambda x: (x.flip(3), torch.rot90(x, 1, (2, 3)), x.roll((2, -3), (2, 3))),
    "convolved": lambda x: (
        F.conv2d(x, _weight(x, 3, 4, 2, 4), padding="same"),
        F.conv2d(x, _weight(x, 4, 1, 3, 3), padding=2, dilation=2, groups=4),
        F.conv_transpose2d(x, _weight(x, 4, 3, 3, 3), stride=2, padding=1, output_padding=1),
        F.conv_transpose2d(x, _weight(x, 4, 2, 3, 3), stride=3, padding=1, output_padding=(2, 0), groups=2, dilation=2),
        F.conv_transpose1d(x.flatten(2), _weight(x, 4, 2, 4), stride=2, padding=1, output_padding=1),
    ),
}
NORMALISED: Operators = {
    "instance": lambda x: (F.instance_norm(x), F.instance_norm(x, weight=_ramp(x) + 1, bias=_ramp(x))),
    "instance, learnt": lambda x: F.instance_norm(x, _ramp(x), _ramp(x) + 1, use_input_stats=False),
    "instance of one and three axes": lambda x: (F.instance_norm(x.flatten(2)), F.instance_norm(x[:, :, None])),
    "group": lambda x: [F.group_norm(x, n, _ramp(x) + 1, _ramp(x), 1e-3) for n in (1, 2, 4)],
    "batch": lambda x: F.batch_norm(x, _ramp(x), torch.tensor([1, 1e-12, 1e12, 3]).to(x), _ramp(x) + 1, _ramp(x)),
    "layer": lambda x: (
        F.layer_norm(x.permute(0, 2, 3, 1), (4,), _ramp(x) + 1, _ramp(x)),
        F.layer_norm(x, x.shape[1:]),
    ),
    "response": lambda x: (F.local_response_norm(x, 3), F.local_response_norm(x, 2, 1e-3, 0.5, 2.0)),
    "moments": lambda x: (x.mean((2, 3)), x.var((2, 3)), x.std((2, 3), keepdim=True), x.sum((2, 3)), x.amax((2, 3))),
    "gated": lambda x: (F.glu(x, 1), x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
}


def _weight(x: Tensor, *shape: int) -> Tensor:
    return torch.from_numpy(normal(*shape, scale=0.1)).to(x)


def _ramp(x: Tensor) -> Tensor:
    return torch.arange(4, dtype=x.dtype)


def _sampled(mode: str, padding: str, align: bool) -> Callable[..., Any]:
    return lambda x, g, t: F.grid_sample(x, g, mode, padding, align)


SAMPLED: Operators = {
    **{
        f"{mode} {padding} {align}": _sampled(mode, padding, align)
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "affine": lambda x, g, t: [F.affine_grid(t, [t.shape[0], 3, 5, 7], align_corners=a) for a in (False, True)],
    "transformed": lambda x, g, t: F.grid_sample(x, F.affine_grid(t, [t.shape[0], 3, 5, 7], align_corners=False)),
}


def sampling_case(n: int, h: int, w: int, p: int, q: int, seed: int) -> Arrays:
    grid = normal(n, p, q, 2, scale=0.8, seed=seed)
    grid.reshape(-1)[:8] = [-1, -1, 1, 1, 0, 0, 1, -1]
    turn = np.eye(2, 3, dtype=np.float32)[None] + 0.3 * normal(n, 2, 3, seed=seed)
    return normal(n, 3, h, w, seed=seed), grid, turn.astype(np.float32)


GRID = (
    Input("x", "float32", ("N", 3, "H", "W")),
    Input("g", "float32", ("N", "P", "Q", 2)),
    Input("t", "float32", ("N", 2, 3)),
)
GRIDS = (sampling_case(2, 5, 7, 4, 6, 1), sampling_case(1, 1, 3, 9, 9, 2), sampling_case(1, 30, 20, 9, 8, 3))
KINDS = ((1, 0), (100, 0), (1, 1e4), (1e-15, 0), (1e18, 0))
FLAT = (np.full((1, 4, 160, 160), 0.7, np.float32),)
"""An all-white image: nothing but equal numbers, whose sum is rounded the same way every time."""

MORE = ("by 0.5", "by 0.6", "by 1.5", "by 3", "by (2.0, 0.7)", "one", "smaller")
"""Of the smooth resizes, what torch decomposes as it does the other sizes and factors."""
AT_MORE_SIZES = {name for name in SMOOTH if name.endswith(MORE)}
MORE_SAMPLED = {name for name in SAMPLED if name.startswith("bicubic") or name.endswith("True")} - {
    "bicubic zeros True"
}


def among(operators: Operators, names: Collection[str]) -> Operators:
    return {name: operator for name, operator in operators.items() if name in names}


GROUPS = {
    "nearest": Group(IMAGE, IMAGES, NEAREST),
    "smooth": Group(IMAGE, IMAGES, among(SMOOTH, SMOOTH.keys() - AT_MORE_SIZES), whole=True),
    "smooth at more sizes": Group(IMAGE, IMAGES, among(SMOOTH, AT_MORE_SIZES), whole=True, slow=True),
    "antialiased": Group(IMAGE, IMAGES, ANTIALIASED, whole=True),
    "pooled": Group(IMAGE, IMAGES, POOLED, whole=True),
    "moved": Group(IMAGE, IMAGES, MOVED, whole=True),
    "normalised": Group(
        IMAGE,
        (*((normal(n, 4, h, w, scale=s, shift=m),) for s, m in KINDS for n, h, w in SIZES[:3]), FLAT),
        NORMALISED,
        whole=True,
    ),
    "sampled": Group(GRID, GRIDS, among(SAMPLED, SAMPLED.keys() - MORE_SAMPLED), whole=True),
    "sampled in more ways": Group(GRID, GRIDS, among(SAMPLED, MORE_SAMPLED), whole=True, slow=True),
}
