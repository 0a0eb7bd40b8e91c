"""The small encoder: where each visual word is, as rows, columns and a name."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from edgedl.tasks.caption.network.strided import GRID, LOGITS, SIZE, StridedEncoder
from exporters.convert import convert, rename_axes
from exporters.spec import Input, Output, Signature

WORDS = 7


@pytest.fixture(scope="module")
def encoder() -> StridedEncoder:
    torch.manual_seed(2)
    encoder = StridedEncoder(WORDS).eval()
    with torch.no_grad():
        encoder.words.weight *= 20  # else all is likely to one half, and a wrong axis would hardly show
    return encoder


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Gray frames with something different in every place."""
    gray = np.random.default_rng(0).integers(0, 256, (3, 1, SIZE // 4, SIZE // 4)).repeat(4, axis=2).repeat(4, axis=3)
    return torch.from_numpy(gray.repeat(3, axis=1)).float()


def test_a_row_of_words(encoder: StridedEncoder, frames: torch.Tensor) -> None:
    with torch.no_grad():
        maps = encoder(frames)
    assert maps.shape == (3, encoder.features, 1, WORDS)
    assert encoder.features == 2 * GRID + 1 + WORDS
    assert encoder.size == SIZE == 64
    along = maps[:, : 2 * GRID]
    assert float(along.min()) >= 0
    assert float(along.max()) <= 1


def test_features_are_the_evidence_looked_at_along_each_axis(encoder: StridedEncoder, frames: torch.Tensor) -> None:
    with torch.no_grad():
        evidence, maps = encoder.evidence(frames).numpy(), encoder(frames).numpy()
    assert evidence.shape == (3, WORDS, GRID, GRID)
    likely = 1 / (1 + np.exp(-evidence.astype(np.float64)))
    assert likely.max() - likely.min() > 0.2
    for item in range(3):
        for word in range(WORDS):
            grid = likely[item, word]
            rows = [max(grid[row, column] for column in range(GRID)) for row in range(GRID)]
            columns = [max(grid[row, column] for row in range(GRID)) for column in range(GRID)]
            name = [float(other == word) for other in range(WORDS)]
            expected = [*rows, *columns, evidence[item, word].max() / LOGITS, *name]
            assert maps[item, :, 0, word] == pytest.approx(expected, abs=1e-6)


def test_what_moves_down_moves_along_the_rows(encoder: StridedEncoder) -> None:
    """The first axis of the grid is that of the rows."""
    spots = torch.zeros(2, 3, SIZE, SIZE)
    spots[0, :, 4:12, 28:36] = 255  # above the middle
    spots[1, :, 52:60, 28:36] = 255  # below it
    with torch.no_grad():
        empty = encoder.evidence(torch.zeros(1, 3, SIZE, SIZE))
        changed = (encoder.evidence(spots) - empty).abs().sum(dim=1)  # (2, g, g)
    rows = changed.sum(dim=2)
    centre = (rows * torch.arange(GRID)).sum(dim=1) / rows.sum(dim=1)
    assert centre[0] < GRID / 2 - 1.5
    assert centre[1] > GRID / 2 + 0.5


def test_colours_do_not_count(encoder: StridedEncoder) -> None:
    frames = torch.rand(2, 3, SIZE, SIZE) * 255
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames.flip(1)), encoder(frames), rtol=0, atol=1e-5)


def test_names_are_no_weights(encoder: StridedEncoder) -> None:
    assert not [name for name in encoder.state_dict() if "names" in name]
    assert encoder.double().names.dtype == torch.float64
    encoder.float()


def test_the_graph_answers_as_torch_for_any_number_of_frames(encoder: StridedEncoder, frames: torch.Tensor) -> None:
    maps = Output("maps", "float32", ("N", encoder.features, 1, WORDS))
    signature = Signature([Input("levels", "float32", ("N", 3, SIZE, SIZE))], [maps])
    model = convert(encoder, {"levels": frames.numpy()}, signature, 18).model
    rename_axes(model, signature)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 2, 3):
        with torch.no_grad():
            expected = encoder(frames[:count]).numpy()
        (found,) = session.run(None, {"levels": frames[:count].numpy()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
