"""Decoders: teacher forcing is the step repeated, padding is nothing, and each form is what its paper says."""

import pytest
import torch
from torch import nn

from edgedl.tasks.caption.network.attention import AttendingDecoder, AttentionDecoder, SpatialDecoder
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder, frames_that_count, mean_over_frames
from edgedl.tasks.caption.network.strided import StridedEncoder

F, V = 6, 11


class SmallTop(nn.Module):
    """(N, F, h, w) -> (N, 7, h, w)."""

    features = 7

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(F, self.features, 3, padding=1), nn.BatchNorm2d(self.features), nn.ReLU())

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(grid)
        return found


KINDS = [
    pytest.param(lambda: MeanPoolDecoder(F, V, embedding=5, hidden=8), id="factored"),
    pytest.param(lambda: MeanPoolDecoder(F, V, embedding=5, hidden=8, form="paper"), id="paper"),
    pytest.param(lambda: MeanPoolDecoder(F, V, embedding=5, hidden=8, cell="gru", places=4), id="gru, places kept"),
    pytest.param(lambda: AttentionDecoder(F, V, embedding=5, hidden=8, places=4), id="attention"),
    pytest.param(lambda: AttentionDecoder(F, V, embedding=5, hidden=8, cell="gru"), id="attention, gru"),
    pytest.param(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, places=4), id="spatial"),
    pytest.param(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, cell="gru"), id="spatial, gru"),
    pytest.param(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, top=SmallTop()), id="spatial, top"),
    pytest.param(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, concepts=3), id="spatial, concepts"),
    pytest.param(lambda: AttentionDecoder(F, V, embedding=5, hidden=8, concepts=3), id="attention, concepts"),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def lively(make: object) -> Decoder:
    """A decoder whose answers differ clearly between inputs."""
    decoder = make().double().eval()  # type: ignore[operator]
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
    return decoder


def test_mean_leaves_padding_out() -> None:
    features = torch.arange(2 * 3 * 1 * 1.0).reshape(2, 3, 1, 1)
    assert mean_over_frames(features, torch.tensor([2, 3])).flatten().tolist() == [0.5, 4.0]
    assert frames_that_count(torch.tensor([1, 3]), 3, torch.float32).tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("make", KINDS)
def test_teacher_forcing_is_the_step_repeated(make: object) -> None:
    decoder = lively(make)
    features, counts = torch.randn(3, 2, 4, F).double(), torch.tensor([2, 1, 2])
    tokens = torch.randint(0, V, (3, 2, 5))
    forced = decoder(features, counts, tokens)
    memory = decoder.remember(features, counts)
    state = decoder.begin(memory, 2)
    for index in range(5):
        logits, state = decoder.step(tokens[:, :, index], state, memory)
        torch.testing.assert_close(logits, forced[:, :, index], rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_padding_frames_change_nothing(make: object) -> None:
    decoder = lively(make)
    tokens = torch.randint(0, V, (1, 2, 4))
    short = torch.randn(1, 2, 4, F).double()
    padded = torch.cat([short, 100 * torch.randn(1, 3, 4, F).double()], dim=1)
    counts = torch.tensor([2])
    torch.testing.assert_close(decoder(padded, counts, tokens), decoder(short, counts, tokens), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_a_photo_shown_thirty_times_is_that_photo(make: object) -> None:
    decoder = lively(make)
    tokens, photo = torch.randint(0, V, (1, 2, 4)), torch.randn(1, 1, 4, F).double()
    once, often = (
        decoder(photo, torch.tensor([1]), tokens),
        decoder(photo.expand(1, 30, 4, F), torch.tensor([30]), tokens),
    )
    torch.testing.assert_close(often, once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_rows_and_clips_do_not_touch_each_other(make: object) -> None:
    decoder = lively(make)
    features, counts = torch.randn(2, 2, 4, F).double(), torch.tensor([2, 2])
    tokens = torch.randint(0, V, (2, 3, 4))
    together = decoder(features, counts, tokens)
    for clip in range(2):
        for row in range(3):
            alone = decoder(features[clip : clip + 1], counts[clip : clip + 1], tokens[clip : clip + 1, row : row + 1])
            torch.testing.assert_close(alone[0, 0], together[clip, row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_the_clip_matters(make: object) -> None:
    decoder = lively(make)
    tokens, counts = torch.zeros(1, 1, 3, dtype=torch.int64), torch.tensor([2])
    one, other = (decoder(torch.randn(1, 2, 4, F).double(), counts, tokens) for _ in range(2))
    assert float((one - other).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("make", KINDS)
def test_every_frame_counts_and_their_order_does_not(make: object) -> None:
    decoder = lively(make)
    features, counts = torch.randn(1, 3, 4, F).double(), torch.tensor([3])
    tokens = torch.zeros(1, 1, 3, dtype=torch.int64)
    answer = decoder(features, counts, tokens)
    torch.testing.assert_close(decoder(features.flip(1), counts, tokens), answer, rtol=0, atol=1e-12)
    for frame in range(3):
        other = features.clone()
        other[:, frame] = torch.randn(4, F).double()
        assert float((decoder(other, counts, tokens) - answer).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("make", KINDS)
def test_a_grid_is_the_same_as_its_places_row_by_row(make: object) -> None:
    decoder = lively(make)
    features, counts = torch.randn(2, 3, 2, 2, F).double(), torch.tensor([3, 2])
    for grid, places in zip(
        decoder.remember(features, counts), decoder.remember(features.flatten(2, 3), counts), strict=True
    ):
        assert torch.equal(grid, places)


def telling(concepts: int = 3) -> SpatialDecoder:
    """A decoder whose concepts are neither certain nor out of the question."""
    decoder = lively(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, concepts=concepts))
    assert isinstance(decoder, SpatialDecoder)
    with torch.no_grad():
        decoder.tell.bias.fill_(-2)
    return decoder


def test_a_concept_is_told_unless_no_place_shows_it() -> None:
    decoder = telling()
    features, counts = torch.randn(2, 3, 4, F).double(), torch.tensor([3, 1])
    untold = decoder.untold(decoder.remember(features, counts))
    values = decoder.project(features).relu()
    shows = decoder.tell(values).sigmoid()  # (2, 3, 4, 3)
    hidden = (1 - shows).prod(dim=2)  # (2, 3, 3), of each frame
    expected = [hidden[clip, :count].log().mean(dim=0).exp() for clip, count in enumerate([3, 1])]
    torch.testing.assert_close(torch.exp(-untold), torch.stack(expected), rtol=1e-12, atol=0)
    plain = SpatialDecoder(F, V, embedding=5, hidden=8).double()
    assert plain.untold(plain.remember(features, counts)) is None


def test_what_is_told_is_added_to_what_is_seen_and_moves_no_attention() -> None:
    decoder = telling()
    features, counts = torch.randn(2, 3, 4, F).double(), torch.tensor([3, 2])
    query = torch.randn(2, 5, 8).double()
    memory = decoder.remember(features, counts)
    seen, where = decoder.seen(query, memory)
    told = decoder.told(1 - torch.exp(-decoder.untold(memory)))  # (2, 8)
    with torch.no_grad():
        decoder.told.weight.zero_()
    quiet, same = decoder.seen(query, decoder.remember(features, counts))
    torch.testing.assert_close(where, same, rtol=0, atol=1e-12)
    torch.testing.assert_close(seen, quiet + told[:, None], rtol=0, atol=1e-12)
    assert float(told.detach().abs().max()) > 0.01


def test_a_top_sees_neighbours_and_what_it_is_given_stays_beside_it() -> None:
    decoder = lively(lambda: SpatialDecoder(F, V, embedding=5, hidden=8, top=SmallTop()))
    assert isinstance(decoder, SpatialDecoder)
    assert decoder.top is not None
    features, counts = torch.randn(1, 1, 3, 5, F).double(), torch.tensor([1])
    values = decoder.remember(features, counts)[0]  # (1, H, 15)
    for place in (0, 7):
        other = features.clone()
        other[0, 0, place // 5, place % 5] += 1
        moved = (decoder.remember(other, counts)[0] - values).abs().amax(dim=(0, 1)).view(3, 5) > 0
        near = torch.zeros(3, 5, dtype=torch.bool)
        near[max(place // 5 - 1, 0) : place // 5 + 2, max(place % 5 - 1, 0) : place % 5 + 2] = True
        assert torch.equal(moved & ~near, torch.zeros_like(near)), "only the places around it"
        assert moved.sum() > 1
    with torch.no_grad():
        for parameter in decoder.top.parameters():
            parameter.zero_()
        there, turned = (decoder.remember(grid, counts)[0] for grid in (features, features.flip(3)))
    assert not torch.equal(there, turned)


def test_a_top_that_rests_gets_no_gradient_and_keeps_its_statistics_when_it_learns() -> None:
    decoder = SpatialDecoder(F, V, embedding=5, hidden=8, top=SmallTop()).train()
    assert decoder.top is not None
    statistics = {name: buffer.clone() for name, buffer in decoder.top.named_buffers()}
    for rests in (True, False):
        decoder.top_rests = rests
        decoder(torch.randn(2, 1, 4, F), torch.tensor([1, 1]), torch.zeros(2, 1, 3, dtype=torch.int64)).sum().backward()
        assert all((parameter.grad is None) == rests for parameter in decoder.top.parameters())
        assert decoder.project.weight.grad is not None
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in decoder.top.named_buffers())


@pytest.mark.parametrize("kind", [AttentionDecoder, SpatialDecoder])
def test_attention_goes_with_the_frame_that_it_looks_at(kind: type[AttendingDecoder]) -> None:
    decoder = lively(lambda: kind(F, V, hidden=8))
    features, state = torch.randn(1, 3, 4, F).double(), 3 * torch.randn(1, 2, 8).double()

    def shares(frames: torch.Tensor) -> torch.Tensor:
        """(1, 2, 3): of each frame, all its places together."""
        where = decoder.attend(state, decoder.remember(frames, torch.tensor([3])))
        return where.unflatten(-1, (3, 4)).sum(dim=-1).detach()

    forwards = shares(features)
    assert float((forwards - 1 / 3).abs().max()) > 0.02, "it looks at some frame more than at others"
    torch.testing.assert_close(shares(features[:, [2, 0, 1]]), forwards[..., [2, 0, 1]], rtol=0, atol=1e-12)


def test_attention_sums_to_one_over_the_frames_that_count() -> None:
    decoder = lively(lambda: AttentionDecoder(F, V, hidden=8))
    assert isinstance(decoder, AttendingDecoder)
    memory = decoder.remember(torch.randn(2, 3, 4, F).double(), torch.tensor([1, 3]))
    where = decoder.attend(torch.randn(2, 2, 8).double(), memory)
    torch.testing.assert_close(where.sum(dim=-1), torch.ones(2, 2).double())
    assert float(where[0, :, 4:].detach().abs().max()) == 0


@pytest.mark.parametrize("pooled", [False, True], ids=["frames", "mean of frames"])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("kind", [AttentionDecoder, SpatialDecoder])
def test_the_attention_of_a_caption_is_that_of_its_search(
    kind: type[AttendingDecoder], beam: int, pooled: bool
) -> None:
    """Replaying a caption gives its search's score, so the shares are those by which its words were chosen."""
    decoder = lively(lambda: kind(F, V, hidden=8, pooled=pooled))
    assert isinstance(decoder, AttendingDecoder)
    network = CaptionNetwork(StridedEncoder(3), decoder, beam=beam, max_length=6, length_penalty=0.0).eval()
    memory = decoder.remember(torch.randn(2, 3, 4, F).double(), torch.tensor([3, 2]))
    seen: list[torch.Tensor] = []
    attend = decoder.attend
    decoder.attend = lambda query, memory: seen.append(attend(query, memory)) or seen[-1]  # type: ignore[assignment, func-returns-value]
    tokens, lengths, scores = network.search(memory)
    searched, seen[:] = torch.stack(seen, dim=2), []
    where = decoder.attention(tokens, memory)
    assert where.shape == (2, beam, 6, 4 if pooled else 12)
    torch.testing.assert_close(where.sum(dim=-1), torch.ones(2, beam, 6).double())
    assert pooled or float(where[1, ..., 8:].detach().abs().max()) == 0, "the third frame of the second clip is padding"
    if beam == 1:  # hypotheses of a wider search change places
        steps = searched.shape[2]
        torch.testing.assert_close(where[:, :, :steps], searched, rtol=0, atol=1e-12)
    state = decoder.begin(memory, beam)
    before, total = torch.zeros(2, beam, dtype=torch.int64), torch.zeros(2, beam).double()
    over = torch.zeros(2, beam, dtype=torch.bool)
    for index in range(6):
        logits, state = decoder.step(before, state, memory)
        logits[..., 1] = -torch.inf
        before = tokens[:, :, index]
        said = logits.log_softmax(dim=-1).gather(2, before.unsqueeze(2)).squeeze(2)
        total += said.masked_fill(over, 0)
        over |= before == 0
    torch.testing.assert_close(total, scores)
    assert 0 < int(lengths.max()) <= 6


@pytest.mark.parametrize("form", ["factored", "paper"])
def test_where_the_mean_enters(form: str) -> None:
    """Venugopalan et al.: into the first layer; in the author's default code into the second."""
    decoder = lively(lambda: MeanPoolDecoder(F, V, hidden=8, form=form))  # type: ignore[arg-type]
    tokens, counts = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([1])
    states = []
    for _ in range(2):
        memory = decoder.remember(torch.randn(1, 1, 4, F).double(), counts)
        states.append(decoder.step(tokens, decoder.begin(memory, 1), memory)[1])
    assert torch.equal(states[0][0], states[1][0]) == (form == "factored")
    assert not torch.equal(states[0][2], states[1][2])


@pytest.mark.parametrize("make", KINDS)
def test_the_word_matrix_is_readout_and_word_vectors_in_one(make: object) -> None:
    decoder = lively(make)
    hidden = torch.randn(3, 2, 8).double()
    matrix, bias = decoder.word_matrix()
    torch.testing.assert_close(hidden @ matrix + bias, decoder.logits(hidden), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [AttentionDecoder, SpatialDecoder])
def test_dropout_takes_the_same_channels_at_all_places_of_a_clip(kind: type[AttendingDecoder]) -> None:
    decoder = kind(F, V, hidden=8, memory_dropout=0.5).train()
    values = decoder.remember(torch.ones(40, 2, 4, F), torch.full((40,), 2))[0]
    torch.testing.assert_close(values, values[:, :, :1].expand_as(values), msg="alike places stay alike")
    assert len({tuple(row) for row in values[:, :, 0].tolist()}) > 30, "clips drop channels of their own"
