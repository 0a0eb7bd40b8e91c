"""The networks of the long time lags: a recurrent layer of one of four kinds, and an answer from its hidden units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.longlag.config import NETWORKS
from edgedl.tasks.longlag.data import PROBLEMS
from edgedl.tasks.longlag.orthogonal import OrthogonalRNN
from runtime.errors import InputError

_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "elman": partial(nn.RNN, batch_first=True),
    "lstm": partial(nn.LSTM, batch_first=True),
    "gru": partial(nn.GRU, batch_first=True),
    "orthogonal": OrthogonalRNN,
}
_LEVELS = 255


class LagNetwork(nn.Module):
    """Raw sequences to final answers.

    A row's answer is read from the hidden units at its last step. What comes after that step cannot reach back to it,
    so this is what a packed sequence would give, at a third of the time that torch needs for those.

    Args:
        problem: ``adding``, ``copy``, ``order`` or ``digits``.
        network: ``elman``, ``lstm``, ``gru`` or ``orthogonal``.
        hidden: H, the recurrent units.
        span: steps that the memory of a network with gates reaches over to begin with, see `chrono_initialise`.

    Raises:
        InputError: there is no such problem or network.
    """

    def __init__(self, problem: str, network: str, hidden: int, span: int) -> None:
        super().__init__()
        if problem not in PROBLEMS:
            raise InputError(f"unknown problem {problem!r}; there is {', '.join(PROBLEMS)}")
        if network not in NETWORKS:
            raise InputError(f"unknown network {network!r}; there is {', '.join(NETWORKS)}")
        self.problem = PROBLEMS[problem]
        self.network = network
        self.hidden = hidden
        self.recurrent = _LAYERS[network](self.problem.features, hidden)
        self.readout = nn.Linear(hidden, self.problem.outputs)
        self.register_buffer("symbols", torch.eye(self.problem.features), persistent=False)
        chrono_initialise(self.recurrent, span)

    def encode(self, inputs: Tensor) -> Tensor:
        """What the layer takes (B, T, F): pairs as they are, symbols one-hot, pixels from 0 to 1."""
        if self.problem.name == "adding":
            return inputs
        if self.problem.name == "digits":
            return (inputs.to(self.readout.weight.dtype) / _LEVELS).unsqueeze(-1)
        encoded: Tensor = self.symbols[inputs]  # type: ignore[index]  # a buffer, which torch's stubs take for a module
        return encoded

    def read(self, encoded: Tensor, lengths: Tensor | None) -> Tensor:
        """Unscaled answers, (B,) of ``adding``, else logits (B, K), of ``copy`` (B, T, K).

        Args:
            encoded: (B, T, F).
            lengths: (B,) steps of each row, from 1 to T; None for a problem that answers each step.
        """
        outputs, _ = self.recurrent(encoded)
        if lengths is not None:
            outputs = outputs[torch.arange(len(outputs), device=outputs.device), lengths - 1]  # (B, H)
        answers: Tensor = self.readout(outputs)
        return answers.squeeze(-1) if self.problem.name == "adding" else answers

    def logits(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """As `read`, from raw inputs; lengths are left out where each step is answered."""
        return self.read(self.encode(inputs), None if self.problem.every_step else lengths)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """What the bundle's graph answers.

        Args:
            inputs: (B, T, 2) float, (B, T) int64 or uint8.
            lengths: (B,) int64; not of ``copy``.

        Returns:
            Of ``adding`` the sum X1 + X2 (B,); of the others the likeliest class, int64, and the probabilities.
        """
        answers = self.read(self.encode(inputs), lengths)
        if self.problem.name == "adding":
            return 4 * (answers - 0.5)
        probabilities = F.softmax(answers, dim=-1)
        return probabilities.argmax(dim=-1), probabilities


def chrono_initialise(layer: nn.Module, span: int) -> None:
    """Lets the memories of a layer reach over all lags up to a span, each over another.

    Tallec and Ollivier 2018, "Can recurrent neural networks warp time?", section 3: a unit whose forget gate has the
    bias log(u) keeps what it has for about u steps; u is drawn from [1, span - 1]. An LSTM's input gates get the
    opposite, so that what comes in meanwhile does not add up; of a GRU, which has one gate for both, the update gate.
    A network without gates stays as it is.

    Args:
        layer: the biases of these gates are replaced.
        span: longest lag, in steps.
    """
    if not isinstance(layer, (nn.LSTM, nn.GRU)):
        return
    hidden = layer.hidden_size
    keep = slice(hidden, 2 * hidden)  # the forget gate of an LSTM, the update gate of a GRU
    biases = dict(layer.named_parameters())
    given, own = biases["bias_ih_l0"], biases["bias_hh_l0"]
    with torch.no_grad():
        bias = torch.empty(hidden).uniform_(1, max(span - 1, 1)).log()
        given[keep], own[keep] = bias, 0
        if isinstance(layer, nn.LSTM):
            given[:hidden], own[:hidden] = -bias, 0
