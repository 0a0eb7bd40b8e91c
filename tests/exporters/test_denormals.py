"""The flag that takes denormal numbers for zero: set in every thread that computes, and given back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.denormals import denormals_are_flushed, flush_denormals
from exporters.export import export_model
from tests.exporters.networks import SCORES, VECTOR

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor has no such flag")


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert share_kept() == 1  # the pool has begun, without the flag
    yield
    torch.set_num_threads(before)
    assert not denormals_are_flushed()


def share_kept() -> float:
    """The share of 300,000 denormal numbers that a multiplication by 1 leaves as they are; each thread has a third."""
    numbers = torch.full((300_000,), 1000, dtype=torch.int32).view(torch.float32)
    return float(np.count_nonzero((numbers * 1).view(torch.int32).numpy()) / len(numbers))


def test_every_thread_takes_them_for_zero_and_is_given_back() -> None:
    for _ in range(2):
        with flush_denormals():
            assert (torch.full((64,), 1e-39) * 1).sum() == 0
            assert (denormals_are_flushed(), share_kept()) == (True, 0)
        assert (denormals_are_flushed(), share_kept()) == (False, 1)


def test_it_nests_both_ways() -> None:
    with flush_denormals():
        with flush_denormals(False):
            assert share_kept() == 1
            with flush_denormals():
                assert share_kept() == 0
        with flush_denormals():
            assert share_kept() == 0
        assert share_kept() == 0


def test_an_error_gives_them_back_too() -> None:
    with pytest.raises(ZeroDivisionError), flush_denormals():
        raise ZeroDivisionError
    assert share_kept() == 1


@pytest.mark.parametrize("set_by_user", [False, True])
def test_what_writes_the_flag_meanwhile_is_undone(set_by_user: bool) -> None:
    """ONNX Runtime does, in the thread that opens a process's first session."""
    with flush_denormals(set_by_user):
        for on in (False, True):
            with flush_denormals(on):
                torch.set_flush_denormal(not on)
            assert denormals_are_flushed() == set_by_user
            assert share_kept() == (not set_by_user)


def test_the_gate_keeps_them_whatever_the_thread_does() -> None:
    """Else a logarithm of 1e-40 would be infinite in float32, its noise too, and any graph good enough."""
    seen = []

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_exporting():
                seen.append(denormals_are_flushed())
            return self.head(x)

    with flush_denormals():
        assert export_model(Head().eval(), inputs=[VECTOR], outputs=[SCORES]).report
        assert (denormals_are_flushed(), share_kept()) == (True, 0)
    assert len(seen) >= 16
    assert not any(seen)
