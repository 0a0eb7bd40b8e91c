"""A recurrent network whose recurrent matrix stays orthogonal: it passes on what it holds undiminished."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from exporters.recurrent import over_time


class OrthogonalRNN(nn.Module):
    """h_t = f(W·x_t + b + Q·h_{t-1}) with an orthogonal Q and f(z) = sign(z)·max(|z| - c, 0), c ≥ 0 for each unit.

    Q neither shrinks nor enlarges a vector, and a threshold c of 0 changes none, so that at first an input reaches all
    later steps in full (Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", section 4).
    Their modReLU is f with c of any sign; with c below 0 it jumps at z = 0, where rounding decides. Q is the
    exponential of a skew-symmetric matrix, which is what is learnt (Lezcano-Casado and Martínez-Rubio 2019, "Cheap
    orthogonal constraints in neural networks"). It begins with a rotation of each pair of units by an angle of its own
    (Henaff, Szlam and LeCun 2016, "Recurrent orthogonal networks and long-memory tasks"). The exported graph holds Q
    itself, in one ``Scan``.

    Args:
        inputs: I.
        hidden: H.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_inputs = nn.Linear(inputs, hidden)
        nn.init.kaiming_normal_(self.from_inputs.weight)
        nn.init.zeros_(self.from_inputs.bias)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.threshold = nn.Parameter(torch.zeros(hidden))
        angles = torch.zeros(hidden - 1)
        angles[::2].uniform_(-math.pi, math.pi)
        upper = angles.diag(1)
        with torch.no_grad():
            self.recurrent.weight.copy_(torch.matrix_exp(upper - upper.t()))
        orthogonal(self.recurrent, orthogonal_map="matrix_exp")

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Runs over time, from hidden units of zero.

        Args:
            inputs: (B, T, I).

        Returns:
            Hidden units at every step (B, T, H), and after the last one (1, B, H), as ``nn.RNN`` has them.
        """
        matrix, threshold = self.recurrent.weight.t(), self.threshold.clamp(min=0)

        def step(given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            reached = torch.addmm(given, state[0], matrix)
            after = reached.sign() * F.relu(reached.abs() - threshold)
            return after, (after,)

        begun = inputs.new_zeros(inputs.shape[0], self.hidden)
        outputs, (last,) = over_time(step, self.from_inputs(inputs).transpose(0, 1), (begun,))
        return outputs.transpose(0, 1), last.unsqueeze(0)
