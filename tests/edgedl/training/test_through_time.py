"""Truncated back-propagation through time: full where the window holds all, and exactly 0 beyond it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgedl.tasks.timer.network import STATES, TimerNetwork
from edgedl.tasks.timer.through_time import through_time
from runtime.errors import InputError

STEPS = 12


def network_of(kind: str) -> TimerNetwork:
    torch.manual_seed(0)
    return TimerNetwork(kind, 6).double()


def gradients(network: TimerNetwork, truncate: int | None) -> list[Tensor]:
    x = torch.randn(2, STEPS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network.zero_grad()
    through_time(network, x, network.initial_state(2), truncate)[0].square().sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("truncate", [STEPS, STEPS + 1, 10**6])
def test_a_window_over_all_steps_is_full_back_propagation(kind, truncate):
    network = network_of(kind)
    for found, full in zip(gradients(network, truncate), gradients(network, None), strict=True):
        assert torch.equal(found, full)


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("truncate", [1, 3, 5])
def test_gradients_older_than_the_window_are_exactly_zero(kind, truncate):
    """d answer_t / d x_s for all pairs of steps: 0 from p steps back on, and full inside a window."""
    network = network_of(kind)
    x = torch.randn(1, STEPS, 2, dtype=torch.float64, requires_grad=True)
    answers = through_time(network, x, network.initial_state(1), truncate)[0][0]
    full = network(x, *network.initial_state(1))[0][0]
    torch.testing.assert_close(answers, full, rtol=0, atol=1e-14)  # what is computed is the same
    for t in range(STEPS):
        (cut,) = torch.autograd.grad(answers[t], x, retain_graph=True)
        (whole,) = torch.autograd.grad(full[t], x, retain_graph=True)
        window = t // truncate * truncate
        assert torch.count_nonzero(cut[0, : max(0, t - truncate + 1)]) == 0
        assert torch.count_nonzero(cut[0, :window]) == 0
        torch.testing.assert_close(cut[0, window:], whole[0, window:], rtol=1e-10, atol=1e-14)
        assert torch.count_nonzero(whole[0, : t + 1]) == 2 * (t + 1)  # the full one reaches back to the first step


def test_truncation_changes_the_gradient_of_the_weights():
    network = network_of("elman")
    different = [not torch.allclose(a, b) for a, b in zip(gradients(network, 2), gradients(network, None), strict=True)]
    assert any(different)


def test_the_initial_state_hears_of_the_first_window_only():
    network = network_of("lstm")
    state = [part.requires_grad_() for part in network.initial_state(1)]
    answers = through_time(network, torch.ones(1, STEPS, 2, dtype=torch.float64), state, 4)[0][0]
    near = torch.autograd.grad(answers[3], state, retain_graph=True)
    far = torch.autograd.grad(answers[4:].sum(), state)
    assert all(torch.count_nonzero(part) > 0 for part in near)
    assert all(torch.count_nonzero(part) == 0 for part in far)


@pytest.mark.parametrize("truncate", [0, -3])
def test_a_window_has_a_step(truncate):
    network = network_of("elman")
    with pytest.raises(InputError, match="at least 1 step"):
        through_time(network, torch.zeros(1, 2, 2, dtype=torch.float64), network.initial_state(1), truncate)
