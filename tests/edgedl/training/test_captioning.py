"""Learning captions: losses against sums written by hand in numpy, and what sampling, hiding and rewards really do."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgedl.tasks.caption import objective as captioning
from edgedl.tasks.caption.config import CaptionOptions
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.objective import (
    ABSENT,
    CaptionLearning,
    as_lists,
    concept_nats,
    drawn_from,
    greedy,
    remembered,
    sampled,
    shifted,
    spoken,
    without_unknown,
)
from runtime.errors import InputError
from runtime.vocabulary import END, UNKNOWN
from tests.edgedl.tasks.captioners import WORDS, SmallEncoder, captioner

SAID = [
    [[4, 5, 6, 7, END], [3, 8, END, ABSENT, ABSENT]],
    [[9, END, ABSENT, ABSENT, ABSENT], [4, UNKNOWN, 12, 13, 14]],  # the last one is cut: without its end
]
LEARNT = [
    [[4, ABSENT, 6, 7, END], [3, 8, END, ABSENT, ABSENT]],
    [[9, END, ABSENT, ABSENT, ABSENT], [ABSENT, ABSENT, ABSENT, 13, 14]],
]


class Stub:
    """Scores captions by a rule and keeps what it was asked."""

    def __init__(self, rule) -> None:
        self.rule = rule
        self.asked: list[tuple[list[list[int]], list[int]]] = []

    def scores(self, candidates: list[list[int]], indices: list[int]) -> np.ndarray:
        self.asked.append((candidates, indices))
        return np.array([self.rule(line, index) for line, index in zip(candidates, indices, strict=True)], np.float64)


NOTHING = Stub(lambda line, index: 0.0)


@pytest.fixture(scope="module", params=["spatial", "attention", "mean", "top"])
def network(request: pytest.FixtureRequest) -> CaptionNetwork:
    """In evaluation mode, so that dropout is off; softened, so that no probability is 0 or 1."""
    network = captioner(request.param)
    with torch.no_grad():
        network.decoder.embedding.weight /= 8
    return network


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return two_clips()


def two_clips() -> dict[str, Tensor]:
    torch.manual_seed(4)
    return {
        "features": torch.rand(2, 3, 16, SmallEncoder.features).half(),
        "counts": torch.tensor([3, 2]),
        "words": torch.tensor(SAID),
        "targets": torch.tensor(LEARNT),
        "clip": torch.tensor([0, 1]),
        "progress": torch.tensor(0.5),
    }


def learning(options: CaptionOptions | None = None, *, reward: Stub | None = None, epochs: int = 10) -> CaptionLearning:
    return CaptionLearning(options or CaptionOptions(0.0), epochs, 8, judge=NOTHING, reward=reward)


def log_probabilities(network: CaptionNetwork, batch: dict[str, Tensor], words: Sequence) -> np.ndarray:
    """(B, R, L, V) in float64, each word given those before it and `END` at the start."""
    before = [[[END, *(max(word, END) for word in line[:-1])] for line in lines] for lines in words]
    with torch.no_grad():
        logits = network.decoder(batch["features"].float(), batch["counts"], torch.tensor(before)).double().numpy()
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_what_is_to_be_learnt(network, batch, smoothing) -> None:
    table = log_probabilities(network, batch, SAID)
    terms = [
        -(1 - smoothing) * table[b, r, i, word] - smoothing * table[b, r, i].mean()
        for b, lines in enumerate(LEARNT)
        for r, line in enumerate(lines)
        for i, word in enumerate(line)
        if word != ABSENT
    ]
    assert len(terms) == 11
    loss = learning(CaptionOptions(smoothing)).loss(network, batch)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_the_nats_of_concepts_by_hand() -> None:
    untold = torch.tensor([[0.1, 2.0, 5.0], [0.5, 0.02, 1.0]], requires_grad=True)
    said = torch.tensor([[[2, 2, 4, END], [3, UNKNOWN, 2, END]], [[9, END, ABSENT, ABSENT], [5, 4, END, ABSENT]]])
    shares = np.array([[1.0, 0.5, 0.5], [0.0, 0.0, 0.5]])  # of the captions that have the words 2, 3 and 4
    told = 1 - np.exp(-untold.detach().double().numpy())
    expected = -(shares * np.log(told) + (1 - shares) * np.log(1 - told)).sum(axis=1).mean()
    nats = concept_nats(untold, said)
    assert nats.item() == pytest.approx(expected, rel=1e-5)
    nats.backward()
    rises = untold.grad > 0  # where the loss falls with being told more, the gradient is negative
    assert rises.tolist() == (told > shares).tolist()


def test_concepts_add_their_weight_to_the_loss(batch) -> None:
    network = captioner("top")
    plain = learning(CaptionOptions(0.0)).loss(network, batch)
    both = learning(CaptionOptions(0.0, concept_weight=0.25)).loss(network, batch)
    untold = network.decoder.untold(remembered(network, batch))
    assert (both - plain).item() == pytest.approx(0.25 * concept_nats(untold, batch["words"]).item(), rel=1e-4)
    measured = learning().measure(network, batch)["concepts"]
    assert measured[0].item() / measured[1] == pytest.approx(concept_nats(untold, batch["words"]).item(), rel=1e-5)


def test_a_concept_that_is_sure_to_be_missing_costs_no_infinity() -> None:
    untold = torch.zeros(1, 1, requires_grad=True)
    nats = concept_nats(untold, torch.tensor([[[2, END]]]))
    nats.backward()
    assert torch.isfinite(nats)
    assert torch.isfinite(untold.grad).all()


def test_what_is_not_to_be_learnt_is_still_a_word_before(network, batch) -> None:
    """The masked second word of the first caption changes what follows it."""
    loss = learning().loss(network, batch)
    batch["words"][0, 0, 1] = 10
    assert abs((learning().loss(network, batch) - loss).item()) > 1e-4


def test_words_are_shifted_by_one() -> None:
    assert shifted(torch.tensor([[[5, 6, END, ABSENT, ABSENT]]])).tolist() == [[[END, 5, 6, END, END]]]


def test_without_scheduled_sampling_it_is_teacher_forcing(network, batch) -> None:
    before = shifted(batch["words"])
    forced = network.decoder(batch["features"].float(), batch["counts"], before)
    there = torch.ones_like(before, dtype=torch.bool)
    logits, places = spoken(network.decoder, remembered(network, batch), before, there, 0.0)
    assert sorted(places.tolist()) == list(range(before.numel()))
    torch.testing.assert_close(logits, forced.flatten(0, 2)[places])


@given(lengths=st.lists(st.integers(0, 7), min_size=6, max_size=6).filter(any))
@settings(max_examples=25, deadline=None)
def test_captions_that_are_over_leave_and_change_nothing(network, lengths) -> None:
    """However long each caption is: the words that are there, and their gradients, as if all went on to the end."""
    batch = two_clips()
    before = torch.randint(2, 12, (2, 3, 7))
    there = torch.arange(7) < torch.tensor(lengths).reshape(2, 3, 1)
    logits, places = spoken(network.decoder, remembered(network, batch), before, there, 0.0)
    assert sorted(places.tolist()) == there.flatten().nonzero().squeeze(1).tolist()
    whole = network.decoder(batch["features"].float(), batch["counts"], before).flatten(0, 2)[places]
    torch.testing.assert_close(logits, whole)
    weights = torch.rand(logits.shape)
    parameters = [p for p in network.decoder.parameters() if p.requires_grad]
    found = torch.autograd.grad((logits * weights).sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad((whole * weights).sum(), parameters, allow_unused=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_scheduled_sampling_grows_with_the_training(network, batch) -> None:
    """At the beginning there is none of it; the share is that of the words that are the network's own."""
    options = CaptionOptions(0.0, scheduled_sampling=0.8)
    batch["progress"] = torch.tensor(0.0)
    torch.testing.assert_close(learning(options).loss(network, batch), learning().loss(network, batch))
    memory = remembered(network, batch)
    decoder, seen = network.decoder, []
    advance = decoder.advance

    def recorded(tokens, state, memory):
        seen.append(tokens.reshape(2, 500))
        return advance(tokens, state, memory)

    decoder.advance = recorded  # type: ignore[method-assign]
    try:
        before = torch.full((2, 500, 5), 2)
        before[..., 0] = END
        torch.manual_seed(0)
        spoken(network.decoder, memory, before, torch.ones_like(before, dtype=torch.bool), 0.4)
    finally:
        del decoder.advance
    given = torch.stack(seen, dim=2)
    assert (given[..., 0] == END).all(), "the first word before is the start"
    own = [(given[..., i] != 2).float().mean().item() for i in range(1, 5)]
    assert all(0.25 < share < 0.45 for share in own), own  # of the 40 % some happen to be the same word


def test_word_dropout_hides_words_and_never_the_start(network, batch, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        captioning, "spoken", lambda n, m, before, *rest: seen.append(before) or spoken(n, m, before, *rest)
    )
    batch["words"] = batch["words"].expand(2, 2, 5).repeat(1, 100, 1)
    batch["targets"] = batch["targets"].repeat(1, 100, 1)
    torch.manual_seed(0)
    learning(CaptionOptions(0.0, word_dropout=0.7)).loss(network, batch)
    true, (before,) = shifted(batch["words"]), seen
    assert (before[..., 0] == END).all()
    assert (before[true == END] == END).all()
    words = (true != END) & (true != UNKNOWN)
    hidden = before[words] != true[words]
    assert (before[words][hidden] == UNKNOWN).all()
    assert 0.65 < hidden.float().mean().item() < 0.75


@pytest.mark.parametrize(("epochs", "count"), [(19, 6), (10, 3), (7, 7), (3, 0), (30, 1)])
def test_self_critical_epochs_are_the_last_ones(network, batch, epochs, count) -> None:
    """`progress` is the number of the epoch over that of all, in float32."""
    reward = Stub(lambda line, index: len(line))
    plan = learning(CaptionOptions(0.0, self_critical=count, samples=2), reward=reward, epochs=epochs)
    rewarded = []
    for epoch in range(epochs):
        reward.asked.clear()
        batch["progress"] = torch.tensor(epoch / epochs)
        plan.loss(network, batch)
        rewarded += [epoch] if reward.asked else []
    assert rewarded == list(range(epochs - count, epochs))


@pytest.mark.parametrize(("in_the_last", "expected"), [(False, [2, 3]), (True, [2, 3, 4, 5])])
def test_the_top_learns_between_its_first_epoch_and_the_self_critical_ones_or_on(batch, in_the_last, expected) -> None:
    network = captioner("top")
    options = CaptionOptions(0.0, top_from=2, self_critical=2, samples=2, self_critical_top=in_the_last)
    plan = learning(options, reward=Stub(lambda line, index: len(line)), epochs=6)
    learnt = []
    for epoch in range(6):
        network.zero_grad()
        batch["progress"] = torch.tensor(epoch / 6)
        plan.loss(network, batch).backward()
        learnt += [epoch] if any(weight.grad is not None for weight in network.decoder.top.parameters()) else []
    assert learnt == expected


def test_self_critical_learning_needs_a_reward(network, batch) -> None:
    with pytest.raises(InputError, match="needs the training captions as its reward"):
        learning(CaptionOptions(0.0, self_critical=10)).loss(network, batch)


def draw(network: CaptionNetwork, batch: dict[str, Tensor], samples: int = 3) -> tuple[list, np.ndarray]:
    """Samples drawn from a fixed seed, and the log-probability of each by teacher forcing in float64, (B, S).

    Among those that can be drawn: without `UNKNOWN`.
    """
    torch.manual_seed(7)
    with torch.no_grad():
        lines = sampled(network, remembered(network, batch), samples, 8)[0].tolist()
    return lines, sentence_scores(network, batch, lines)


def sentence_scores(network: CaptionNetwork, batch: dict[str, Tensor], lines: list) -> np.ndarray:
    table = log_probabilities(network, batch, lines)
    table -= np.log(1 - np.exp(table[..., UNKNOWN : UNKNOWN + 1]))
    return np.array(
        [[sum(table[b, s, i, w] for i, w in enumerate(line) if w != ABSENT) for s, line in enumerate(rows)]
         for b, rows in enumerate(lines)]
    )  # fmt: skip


def self_critical(network: CaptionNetwork, batch: dict[str, Tensor], rewards: Sequence[Sequence[float]]):
    """The loss of the samples of `draw` with rewards that are fixed, and what was scored."""
    flat = [reward for row in rewards for reward in row]
    asked: list[tuple[list[list[int]], list[int]]] = []

    class Fixed:
        def scores(self, candidates: list[list[int]], indices: list[int]) -> np.ndarray:
            asked.append((candidates, indices))
            return np.array(flat, np.float64)

    plan = learning(CaptionOptions(0.0, self_critical=10, samples=3), reward=Fixed())
    torch.manual_seed(7)
    return plan.loss(network, batch), asked


def test_the_self_critical_loss_by_hand(network, batch) -> None:
    """Weights are the rewards minus the mean of the others: (4, 0, 1) -> 3.5, -2.5, -1. The end is rewarded too."""
    loss, asked = self_critical(network, batch, [[4, 0, 1], [2, 2, 2]])
    lines, scores = draw(network, batch)
    said = [[w for w in line if w != ABSENT] for rows in lines for line in rows]
    assert len({tuple(line) for line in said[:3]}) == 3, "samples that differ, or the test says little"
    first = scores[0]
    words = sum(map(len, said))
    assert loss.item() == pytest.approx(-(3.5 * first[0] - 2.5 * first[1] - 1.0 * first[2]) / words, rel=1e-4)
    assert asked == [(said, [0, 0, 0, 1, 1, 1])]


def test_samples_better_than_the_others_become_likelier(network, batch) -> None:
    changed = copy.deepcopy(network)
    loss, _ = self_critical(changed, batch, [[4, 0, 1], [0, 3, 0]])
    loss.backward()
    lines, before = draw(network, batch)
    with torch.no_grad():
        for parameter in changed.decoder.parameters():
            if parameter.grad is not None:
                parameter -= 2e-3 * parameter.grad
    gained = sentence_scores(changed, batch, lines) - before
    assert gained[0, 0] > max(0, gained[0, 1], gained[0, 2])
    assert gained[1, 1] > max(gained[1, 0], gained[1, 2])


def test_equal_rewards_teach_nothing(network, batch) -> None:
    changed = copy.deepcopy(network)
    loss, _ = self_critical(changed, batch, [[2, 2, 2], [5, 5, 5]])
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in changed.parameters())


def test_the_unknown_word_neither_gains_nor_loses_by_what_is_drawn(network, batch) -> None:
    """It is never drawn, so it could only ever gain: bad samples would pour their probability into it."""
    changed = copy.deepcopy(network)
    loss, _ = self_critical(changed, batch, [[4, 0, 1], [0, 3, 0]])
    loss.backward()
    gradient = changed.decoder.word_bias.grad
    assert gradient[UNKNOWN] == 0
    assert gradient[END] != 0


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_samples_are_drawn_from_the_distribution_that_is_changed(network, batch, monkeypatch, rate) -> None:
    """Else its loss has no bound: what a word cost is its share in the very logits that it was drawn from."""
    torch.manual_seed(0)
    shaky = copy.deepcopy(network).train()
    shaky.decoder.dropout.p, shaky.decoder.memory_dropout.p = 0.25, 0.15
    seen: list[Tensor] = []
    draws: list[Tensor] = []
    original = captioning.drawn_from
    monkeypatch.setattr(
        captioning, "drawn_from", lambda logits: seen.append(logits) or draws.append(original(logits)) or draws[-1]
    )
    costs: list[Tensor] = []
    sample = captioning.sampled
    monkeypatch.setattr(captioning, "sampled", lambda *a: costs.append(sample(*a)[1]) or sample(*a))
    options = CaptionOptions(0.0, self_critical=10, samples=40, self_critical_dropout=rate)
    plan = learning(options, reward=Stub(lambda line, index: len(line)))
    plan.loss(shaky, batch)
    assert shaky.training, "it goes on as it was"
    assert (shaky.decoder.dropout.p, shaky.decoder.memory_dropout.p) == (0.25, 0.15)
    first = seen[0].double().log_softmax(dim=-1).gather(-1, draws[0].unsqueeze(-1)).flatten()
    torch.testing.assert_close(costs[0][:, :, 0].flatten().double(), -first, rtol=1e-5, atol=1e-6)
    plain = network.decoder(batch["features"].float(), batch["counts"], torch.zeros(2, 1, 1, dtype=torch.int64))
    undropped = without_unknown(plain[:, :, 0]).repeat(1, 40, 1).flatten(0, 1)
    same = torch.allclose(undropped, seen[0].reshape(undropped.shape), atol=1e-5)
    assert same == (rate == 0), "with the dropout that was asked for, and no other"


def test_sampled_captions_end_and_never_hold_the_unknown_word(network, batch) -> None:
    torch.manual_seed(0)
    drawn, nats = sampled(network, remembered(network, batch), 200, 6)
    assert drawn.shape[:2] == (2, 200)
    assert ((nats > 0) == (drawn != ABSENT)).all()
    assert drawn.shape[2] <= 6
    assert not (drawn == UNKNOWN).any()
    ended = 0
    for line in drawn.flatten(0, 1).tolist():
        if END in line:
            end = line.index(END)
            assert ABSENT not in line[:end]
            assert set(line[end + 1 :]) <= {ABSENT}
            ended += 1
        else:
            assert ABSENT not in line
    assert ended > 0


def test_words_are_drawn_by_their_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0, -torch.inf, 2.0])
    drawn = drawn_from(logits.expand(1, 20000, 5))
    shares = torch.bincount(drawn.flatten(), minlength=5) / 20000
    torch.testing.assert_close(shares, logits.softmax(dim=0), atol=0.015, rtol=0)
    assert shares[3] == 0


def test_what_is_measured(network, batch) -> None:
    """Nats over all words; the greedy captions are handed to the judge, and compared with the words without end."""
    memory = remembered(network, batch)
    with torch.no_grad():
        tokens, lengths, _ = greedy(network, memory, 8)
    said = as_lists(tokens[:, 0], lengths[:, 0])
    batch["words"] = torch.full((2, 2, 9), ABSENT)
    for clip in range(2):
        batch["words"][clip, 0, :2] = torch.tensor([5, END])
    batch["words"][0, 1, : len(said[0]) + 1] = torch.tensor([*said[0], END])
    batch["words"][1, 1, :2] = torch.tensor([6, END])
    batch["targets"] = batch["words"]
    judge = Stub(lambda line, index: 1.5 + index)
    plan = CaptionLearning(CaptionOptions(), 10, 8, judge=judge)
    with torch.no_grad():
        found = plan.measure(network, batch)
    assert judge.asked == [(said, [0, 1])]
    assert found["CIDEr-D"] == (torch.tensor(4.0, dtype=torch.float64), 2)
    assert (found["accuracy"][0].item(), found["accuracy"][1]) == (1, 2)
    words = batch["words"].tolist()
    table = log_probabilities(network, batch, words)
    nats = -sum(table[b, r, i, w] for b in range(2) for r in range(2) for i, w in enumerate(words[b][r]) if w != ABSENT)
    assert found["loss"][0].item() == pytest.approx(nats, rel=1e-5)
    assert found["loss"][1] == 6 + len(said[0]) + 1


def test_pixels_give_what_their_features_give(network, batch) -> None:
    clips = torch.randint(0, 256, (2, 3, 20, 24, 3), dtype=torch.uint8)
    features = network.frame_features(clips.flatten(0, 1)).unflatten(0, (2, 3))
    by_pixels = {**{key: value for key, value in batch.items() if key != "features"}, "clips": clips}
    by_features = {**batch, "features": features}
    torch.testing.assert_close(learning().loss(network, by_pixels), learning().loss(network, by_features))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smoothing": 1.0}, "--label-smoothing is from 0 to below 1, not 1.0"),
        ({"self_critical_dropout": -0.1}, "--self-critical-dropout is from 0 to below 1, not -0.1"),
        ({"word_dropout": -0.1}, "--word-dropout is from 0 to below 1, not -0.1"),
        ({"scheduled_sampling": 2.0}, "--scheduled-sampling is from 0 to below 1, not 2.0"),
        ({"self_critical": -1}, "--self-critical must be at least 0, not -1"),
        ({"samples": 1}, "--samples must be at least 2, not 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_odd_options_are_refused(options, said) -> None:
    with pytest.raises(InputError, match=said):
        CaptionOptions(**options)


def test_the_network_of_these_tests_is_undecided(network, batch) -> None:
    """Otherwise the tests above would show little."""
    table = np.exp(log_probabilities(network, batch, SAID))
    assert table.max() < 0.999
    assert table.shape[-1] == len(WORDS)
