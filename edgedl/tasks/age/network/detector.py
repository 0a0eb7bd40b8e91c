"""The whole face detector as one graph: a photo of any size in; boxes, scores and keypoints in its pixels out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgedl.tasks.age.network.blazeface import KEYPOINTS, BlazeFace
from exporters.image import letterbox, non_maximum_suppression

SCORE_THRESHOLD = 0.5
IOU_THRESHOLD = 0.3
MAX_FACES = 100
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


class FaceDetector(nn.Module):
    """uint8 RGB photo (H, W, 3) -> boxes (D, 4) as x1 y1 x2 y2, scores (D,), keypoints (D, 6, 2), best first.

    Every answer is the mean, weighted by score, of the candidates that overlap its best one (the "blending" of
    Bazarevsky et al. 2019, section 3.3): steadier than the best candidate alone.
    """

    def __init__(self, network: BlazeFace, score_threshold: float = SCORE_THRESHOLD) -> None:
        super().__init__()
        self.network = network
        self.score_threshold = score_threshold

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the faces; see the class for shapes."""
        dtype = self.network.anchors.dtype
        picture, placement = letterbox(image, self.network.size, dtype=dtype)  # (1, 3, S, S), (3,)
        logits, offsets = self.network((picture - HALF_RANGE) / HALF_RANGE)
        scores = logits[0].sigmoid()  # (M,)
        # Decoding and comparing the few candidates that can be a face, L of M, saves a tenth of the whole graph.
        live = (scores > self.score_threshold).nonzero()[:, 0]  # (L,)
        scores = scores[live]
        boxes, keypoints = self.network.decode(offsets[0, live], self.network.anchors[live])  # (L, 4), (L, 6, 2)

        kept = non_maximum_suppression(
            boxes,
            scores,
            iou_threshold=IOU_THRESHOLD,
            score_threshold=self.score_threshold,
            max_detections=MAX_FACES,
        )  # (D,)
        overlaps = _overlap(boxes[kept], boxes) > IOU_THRESHOLD  # (D, L)
        # A candidate counts for the best answer that it overlaps: answers are sorted, so for the first one.
        taken = overlaps.to(dtype).cumsum(dim=0)
        weights = torch.where(overlaps & (taken == 1), scores, torch.zeros_like(scores))  # (D, L)
        weights = weights / weights.sum(dim=1, keepdim=True)
        blended_boxes = weights @ boxes  # (D, 4)
        blended_keypoints = (weights @ keypoints.flatten(1)).reshape(-1, len(KEYPOINTS), 2)  # (D, 6, 2)

        scale, shift = placement[0], placement[1:]
        corners = (blended_boxes.reshape(-1, 2, 2) - shift) / scale
        return corners.flatten(1), scores[kept], (blended_keypoints - shift) / scale
