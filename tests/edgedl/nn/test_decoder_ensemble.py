"""Decoders that choose each word together: as if their logits were averaged at every step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgedl.tasks.caption.network.attention import AttentionDecoder, SpatialDecoder
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder
from edgedl.tasks.caption.network.decoder_ensemble import DecoderEnsemble

F, V = 6, 11

KINDS = {
    "attention": lambda: AttentionDecoder(F, V, embedding=5, hidden=8),
    "spatial": lambda: SpatialDecoder(F, V, embedding=5, hidden=8),
    "concepts": lambda: SpatialDecoder(F, V, embedding=5, hidden=8, concepts=4),
    "mean": lambda: MeanPoolDecoder(F, V, embedding=5, hidden=8, cell="gru"),
}


def ensemble(make: Callable[[], Decoder], count: int = 3) -> DecoderEnsemble:
    torch.manual_seed(0)
    members = [make().double().eval() for _ in range(count)]
    with torch.no_grad():
        for member in members:
            for parameter in member.parameters():
                parameter.normal_(std=0.7)
    return DecoderEnsemble(members)


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 3, 4, F).double(), torch.tensor([3, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_the_mean_of_the_members_logits(kind: str, clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    together = ensemble(KINDS[kind])
    memory, alone = together.remember(*clips), [member.remember(*clips) for member in together.members]
    state = together.begin(memory, 2)
    states = [member.begin(own, 2) for member, own in zip(together.members, alone, strict=True)]
    tokens = torch.tensor([[0, 0], [0, 0]])
    for _ in range(4):
        logits, state = together.step(tokens, state, memory)
        each = []
        for index, member in enumerate(together.members):
            found, states[index] = member.step(tokens, states[index], alone[index])
            each.append(found)
        torch.testing.assert_close(logits, torch.stack(each).mean(dim=0), rtol=0, atol=1e-12)
        tokens = logits.argmax(dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_and_tables_give_the_same_step(kind: str, clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    together = ensemble(KINDS[kind])
    memory = together.remember(*clips)
    state, tables = together.begin(memory, 2), together.word_tables()
    matrix, bias = together.word_matrix()
    assert matrix.shape == (together.hidden, V)
    tokens = torch.tensor([[0, 3], [7, 10]])
    logits, after = together.step(tokens, state, memory)
    hidden, prepared = together.advance(tokens, state, memory, tables)
    torch.testing.assert_close(hidden @ matrix + bias, logits, rtol=0, atol=1e-12)
    for one, other in zip(after, prepared, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_members_with_and_without_concepts_speak_together(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    makers = iter([KINDS["concepts"], KINDS["spatial"], KINDS["concepts"]])
    together = ensemble(lambda: next(makers)())
    tokens = torch.randint(0, V, (2, 2, 5))
    alone = torch.stack([member(*clips, tokens) for member in together.members])
    torch.testing.assert_close(together(*clips, tokens), alone.mean(dim=0), rtol=0, atol=1e-12)


def test_one_member_is_that_decoder(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    alone = ensemble(KINDS["attention"], 1)
    (member,) = alone.members
    tokens = torch.randint(0, V, (2, 2, 5))
    torch.testing.assert_close(alone(*clips, tokens), member(*clips, tokens), rtol=0, atol=1e-12)


def test_the_attention_is_the_members_mean_where_they_attend(clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    together, tokens = ensemble(KINDS["attention"]), torch.randint(0, V, (2, 1, 4))
    where = together.attention(tokens, together.remember(*clips))
    assert where is not None
    each = [member.attention(tokens, member.remember(*clips)) for member in together.members]
    torch.testing.assert_close(where, torch.stack([found for found in each if found is not None]).mean(dim=0))
    pooled = ensemble(KINDS["mean"])
    assert pooled.attention(tokens, pooled.remember(*clips)) is None
