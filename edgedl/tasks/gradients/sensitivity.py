"""How much of the first input is left in a recurrent network: |∂h_t/∂x_1| over time.

Graves 2012, "Supervised sequence labelling with recurrent neural networks", sections 3.1.5 and 4.1: in a simple network
this is a product of as many factors as there are steps, and vanishes or explodes; in a memory block it stays as long as
the forget gate is open and the input gate shut.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgedl.tasks.gradients.peephole_lstm import PeepholeLSTM
from exporters.recurrent import over_time

KINDS = ("rnn", "gru", "lstm")
DRIVE = 50.0
"""Into a gate: σ(50) is 1 in float64, and σ(-1000) is 0."""


def input_sensitivity(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """|∂h_t/∂x_1| at every step (…, T), the Frobenius norm of an H × I matrix.

    Forward differentiation: one pass along time for each input gives the whole column of every step at once. Rows of a
    batch do not see one another, so one pass does for all of them.

    Args:
        run: (…, T, I) to the hidden units (…, T, H).
        inputs: (…, T, I).
    """
    return _squares(run, inputs).sum(dim=-1).sqrt()


def unit_sensitivity(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """|∂u_t/∂x_1| of every unit by itself (…, T, H), the norm of a row of that matrix; see `input_sensitivity`."""
    return _squares(run, inputs).sqrt()


def networks_sensitivity(
    kind: str, inputs: int, hidden: int, steps: int, *, seeds: Sequence[int], keep: float = 0.0
) -> Tensor:
    """Sensitivity of N networks as torch makes them, before any training, on inputs from a normal distribution.

    All networks run in one pass along time.

    Args:
        kind: ``rnn``, ``gru`` or ``lstm``.
        inputs: I.
        hidden: H.
        steps: T.
        seeds: of weights and inputs, one for each network.
        keep: added to the bias of the gate that keeps what there is: the LSTM's forget gate, the GRU's update gate.

    Returns:
        (N, T).
    """
    cells, drawn = [], []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cell = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}[kind](inputs, hidden).double()
            drawn.append(torch.randn(steps, inputs, dtype=torch.float64))
        if keep and kind != "rnn":
            with torch.no_grad():
                cell.bias_ih[hidden : 2 * hidden] += keep
        cells.append(cell.requires_grad_(requires_grad=False))
    weights, x = torch.func.stack_module_state(cells)[0], torch.stack(drawn)

    def run(own: Mapping[str, Tensor], given: Tensor) -> Tensor:
        def step(now: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            after = torch.func.functional_call(cells[0], dict(own), (now, state if kind == "lstm" else state[0]))
            after = after if kind == "lstm" else (after,)
            return after[0], after

        zeros = (given.new_zeros(1, hidden),) * (2 if kind == "lstm" else 1)
        return over_time(step, given.unsqueeze(1), zeros)[0].squeeze(1)

    def one(own: Mapping[str, Tensor], given: Tensor) -> Tensor:
        return input_sensitivity(partial(run, own), given)

    found: Tensor = torch.func.vmap(one)(weights, x)
    return found


def driven_block() -> PeepholeLSTM:
    """One memory block whose gates do what three of its inputs say, exactly: its inputs are value, i, f, o.

    A gate's input 1 opens it (σ = 1 in float64) and 0 shuts it (σ = 0). Nothing is fed back; no peepholes.
    """
    block = PeepholeLSTM(4, 1).double().requires_grad_(requires_grad=False)
    for parameter in block.parameters():
        parameter.zero_()
    value, gate_i, gate_f, gate_o = range(4)
    for row, column in zip((0, 1, 3), (gate_i, gate_f, gate_o), strict=True):
        block.weight_ih[row, column] = 1000 + DRIVE
        block.bias_ih[row] = -1000
    block.weight_ih[2, value] = 1
    return block


def run_block(block: PeepholeLSTM, given: Tensor) -> dict[str, Tensor]:
    """What `PeepholeLSTM.blocks` says of one row of inputs (T, 4) and one block: (T,) each."""
    zeros = given.new_zeros(1, 1, 1)
    return {name: values[0, :, 0] for name, values in block.blocks(given.unsqueeze(0), zeros, zeros).items()}


def block_sensitivity(block: PeepholeLSTM, given: Tensor, part: str = "hidden") -> Tensor:
    """|∂(hidden or cell)_t / ∂ value_1| (T,) of one block and its inputs (T, 4)."""
    direction = torch.zeros_like(given)
    direction[0, 0] = 1
    return _along(lambda x: run_block(block, x)[part], given, direction).abs()


def _squares(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """(∂u_t/∂x_1)² of every unit, summed over the inputs: (…, T, I) -> (…, T, H)."""
    total = inputs.new_zeros(())
    for index in range(inputs.shape[-1]):
        direction = torch.zeros_like(inputs)
        direction[..., 0, index] = 1
        total = total + _along(run, inputs, direction).square()
    return total


def _along(run: Callable[[Tensor], Tensor], inputs: Tensor, direction: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch compiles some derivatives at their first use in a way that it deprecates itself.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        found: Tensor = torch.func.jvp(run, (inputs,), (direction,))[1]
    return found
