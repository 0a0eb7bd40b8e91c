"""The two simple recurrent networks: Elman's copies its hidden units into the context, Jordan's its outputs.

Both run over time through `exporters.recurrent.over_time`: a loop in torch, one ONNX ``Scan`` in the exported graph,
with the inputs' product before it, where it is one matrix product for all steps.

Shapes: B rows, T steps, I inputs, H hidden units, K output units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from exporters.recurrent import over_time


class Elman(nn.Module):
    """h_t = tanh(W·x_t + U·h_{t-1} + b) (Elman 1990, "Finding structure in time").

    The same function as ``nn.RNN(I, H, batch_first=True)``, whose two biases are one here.

    Args:
        inputs: I.
        hidden: H.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_inputs = nn.Linear(inputs, hidden)
        self.from_context = nn.Parameter(torch.empty(hidden, hidden))
        # Orthogonal: what is in the hidden units at first neither dies out nor grows, so that far steps can be learnt.
        nn.init.orthogonal_(self.from_context)

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Runs over time.

        Args:
            inputs: (B, T, I).
            hidden: (1, B, H) before the first step, as ``nn.RNN`` has it.

        Returns:
            Hidden units at every step (B, T, H), and after the last one (1, B, H).
        """
        matrix = self.from_context.t()

        def step(given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            after = torch.tanh(given + state[0] @ matrix)
            return after, (after,)

        outputs, (last,) = over_time(step, self.from_inputs(inputs).transpose(0, 1), (hidden.squeeze(0),))
        return outputs.transpose(0, 1), last.unsqueeze(0)


class Jordan(nn.Module):
    """A hidden layer that sees the outputs before it, through context units with a weight onto themselves.

    Jordan 1986, "Serial order: a parallel distributed processing approach"::

        h_t = tanh(W·x_t + V·s_t + b)      y_t = tanh(U·h_t + d)      s_{t+1} = μ·s_t + y_t

    The self-weight μ is fixed: the context is a fading sum of all outputs before. Output units without a target are
    Jordan's "don't-care" conditions: nobody tells them what to say, so they can be used to remember.

    Args:
        inputs: I.
        hidden: H.
        outputs: K.
        self_weight: μ, from 0 (the outputs of the step before alone) to below 1.
    """

    self_weight: Tensor

    def __init__(self, inputs: int, hidden: int, outputs: int, self_weight: float = 0.5) -> None:
        super().__init__()
        self.outputs = outputs
        self.from_inputs = nn.Linear(inputs, hidden)
        self.from_context = nn.Parameter(torch.empty(hidden, outputs))
        self.to_outputs = nn.Linear(hidden, outputs)
        self.register_buffer("self_weight", torch.tensor(float(self_weight)))
        # A constant output y becomes a context of y / (1 - μ), which is to arrive at the hidden units as y.
        nn.init.orthogonal_(self.from_context, gain=max(1 - self_weight, 1 / math.sqrt(hidden)))
        nn.init.orthogonal_(self.to_outputs.weight)
        nn.init.zeros_(self.to_outputs.bias)

    def forward(self, inputs: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Runs over time.

        Args:
            inputs: (B, T, I).
            context: (1, B, K) before the first step.

        Returns:
            Outputs at every step (B, T, K), and the context for the step after the last one (1, B, K).
        """
        from_context, to_outputs = self.from_context.t(), self.to_outputs.weight.t()
        bias, self_weight = self.to_outputs.bias, self.self_weight

        def step(given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            hidden = torch.tanh(given + state[0] @ from_context)
            output = torch.tanh(hidden @ to_outputs + bias)
            return output, (self_weight * state[0] + output,)

        outputs, (last,) = over_time(step, self.from_inputs(inputs).transpose(0, 1), (context.squeeze(0),))
        return outputs.transpose(0, 1), last.unsqueeze(0)
