"""What this processor, or this GPU, is fast at."""

from __future__ import annotations

from typing import Literal

import torch


def bf16_is_fast(device: Literal["auto", "cpu", "gpu"] = "cpu") -> bool:
    """Whether bfloat16 is multiplied natively where the training runs; elsewhere it would only be slower."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
