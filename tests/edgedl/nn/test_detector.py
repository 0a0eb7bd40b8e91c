"""The detector around a network whose candidates a test chooses: letterbox, suppression and blending."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.tasks.age.network.blazeface import BlazeFace
from edgedl.tasks.age.network.detector import (
    CANDIDATE_THRESHOLD,
    IOU_THRESHOLD,
    MAX_FACES,
    SCORE_THRESHOLD,
    CrowdDetector,
    FaceDetector,
)


class Candidates(nn.Module):
    """Stands in for BlazeFace: gives the same boxes (M, 4), keypoints (M, 6, 2) and scores (M,) for any picture."""

    def __init__(self, boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 1, dtype=torch.float64)
        self.count = len(scores)
        self.candidates = SimpleNamespace(
            boxes=torch.from_numpy(boxes), keypoints=torch.from_numpy(keypoints), scores=torch.from_numpy(scores)
        )
        self.seen: list[torch.Tensor] = []

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(pictures)
        numbers = torch.arange(self.count, dtype=torch.float64)  # whose offsets they are
        return self.candidates.scores.logit()[None], numbers[None, :, None].expand(-1, -1, 16)

    def middles(self, cells: torch.Tensor, width: int) -> torch.Tensor:
        assert width == self.seen[-1].shape[3]
        return torch.stack([cells, cells], dim=-1)

    def decode(self, offsets: torch.Tensor, middles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert torch.equal(middles[:, 0].to(offsets.dtype), offsets[:, 0])
        which = offsets[:, 0].long()
        return self.candidates.boxes[which], self.candidates.keypoints[which]


def crowd(seed: int, people: int = 6, each: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates that cluster about some faces, as a detector's do, with scores on either side of the threshold."""
    chance = np.random.default_rng(seed)
    middle = chance.uniform(20, 170, (people, 1, 2))
    side = chance.uniform(10, 50, (people, 1, 1))
    middles = (middle + chance.normal(0, 0.12, (people, each, 2)) * side).reshape(-1, 2)
    halves = (side * np.exp(chance.normal(0, 0.15, (people, each, 2)))).reshape(-1, 2) / 2
    boxes = np.concatenate([middles - halves, middles + halves], axis=1)
    keypoints = middles[:, None] + chance.normal(0, 5, (people * each, 6, 2))
    return boxes, keypoints, chance.uniform(0.2, 0.99, people * each)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across * down
    return across * down / area


def blended_suppression(
    boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain loops: keep the best, give it every candidate that overlaps it and no better kept one, average, go on."""
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > SCORE_THRESHOLD]
    kept: list[int] = []
    for i in order:
        if all(iou(boxes[i], boxes[k]) <= IOU_THRESHOLD for k in kept):
            kept.append(i)
    members: dict[int, list[int]] = {k: [] for k in kept}
    for i in order:
        owner = next((k for k in kept if iou(boxes[i], boxes[k]) > IOU_THRESHOLD), None)
        if owner is not None:
            members[owner].append(i)
    mean = {k: scores[m] / scores[m].sum() for k, m in members.items()}
    return (
        np.array([mean[k] @ boxes[members[k]] for k in kept]),
        scores[kept],
        np.array([np.tensordot(mean[k], keypoints[members[k]], 1) for k in kept]),
    )


@pytest.mark.parametrize("seed", range(12))
def test_blending_is_that_of_plain_loops(seed):
    candidates = crowd(seed)
    detector = FaceDetector(Candidates(*candidates)).eval()
    boxes, scores, keypoints = (t.numpy() for t in detector(torch.zeros(192, 192, 3, dtype=torch.uint8)))
    expected = blended_suppression(*candidates)
    assert len(scores) >= 2
    np.testing.assert_allclose(boxes, expected[0], atol=1e-9)
    np.testing.assert_allclose(scores, expected[1], atol=1e-12)
    np.testing.assert_allclose(keypoints, expected[2], atol=1e-9)
    assert (np.diff(scores) <= 0).all()


def test_answers_are_in_pixels_of_the_photo():
    """A photo of 384 x 100: half the size, and seven rows of border above."""
    box = np.array([[40.0, 10.0, 60.0, 40.0]])
    keypoints = np.tile([[50.0, 27.0]], (1, 6, 1)).reshape(1, 6, 2)
    detector = FaceDetector(Candidates(box, keypoints, np.array([0.9]))).eval()
    boxes, _, points = detector(torch.zeros(100, 384, 3, dtype=torch.uint8))
    assert boxes.tolist() == [[80, 6, 120, 66]]
    assert points[0].tolist() == [[100, 40]] * 6


def test_a_small_photo_is_looked_at_as_it_is():
    box = np.array([[10.0, 10.0, 30.0, 40.0]])
    network = Candidates(box, np.full((1, 6, 2), 20.0), np.array([0.9]))
    boxes, _, points = FaceDetector(network).eval()(torch.zeros(64, 96, 3, dtype=torch.uint8))
    assert network.seen[0].shape == (1, 3, 64, 96)
    assert boxes.tolist() == box.tolist()
    assert points[0].tolist() == [[20, 20]] * 6


def test_the_network_sees_minus_one_to_one_on_a_black_border():
    network = Candidates(np.array([[1.0, 1, 9, 9]]), np.zeros((1, 6, 2)), np.array([0.9]))
    image = torch.zeros(100, 192, 3, dtype=torch.uint8)
    image[..., 0] = 255
    FaceDetector(network).eval()(image)
    (picture,) = network.seen
    assert picture.shape == (1, 3, 128, 192), "no more border than a whole cell of the deepest map needs"
    assert picture[0, :, 0, 0].tolist() == [-1, -1, -1], "the border"
    assert picture[0, :, 64, 96].tolist() == [1, -1, -1], "red"


@pytest.mark.parametrize("size", [(192, 192), (1, 1), (31, 500)], ids=str)
def test_no_face_gives_empty_arrays_of_the_declared_shapes(size):
    candidates = crowd(0)
    detector = FaceDetector(Candidates(*candidates[:2], np.full(54, 0.4))).eval()
    boxes, scores, keypoints = detector(torch.zeros(*size, 3, dtype=torch.uint8))
    assert (boxes.shape, scores.shape, keypoints.shape) == ((0, 4), (0,), (0, 6, 2))


def test_a_score_at_the_threshold_is_no_face():
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    detector = FaceDetector(Candidates(boxes, np.zeros((2, 6, 2)), np.array([0.5, 0.51]))).eval()
    assert detector(torch.zeros(192, 192, 3, dtype=torch.uint8))[0].tolist() == [[50, 50, 60, 60]]


def test_at_most_so_many_faces():
    grid = np.array([[x, y, x + 8.0, y + 8.0] for y in range(0, 190, 12) for x in range(0, 190, 12)])
    scores = np.linspace(0.6, 0.9, len(grid))
    detector = FaceDetector(Candidates(grid, np.zeros((len(grid), 6, 2)), scores)).eval()
    boxes, found, _ = detector(torch.zeros(192, 192, 3, dtype=torch.uint8))
    assert len(grid) > MAX_FACES == len(boxes)
    np.testing.assert_allclose(found.numpy(), np.sort(scores)[::-1][:MAX_FACES])


def test_an_untrained_network_runs_at_once():
    torch.manual_seed(0)
    detector = FaceDetector(BlazeFace(), score_threshold=0.999999).eval()
    with torch.no_grad():
        boxes, scores, keypoints = detector(torch.zeros(50, 70, 3, dtype=torch.uint8))
    assert len(boxes) == len(scores) == len(keypoints)


@pytest.fixture(scope="module")
def untrained() -> BlazeFace:
    """Its scores lie on either side of 0.5: it finds a great many faces."""
    torch.manual_seed(3)
    return BlazeFace().double().eval()


def picture(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("size", [(64, 64), (192, 192), (96, 160)], ids=str)
def test_the_crowd_detector_sees_what_need_not_be_shrunk_as_the_detector_does(untrained, size):
    """Where nothing is to be resized and nothing to be filled, both are the same network on the same pixels."""
    with torch.no_grad():
        logits, _ = untrained((picture(*size).double().permute(2, 0, 1)[None] - 127.5) / 127.5)
        threshold = float(logits.sigmoid().quantile(0.98))
        expected = FaceDetector(untrained, threshold)(picture(*size))
        found = CrowdDetector(untrained, threshold)(picture(*size))
    assert len(found[1]) > 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-9)


def test_the_crowd_detector_fills_up_with_black(untrained):
    threshold = 0.3
    filled = torch.zeros(128, 160, 3, dtype=torch.uint8)
    filled[:97, :131] = picture(97, 131)
    with torch.no_grad():
        detector = CrowdDetector(untrained, threshold)
        for one, other in zip(detector(picture(97, 131)), detector(filled), strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
            assert len(one) > 3


def test_the_crowd_detector_gives_what_may_be_a_face():
    """Candidates above the threshold are given, those below are not; each cell has one, counted row by row."""

    class Cells(nn.Module):
        """Two cells of a picture of 64 x 96 stand out."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 1, 1, dtype=torch.float64)

        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert pictures.shape == (1, 3, 64, 96)
            scores = torch.full((16, 24), 0.9 * CANDIDATE_THRESHOLD, dtype=torch.float64)
            scores[3, 20], scores[10, 2] = 1.1 * CANDIDATE_THRESHOLD, 0.9
            return scores.reshape(1, -1).logit(), torch.zeros(1, 16 * 24, 16, dtype=torch.float64)

        def middles(self, cells: torch.Tensor, width: int) -> torch.Tensor:
            return BlazeFace.middles(self, cells, width)

        def decode(self, offsets: torch.Tensor, anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.cat([anchors - 6, anchors + 6], dim=1), anchors[:, None].expand(-1, 6, 2)

    boxes, scores, keypoints = CrowdDetector(Cells())(torch.zeros(60, 90, 3, dtype=torch.uint8))
    np.testing.assert_allclose(scores.numpy(), [0.9, 1.1 * CANDIDATE_THRESHOLD])
    assert boxes.tolist() == [[10 - 6, 42 - 6, 10 + 6, 42 + 6], [82 - 6, 14 - 6, 82 + 6, 14 + 6]]
    assert keypoints[1, 0].tolist() == [82, 14]
