"""What this processor is fast at."""

from __future__ import annotations

import torch


def bf16_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 natively; elsewhere mixed precision would only be slower."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
