"""Denormal numbers in arithmetic: the flag by which a processor takes them for zero, in every thread that computes.

Below 1.2e-38, Intel's processors compute in microcode. A training step of the age network, with 6,672 such weights,
took 4.96 s of processor time there, and 0.51 s with the flag. AMD's processors pay nothing for them.

The flag is a register of a thread, which new threads and forked processes take over from the one that starts them. Two
things follow. ONNX Runtime writes it anew when a process opens its first session, in the thread that opens it. And
torch's pool of threads keeps what it had when it began.

A parity gate runs without the flag: a logarithm of 1e-40 is -92 there, and minus infinity with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DENORMAL = float.fromhex("0x1p-1074")


def denormals_are_flushed() -> bool:
    """Whether the calling thread takes denormal numbers for zero."""
    return _DENORMAL * 1.0 == 0.0


def set_flush_denormals(on: bool) -> None:
    """Sets the flag in the calling thread and in the pool of threads that torch's operators share out their work to.

    Nothing happens on a processor without the flag. Where torch's pool is not OpenMP's, only the calling thread is set.
    """
    torch.set_flush_denormal(on)
    end_pool = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)  # torch has loaded it for all to see
    if end_pool is not None:
        end_pool(1)  # omp_pause_soft: the next operator starts a new pool, whose threads take the flag over


@contextmanager
def flush_denormals(on: bool = True) -> Iterator[None]:
    """Sets the flag for a while, or clears it, and gives the thread and torch's pool back as they were.

    Where a session of ONNX Runtime may be opened meanwhile, call `torch.set_flush_denormal` again before what follows.
    """
    before = denormals_are_flushed()
    if before != on:
        set_flush_denormals(on)
    try:
        yield
    finally:
        if before != on:
            set_flush_denormals(before)
        else:
            torch.set_flush_denormal(before)  # a session may have written it
