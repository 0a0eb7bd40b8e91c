"""Where words looked: shares that sum to one, on the frames and at the places where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgedl.tasks.caption.network.attention import AttentionDecoder
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.tasks.caption.plot import look
from runtime.errors import InputError
from runtime.vocabulary import Vocabulary
from tests.edgedl.tasks.captioners import VOCABULARY, captioner

WORDS = Vocabulary(("</s>", "<unk>", "zero", "one", "two", "three"))


def blocks(count: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def test_the_captions_are_those_of_the_network() -> None:
    network, pixels = captioner("attention"), blocks()
    looked = look(network, VOCABULARY, pixels)
    with torch.no_grad():
        tokens, _, scores = network(torch.from_numpy(pixels).unsqueeze(0), torch.tensor([3]))
    assert [caption.text for caption in looked.captions] == [VOCABULARY.decode(row.tolist()) for row in tokens[0]]
    assert [caption.score for caption in looked.captions] == pytest.approx(scores[0].tolist(), abs=1e-5)
    words = len(looked.captions[0].text.split())
    assert looked.attention is not None
    assert looked.attention.shape == (words, 3, 4, 4)
    assert words == 7
    np.testing.assert_allclose(looked.attention.sum(axis=(1, 2, 3)), 1, atol=1e-6)
    assert looked.attention.min() >= 0


def test_mean_pooling_looks_nowhere() -> None:
    looked = look(captioner("mean"), VOCABULARY, blocks())
    assert looked.attention is None
    assert looked.captions[0].text


def test_a_caption_without_words_looks_nowhere() -> None:
    network = captioner("attention")
    with torch.no_grad():
        network.decoder.word_bias[0] = 1000
    looked = look(network, VOCABULARY, blocks())
    assert looked.captions[0].text == ""
    assert looked.attention is not None
    assert looked.attention.shape == (0, 3, 4, 4)


def fixed(network: CaptionNetwork, place: int) -> CaptionNetwork:
    """Its decoder looks at one place, counted over the frames and their grids."""
    decoder = network.decoder
    assert isinstance(decoder, AttentionDecoder)

    def attend(query, memory):
        return torch.eye(memory[1].shape[1])[place].expand(*query.shape[:2], -1)

    decoder.attend = attend  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize(
    ("place", "where"), [(0, (0, 0, 0)), (6, (0, 1, 2)), (16 + 15, (1, 3, 3)), (32 + 8, (2, 2, 0))]
)
def test_places_are_cells_of_the_grid_of_a_frame(place: int, where: tuple[int, int, int]) -> None:
    looked = look(fixed(captioner("attention"), place), VOCABULARY, blocks())
    assert looked.attention is not None
    assert len(looked.attention) >= 1
    for word in looked.attention:
        assert word[where] == 1


def embedded(word: int) -> CaptionNetwork:
    """The embedded captioner, looking at one visual word; it says "one", whatever it sees."""
    torch.manual_seed(0)
    encoder = StridedEncoder(4)
    with torch.no_grad():
        encoder.words.weight *= 30
    decoder = AttentionDecoder(encoder.features, len(WORDS), embedding=4, hidden=8, pooled=True)
    with torch.no_grad():
        decoder.word_bias[3] = 50
    return fixed(CaptionNetwork(encoder, decoder, beam=1, max_length=2).eval(), word)


@pytest.mark.parametrize("word", [0, 3])
def test_a_visual_word_lies_where_there_is_evidence_for_it(word: int) -> None:
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    for frame, corner in enumerate((0, 16, 36)):
        pixels[frame, corner : corner + 28, corner : corner + 28] = np.arange(28)[:, None, None] * 9
    network = embedded(word)
    looked = look(network, WORDS, pixels)
    assert looked.captions[0].text == "one one"
    assert looked.attention is not None
    assert looked.attention.shape == (2, 3, 8, 8)
    with torch.no_grad():
        levels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        evidence = network.encoder.evidence(levels)[:, word].sigmoid().double().numpy()
    assert evidence.std() > 0.01
    for shares in looked.attention:
        np.testing.assert_allclose(shares, evidence / evidence.sum(), atol=1e-6)


def test_features_without_a_square_grid_cannot_be_drawn() -> None:
    network = captioner("attention")
    network.decoder.places = 0
    second = network.encoder.second
    network.encoder.second = torch.nn.Sequential(second, torch.nn.ZeroPad2d((0, 1, 0, 0)))
    with pytest.raises(InputError, match="20 places a frame, which make no square grid"):
        look(network, VOCABULARY, blocks())
