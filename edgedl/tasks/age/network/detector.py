"""The whole face detector as one graph: a photo in; boxes, scores and keypoints in its pixels out.

`FaceDetector` shrinks a photo to the size that the network was trained for. `CrowdDetector` looks at the
pixels as they are, however many, and gives what may be a face as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.tasks.age.network.blazeface import KEYPOINTS, SIZE, STEP, BlazeFace
from exporters.image import letterbox, non_maximum_suppression

SCORE_THRESHOLD = 0.5
IOU_THRESHOLD = 0.3
CANDIDATE_THRESHOLD = 0.08
"""Of the crowd's look. One in thirty faces of 13 pixels has a lower score, and so have six of seven other things that
score 0.04. Further looks tell which are faces."""

MAX_FACES = 100
MAX_CANDIDATES = 150
"""Of the crowd's look: each costs half a millisecond more."""

HALF_RANGE = 127.5
"""The network takes levels as (level - 127.5) / 127.5; the letterbox's border is black, as in its training."""


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (D, 4) and (M, 4) boxes: (D, M)."""
    corner1 = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    corner2 = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = (corner2 - corner1).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]

    def area(b: Tensor) -> Tensor:
        return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])

    return intersection / (area(boxes)[:, None] + area(others)[None, :] - intersection)


def _blended(
    boxes: Tensor, scores: Tensor, keypoints: Tensor, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Every answer is the mean, weighted by score, of the candidates that overlap its best one.

    This is the "blending" of Bazarevsky et al. 2019, section 3.3: steadier than the best candidate alone.

    Args:
        boxes: (L, 4).
        scores: (L,).
        keypoints: (L, 6, 2).
        threshold: scores are above it.
        most: D at most.

    Returns:
        Boxes (D, 4), scores (D,) and keypoints (D, 6, 2), best first.
    """
    kept = non_maximum_suppression(
        boxes, scores, iou_threshold=IOU_THRESHOLD, score_threshold=threshold, max_detections=most
    )  # (D,)
    overlaps = _overlap(boxes[kept], boxes) > IOU_THRESHOLD  # (D, L)
    # A candidate counts for the best answer that it overlaps: answers are sorted, so for the first one.
    taken = overlaps.to(boxes.dtype).cumsum(dim=0)
    weights = torch.where(overlaps & (taken == 1), scores, torch.zeros_like(scores))  # (D, L)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights @ boxes, scores[kept], (weights @ keypoints.flatten(1)).reshape(-1, len(KEYPOINTS), 2)


class FaceDetector(nn.Module):
    """uint8 RGB photo (H, W, 3) -> boxes (D, 4) as x1 y1 x2 y2, scores (D,), keypoints (D, 6, 2), best first.

    A photo is shrunk until its longest side has 192 pixels; a smaller one is looked at as it is. The network runs on no
    more than the photo's own shape: a photo of 3:2 takes two thirds of the square's time.
    """

    def __init__(self, network: BlazeFace, score_threshold: float = SCORE_THRESHOLD) -> None:
        super().__init__()
        self.network = network
        self.score_threshold = score_threshold

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the faces; see the class for shapes."""
        dtype = self.network.stem.weight.dtype
        picture, placement = letterbox(image, SIZE, STEP, dtype=dtype)  # (1, 3, h, w), (3,)
        logits, offsets = self.network((picture - HALF_RANGE) / HALF_RANGE)
        scores = logits[0].sigmoid()  # (M,)
        # Decoding and comparing the few candidates that can be a face, L of M, saves a tenth of the whole graph.
        live = (scores > self.score_threshold).nonzero()[:, 0]  # (L,)
        middles = self.network.middles(live, picture.shape[3])  # (L, 2)
        boxes, keypoints = self.network.decode(offsets[0, live], middles)  # (L, 4), (L, 6, 2)
        boxes, scores, keypoints = _blended(boxes, scores[live], keypoints, self.score_threshold, MAX_FACES)

        scale, shift = placement[0], placement[1:]
        corners = (boxes.reshape(-1, 2, 2) - shift) / scale
        return corners.flatten(1), scores, (keypoints - shift) / scale


class CrowdDetector(nn.Module):
    """uint8 RGB pixels (H, W, 3) -> boxes (D, 4) as x1 y1 x2 y2, scores (D,), keypoints (D, 6, 2), best first.

    The network is fully convolutional, so it looks at any number of pixels; they are not resized. What it gives below
    `SCORE_THRESHOLD` is to be confirmed by a `FaceDetector` on a close-up.
    """

    def __init__(self, network: BlazeFace, score_threshold: float = CANDIDATE_THRESHOLD) -> None:
        super().__init__()
        self.network = network
        self.score_threshold = score_threshold

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds what may be a face; see the class for shapes."""
        dtype = self.network.stem.weight.dtype
        height, width = image.shape[0], image.shape[1]
        # Black up to whole cells of the deepest map, as the letterbox of `FaceDetector` is.
        rows, columns = (_cells(side) for side in (height, width))
        pixels = image.permute(2, 0, 1).unsqueeze(0).to(dtype)
        picture = F.pad(pixels, (0, columns * STEP - width, 0, rows * STEP - height))
        logits, offsets = self.network((picture - HALF_RANGE) / HALF_RANGE)
        scores = logits[0].sigmoid()  # (M,)
        live = (scores > self.score_threshold).nonzero()[:, 0]  # (L,)
        boxes, keypoints = self.network.decode(offsets[0, live], self.network.middles(live, columns * STEP))
        return _blended(boxes, scores[live], keypoints, self.score_threshold, MAX_CANDIDATES)


def _cells(side: int) -> int:
    """Cells of the deepest map along a side of so many pixels."""
    return (side + STEP - 1) // STEP
