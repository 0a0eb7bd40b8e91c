"""Small networks for the exporter's tests; one of them is trained, since an untrained one proves little."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.image import resize_images
from exporters.spec import Case, Input, Output

CLASSES = 5
IMAGE = Input("image", "uint8", ("N", "H", "W", 3), layout="NHWC", meaning="RGB")
OUTPUTS = (
    Output("probabilities", "float32", ("N", CLASSES), decision="argmax"),
    Output("level", "float32", ("N",), unit="class", decision="round"),
)


class SmallClassifier(nn.Module):
    """Pixels of any size -> which of five kinds the picture is: a 3×3, a depthwise, a 1×1 convolution, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def logits(self, image: Tensor) -> Tensor:
        x = resize_images(image, (16, 16)) / 127.5 - 1
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(self.pointwise(self.depthwise(x)))
        return self.head(x.mean(dim=(2, 3)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        probabilities = self.logits(image).softmax(dim=1)
        classes = torch.arange(CLASSES, dtype=probabilities.dtype)
        return {"probabilities": probabilities, "level": (probabilities * classes).sum(dim=1)}


def pictures(count: int, generator: torch.Generator, height: int = 20, width: int = 24) -> tuple[Tensor, Tensor]:
    """Noisy pictures (N, H, W, 3) whose kind shows in their redness and in a vertical ramp of green."""
    kinds = torch.randint(0, CLASSES, (count,), generator=generator)
    image = (
        torch.rand(count, 1, 1, 3, generator=generator) * 40
        + torch.rand(count, height, width, 3, generator=generator) * 30
    )
    image[..., 0] += kinds[:, None, None] * 35
    image[..., 1] += torch.linspace(0, 1, height)[None, :, None] * kinds[:, None, None] * 25
    return image.clamp(0, 255).to(torch.uint8), kinds


def train_classifier(steps: int = 150) -> SmallClassifier:
    """A classifier that has learnt something, in two seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SmallClassifier()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        image, kinds = pictures(64, generator)
        loss = F.cross_entropy(network.logits(image), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def picture_cases() -> list[Case]:
    """Batches of 1, 2, 7 and 32, sizes from one pixel up, and the edges."""
    generator = torch.Generator().manual_seed(2)
    cases = []
    for count, height, width in [
        (1, 20, 24), (2, 31, 33), (7, 16, 16), (32, 20, 24), (3, 57, 40), (1, 1, 1), (4, 9, 50), (2, 64, 128)
    ]:  # fmt: skip
        image, _ = pictures(count, generator, height, width)
        cases.append(Case(f"{count} of {height}x{width}", {"image": image.contiguous().numpy()}))
    cases.append(Case("black", {"image": np.zeros((2, 20, 24, 3), np.uint8)}))
    cases.append(Case("white", {"image": np.full((1, 21, 24, 3), 255, np.uint8)}))
    return cases


class Perceptron(nn.Module):
    """Two linear layers and a nonlinearity."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.second = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def perceptron() -> Perceptron:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Perceptron().eval()


VECTOR = Input("x", "float32", ("N", 6))
SCORES = Output("y", "float32", ("N", 3))
