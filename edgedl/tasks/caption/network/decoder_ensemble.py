"""Several decoders that choose each word together: what one has overlooked the others may have seen.

They are trained one by one, side by side where there are processors, and put together for export.

The members' logits are averaged, which is the geometric mean of their probabilities. Since logits are linear in what is
read out, that is again one decoder: its hidden state is that of all members side by side, its word matrix theirs one
below the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from edgedl.tasks.caption.network.captioning import Decoder, Memory
from edgedl.tasks.caption.network.cells import State, Table


class DecoderEnsemble(Decoder):
    """Decoders of one kind and vocabulary as one.

    Args:
        members: at least one; each with weights of its own.
    """

    def __init__(self, members: Sequence[Decoder]) -> None:
        nn.Module.__init__(self)
        for index, member in enumerate(members):
            self.add_module(f"member{index}", member)
        self.hidden = sum(member.hidden for member in members)
        self.words, self.layers, self.cell = members[0].words, members[0].layers, members[0].cell

    @property
    def members(self) -> list[Decoder]:
        """The decoders."""
        return [module for module in self.children() if isinstance(module, Decoder)]

    def _parts(self, memory: Memory) -> list[tuple[Decoder, Memory]]:
        """Each member with its part of the memory."""
        left = iter(memory)
        return [(member, tuple(islice(left, member.parts))) for member in self.members]

    @property
    def parts(self) -> int:
        """Those of all members."""
        return sum(member.parts for member in self.members)

    def remember(self, features: Tensor, counts: Tensor) -> Memory:
        """The members' memories, one after the other."""
        return tuple(part for member in self.members for part in member.remember(features, counts))

    def begin(self, memory: Memory, rows: int) -> State:
        """The members' states, one after the other."""
        return tuple(part for member, own in self._parts(memory) for part in member.begin(own, rows))

    def advance(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, State]:
        """See `Decoder.advance`; what is read out is (B, R, ΣH)."""
        hidden: list[Tensor] = []
        after: list[Tensor] = []
        for index, (member, own) in enumerate(self._parts(memory)):
            found, next_state = member.advance(tokens, self._own(state, index), own, tables[index : index + 1])
            hidden.append(found)
            after.extend(next_state)
        return torch.cat(hidden, dim=-1), tuple(after)

    def look(
        self, tokens: Tensor, state: State, memory: Memory, tables: tuple[Table, ...] = ()
    ) -> tuple[Tensor, Tensor, State]:
        """See `Decoder.look`; the members' attention is averaged."""
        hidden: list[Tensor] = []
        where: list[Tensor] = []
        after: list[Tensor] = []
        for index, (member, own) in enumerate(self._parts(memory)):
            found, place, next_state = member.look(tokens, self._own(state, index), own, tables[index : index + 1])
            hidden.append(found)
            where.append(place)
            after.extend(next_state)
        return torch.cat(hidden, dim=-1), torch.stack(where).mean(dim=0), tuple(after)

    @property
    def attends(self) -> bool:
        """If its members do."""
        return all(member.attends for member in self.members)

    def logits(self, hidden: Tensor) -> Tensor:
        """The mean of the members' logits: (…, ΣH) -> (…, V)."""
        shares = torch.split(hidden, [member.hidden for member in self.members], dim=-1)
        said = [member.logits(share) for member, share in zip(self.members, shares, strict=True)]
        return torch.stack(said).mean(dim=0)

    def word_matrix(self) -> tuple[Tensor, Tensor]:
        """See `Decoder.word_matrix`."""
        found = [member.word_matrix() for member in self.members]
        count = len(found)
        return torch.cat([matrix for matrix, _ in found]) / count, torch.stack([bias for _, bias in found]).mean(dim=0)

    def word_tables(self) -> tuple[Table, ...]:
        """One of each member."""
        return tuple(table for member in self.members for table in member.word_tables())

    def _own(self, state: State, index: int) -> State:
        each = len(state) // len(self.members)
        return state[index * each : (index + 1) * each]
