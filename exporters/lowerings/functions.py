"""Functions of torch that are written otherwise while a module is traced, and those that are refused by name.

torch turns some arguments of these functions into Python numbers before an operator is traced, so that an axis freezes
although its size needs no number: a pool as large as the picture, a grid of the picture's size, bags of equal length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from exporters.errors import GuardError
from exporters.lowerings import losses, parts, spectra
from exporters.lowerings.parts import at_least
from exporters.places import current_line

DERIVATIVE = "a derivative within forward has no form in ONNX; write it as tensor operations"
ROUNDING = (
    "fake quantisation rounds each number to a level, which float32 and float64 choose differently; export the network "
    "without it and quantise the bundle (edgedl quantize)"
)


class Functions(TorchFunctionMode):
    """While it lasts, the functions of this module stand in for torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _REFUSED:
            place = current_line() or "forward"
            raise GuardError(f"{place}: torch's {func.__name__} cannot be exported: {_REFUSED[func]}")
        other = _OTHERS.get(func)
        with self:
            found = NotImplemented if other is None else other(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is NotImplemented else found


def average_pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **more: Any) -> Any:
    """A pool as large as the picture is its mean."""
    return x.mean((-2, -1), keepdim=True) if _is_whole(x, kernel_size, padding, rest, more) else NotImplemented


def max_pool(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *rest: Any, **more: Any) -> Any:
    """A pool as large as the picture is its maximum."""
    return x.amax((-2, -1), keepdim=True) if _is_whole(x, kernel_size, padding, rest, more) else NotImplemented


def _is_whole(x: Tensor, kernel: Any, padding: Any, rest: Sequence[Any], more: dict[str, Any]) -> bool:
    sizes = tuple(kernel) if isinstance(kernel, tuple | list | torch.Size) else (kernel, kernel)
    padded = padding if isinstance(padding, tuple | list) else (padding,)
    usual = not any(rest) and not any(more.values()) and not any(padded)
    symbolic = any(isinstance(size, torch.SymInt) for size in sizes)
    return (
        usual
        and symbolic
        and len(sizes) == 2
        and all(a is b or a == b for a, b in zip(sizes, x.shape[-2:], strict=True))
    )


def affine_grid(theta: Tensor, size: Sequence[Any], align_corners: bool | None = None) -> Any:
    """The places that an affine map gives the pixels of a picture: (N, H, W, 2)."""
    if len(size) != 4:
        return NotImplemented
    y, x = (_places(theta, axis, bool(align_corners)) for axis in size[2:])
    x, y = x.expand(size[2], size[3]), y[:, None].expand(size[2], size[3])
    places = torch.stack([x, y, torch.ones_like(x)], -1)  # (H, W, 3)
    return torch.einsum("hwk,nik->nhwi", places, theta)


def _places(theta: Tensor, size: Any, align_corners: bool) -> Any:
    """The middles of pixels, or their corners, from -1 to 1."""
    at = torch.arange(size, dtype=theta.dtype)
    if align_corners:
        return at * 2 / at_least(size - 1, 1) - (1 - at_least(2 - size, 0))
    return (at * 2 + 1) / size - 1


def linspace(start: Any, end: Any, steps: Any = 100, **more: Any) -> Any:
    """From one end to the other in a number of steps that is a size; each half counts from its own end, as in torch."""
    if not isinstance(steps, torch.SymInt) or isinstance(start, Tensor) or isinstance(end, Tensor):
        return NotImplemented
    length: Any = steps  # torch's stubs know numbers only
    at = torch.arange(length, dtype=more.get("dtype") or torch.get_default_dtype())
    step = (end - start) / at_least(steps - 1, 1)
    return torch.where(at < at_least(length // 2, 1), start + step * at, end - step * (length - 1 - at))


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False) -> Any:
    """In evaluation a leaky ReLU of the mean slope."""
    return NotImplemented if training else F.leaky_relu(x, (lower + upper) / 2, inplace)


def convolution(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Any:
    """A group for each row of a batch, laid side by side as channels with kernels of its own; ONNX counts no groups."""
    if not isinstance(groups, torch.SymInt) or isinstance(padding, str) or input.shape[0] != 1:
        return NotImplemented
    _, channels, *kernel = weight.shape
    steps, pads, spread = (
        part if isinstance(part, tuple | list) else (part, part) for part in (stride, padding, dilation)
    )
    sizes = [
        (size + 2 * pad - far * (wide - 1) - 1) // step + 1
        for size, pad, far, wide, step in zip(input.shape[2:], pads, spread, kernel, steps, strict=True)
    ]
    rows = input.reshape(groups, channels, *input.shape[2:])
    patches = F.unfold(rows, kernel, spread, pads, steps)  # (G, C·k·k, L)
    answer = (weight.reshape(groups, -1, channels * kernel[0] * kernel[1]) @ patches).reshape(1, -1, *sizes)
    return answer if bias is None else answer + bias.reshape(1, -1, 1, 1)


def einsum(equation: Any, *operands: Any) -> Any:
    """Of two complex operands: the products of their real and imaginary parts."""
    parts = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or len(parts) != 2 or not any(part.is_complex() for part in parts):
        return NotImplemented
    (a, b), (c, d) = ((x.real, x.imag) if x.is_complex() else (x, torch.zeros_like(x)) for x in parts)
    real = torch.einsum(equation, a, c) - torch.einsum(equation, b, d)
    return torch.complex(real, torch.einsum(equation, a, d) + torch.einsum(equation, b, c))


def complex_mean(x: Tensor, *rest: Any, **more: Any) -> Any:
    """Of complex numbers; torch divides them by a Python number."""
    return torch.complex(x.real.mean(*rest, **more), x.imag.mean(*rest, **more)) if x.is_complex() else NotImplemented


def with_size(function: Any) -> Callable[..., Any]:
    """A product or quotient of complex numbers and a size; torch makes that a Python number."""

    def computed(x: Any, y: Any, **more: Any) -> Any:
        if not isinstance(y, torch.SymInt | torch.SymFloat) or not x.is_complex():
            return NotImplemented
        number: Any = y
        return function(x, torch.scalar_tensor(number, dtype=x.real.dtype), **more)

    return computed


def data(parameter: Tensor) -> Any:
    """What is written into a weight's ``data`` while it is traced goes nowhere: calls before have written it."""
    return parameter.detach().clone() if isinstance(parameter, torch.nn.Parameter) else NotImplemented


def set_data(parameter: Tensor, value: Any) -> Any:
    """See `data`."""
    return None if isinstance(parameter, torch.nn.Parameter) else NotImplemented


def embedding_bag(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Bags of equal length, (N, T) -> (N, D): their rows' sum, mean or maximum; weighted bags that begin at offsets."""
    plain = padding_idx is None and max_norm is None and not include_last_offset
    if offsets is not None and per_sample_weights is not None and plain:
        rows = F.embedding(input, weight) * per_sample_weights.unsqueeze(-1)  # (T, D)
        bag = (torch.arange(input.shape[0]).unsqueeze(-1) >= offsets).sum(-1) - 1
        return rows.new_zeros(offsets.shape[0], weight.shape[1]).index_add(0, bag, rows)
    if input.dim() != 2 or offsets is not None or max_norm is not None:
        return NotImplemented
    rows = F.embedding(input, weight)
    if mode == "max":
        if padding_idx is not None:
            rows = rows.masked_fill((input == padding_idx).unsqueeze(-1), float("-inf"))
        most = rows.amax(1)
        return torch.where(most == float("-inf"), torch.zeros_like(most), most)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if padding_idx is None:
        return rows.mean(1) if mode == "mean" else rows.sum(1)
    there = (input != padding_idx).to(rows.dtype).unsqueeze(-1)
    total = (rows * there).sum(1)
    return total / there.sum(1).clamp(min=1) if mode == "mean" else total


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    """Takes what depends on sizes, which torch's own function makes Python's: ``is_causal=t > 1`` and a scale."""
    if isinstance(more.get("scale"), torch.SymFloat):
        query, more = query * more["scale"], more | {"scale": 1.0}
    return _ATTENTION(query, key, value, attn_mask, dropout_p, bool(is_causal), **more)


_ATTENTION = F.scaled_dot_product_attention

_DATA: Any = Tensor.data

_OTHERS: dict[Any, Callable[..., Any]] = {
    F.avg_pool2d: average_pool,
    F.max_pool2d: max_pool,
    F.affine_grid: affine_grid,
    torch.linspace: linspace,
    torch.chunk: parts.chunk,
    Tensor.chunk: parts.chunk,
    torch.tensor_split: parts.tensor_split,
    Tensor.tensor_split: parts.tensor_split,
    torch.take_along_dim: parts.take_along_dim,
    Tensor.take_along_dim: parts.take_along_dim,
    torch.take: parts.take,
    Tensor.take: parts.take,
    torch.roll: parts.roll,
    Tensor.roll: parts.roll,
    torch.fft.fftshift: parts.fft_shift,
    torch.fft.ifftshift: parts.fft_shift_back,
    torch.tril_indices: parts.tril_indices,
    torch.triu_indices: parts.triu_indices,
    F.rrelu: rrelu,
    F.embedding_bag: embedding_bag,
    F.conv2d: convolution,
    torch.istft: spectra.inverse_stft,
    Tensor.istft: spectra.inverse_stft,
    F.cross_entropy: losses.cross_entropy,
    F.nll_loss: losses.negative_log_likelihood,
    torch.einsum: einsum,
    torch.mean: complex_mean,
    Tensor.mean: complex_mean,
    **{
        function: with_size(function)
        for owner in (torch, Tensor)
        for name in ("div", "mul", "__truediv__", "__mul__", "__rmul__")
        if (function := getattr(owner, name, None)) is not None
    },
    _DATA.__get__: data,
    _DATA.__set__: set_data,
}

_REFUSED: dict[Any, str] = {
    torch.autograd.grad: DERIVATIVE,
    torch.Tensor.backward: DERIVATIVE,
    torch.fake_quantize_per_tensor_affine: ROUNDING,
    torch.fake_quantize_per_channel_affine: ROUNDING,
}
