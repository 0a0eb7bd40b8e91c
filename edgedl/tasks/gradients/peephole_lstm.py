"""A long short-term memory whose gates see the memory cells (peepholes), and a look inside its blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from exporters.recurrent import peephole_lstm


class PeepholeLSTM(nn.Module):
    """One layer, as ``nn.LSTM(I, H, batch_first=True)`` with peepholes; without any (all 0) it is that layer.

    Gers, Schraudolph, Schmidhuber 2002, "Learning precise timing with LSTM recurrent networks", section 2. In the
    exported graph it is one ``LSTM`` with the input ``P``.

    Args:
        inputs: I.
        hidden: H.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        # Gates in torch's order i, f, g, o, so that weights of an nn.LSTM fit.
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden))
        self.peepholes = nn.Parameter(torch.empty(3, hidden))  # i, f, o
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Runs over time.

        Args:
            inputs: (B, T, I).
            hidden: (1, B, H) before the first step.
            cell: (1, B, H) likewise.

        Returns:
            Hidden units at every step (B, T, H); hidden units and memory cells after the last one (1, B, H).
        """
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        outputs, (hn, cn) = peephole_lstm(
            inputs.transpose(0, 1), (hidden.squeeze(0), cell.squeeze(0)), weights, self.peepholes
        )
        return outputs.transpose(0, 1), hn.unsqueeze(0), cn.unsqueeze(0)

    def blocks(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> dict[str, Tensor]:
        """What goes on inside: gates ``input``, ``forget``, ``output``, then ``cell`` and ``hidden``, (B, T, H) each.

        Takes what `forward` takes.
        """
        h, c = hidden.squeeze(0), cell.squeeze(0)
        bias = self.bias_ih + self.bias_hh
        see_i, see_f, see_o = self.peepholes
        seen: dict[str, list[Tensor]] = {name: [] for name in ("input", "forget", "output", "cell", "hidden")}
        for x in inputs.unbind(1):
            i, f, g, o = (x @ self.weight_ih.t() + h @ self.weight_hh.t() + bias).chunk(4, dim=-1)
            entrance, keep = (i + see_i * c).sigmoid(), (f + see_f * c).sigmoid()
            c = keep * c + entrance * g.tanh()
            exit_ = (o + see_o * c).sigmoid()
            h = exit_ * c.tanh()
            for name, value in zip(seen, (entrance, keep, exit_, c, h), strict=True):
                seen[name].append(value)
        return {name: torch.stack(values, dim=1) for name, values in seen.items()}
