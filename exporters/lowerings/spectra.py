"""The inverse of a short-time Fourier transform, as one transposed convolution: ONNX has no operator for it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def inverse_stft(
    input: Tensor,  # noqa: A002 - torch's name
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: Any = None,
    return_complex: bool = False,
) -> Any:
    """(…, F, T) -> (…, samples): each frame's inverse transform times the window, added up, over the window's share.

    A frame is a sum of cosines and sines of its frequencies, so the frames are added up as the kernels of a transposed
    convolution over time.
    """
    if return_complex or onesided is False or not input.is_complex():
        return NotImplemented
    hop = n_fft // 4 if hop_length is None else hop_length
    size = n_fft if win_length is None else win_length
    kind = input.real.dtype
    wide = torch.ones(size, dtype=kind) if window is None else window.to(kind)
    left = (n_fft - size) // 2
    wide = F.pad(wide, (left, n_fft - size - left))
    spectrum = input if input.dim() == 3 else input.unsqueeze(0)
    kernels = _waves(n_fft, kind).unsqueeze(1) * wide  # (2·F, 1, n_fft)
    if normalized:
        kernels = kernels * n_fft**0.5
    samples = F.conv_transpose1d(torch.cat([spectrum.real, spectrum.imag], 1), kernels, stride=hop)
    ones = torch.ones_like(spectrum.real[:1, :1])
    share = F.conv_transpose1d(ones, (wide * wide).view(1, 1, -1), stride=hop)
    begin = n_fft // 2 if center else 0
    whole: Any = samples.shape[-1]
    end = begin + length if length is not None else whole - begin
    found = samples[:, 0, begin:end] / share[:, 0, begin:end]
    if length is not None:
        found = F.pad(found, (0, torch.sym_max(begin + length - whole, 0)))  # type: ignore[no-untyped-call]
    return found if input.dim() == 3 else found.squeeze(0)


def _waves(n_fft: int, kind: torch.dtype) -> Tensor:
    """What each real and each imaginary part of a one-sided spectrum adds to a frame: (2·F, n_fft)."""
    count = n_fft // 2 + 1
    angle = 2 * torch.pi / n_fft * torch.outer(torch.arange(count), torch.arange(n_fft)).remainder(n_fft).double()
    both = torch.full((count, 1), 2.0, dtype=torch.float64)
    both[0] = 1.0
    if n_fft % 2 == 0:
        both[-1] = 1.0
    return (torch.cat([both * angle.cos(), -both * angle.sin()]) / n_fft).to(kind)
