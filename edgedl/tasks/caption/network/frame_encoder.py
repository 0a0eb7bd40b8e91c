"""A frozen encoder as the graph that it becomes on a device: frames in, features out."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.convert import convert, rename_axes
from exporters.denormals import flush_denormals
from exporters.errors import ParityError
from exporters.image import resize_images
from exporters.optimize import flush_graph, flush_module
from exporters.reference import one_thread
from exporters.spec import Input, Output, Signature
from runtime.engine import Engine

OPSET = 18

PROBE_TOLERANCE = 1e-3
"""Of the largest feature. ONNX Runtime and torch differ by 1e-5; a mean of 127.5 instead of 127 moves the features of
EfficientNet-Lite0 by more than this."""


class FrameEncoder(nn.Module):
    """Frames (N, H, W, 3) uint8 RGB of any size -> features (N, P, F); the arithmetic of `CaptionNetwork`.

    Args:
        encoder: maps levels 0..255 (N, 3, S, S) to features (N, F, g, g), P = g·g; has the attribute ``size``, S. It is
            copied, to float32 and evaluation mode, and its denormal weights become zero.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).cpu().float()
        self.size = int(encoder.size)  # type: ignore[arg-type]  # a plain int attribute
        flush_module(self)
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """Resizes, encodes, and lays out the grid row by row."""
        grid: Tensor = self.encoder(resize_images(frames, (self.size, self.size)))  # (N, F, g, g)
        return grid.flatten(2).transpose(1, 2)


def probe_picture(size: int) -> NDArray[np.uint8]:
    """Coarse and fine random structure, (1, H, W, 3), of another size and shape than the encoder's (size, size)."""
    chance = np.random.default_rng(7)
    height, width = size + size // 2, size + size // 4
    coarse = chance.integers(0, 192, (1, -(-height // 16), -(-width // 16), 3))
    fine = chance.integers(0, 64, (1, height, width, 3))
    return (coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width] + fine).astype(np.uint8)


@one_thread()
@flush_denormals()
def probe(network: FrameEncoder) -> NDArray[np.float32]:
    """The answer of torch to the probe picture, (P, F): tells what an encoder computes, its code included."""
    with torch.no_grad():
        answer = network(torch.from_numpy(probe_picture(network.size)))
    return np.asarray(answer[0].numpy(), np.float32)


def same_answer(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether two answers to the probe are of one encoder."""
    return found.shape == expected.shape and bool(
        np.abs(found - expected).max() <= PROBE_TOLERANCE * np.abs(expected).max()
    )


def frame_graph(network: FrameEncoder, places: int, features: int) -> bytes:
    """The ONNX graph: ``frames`` (N, H, W, 3) uint8 -> ``features`` (N, P, F), any N, H and W."""
    signature = Signature(
        (Input("frames", "uint8", ("N", "H", "W", 3)),), (Output("features", "float32", ("N", places, features)),)
    )
    example = np.random.default_rng(0).integers(0, 256, (2, 37, 41, 3), dtype=np.uint8)
    with one_thread():
        model = convert(network, {"frames": example}, signature, OPSET).model
    rename_axes(model, signature)
    flush_graph(model)
    graph: bytes = model.SerializeToString()
    return graph


def open_frame_encoder(network: FrameEncoder, expected: NDArray[np.float32]) -> Engine:
    """The graph, with one thread for each call; any number of threads may call.

    Args:
        network: what becomes the graph.
        expected: its answer to the probe picture, (P, F), see `probe`.

    Raises:
        ParityError: the graph answers otherwise.
    """
    engine = Engine(frame_graph(network, *expected.shape), threads=1, name="frame encoder")
    answer = engine.run(probe_picture(network.size))["features"][0]
    if not same_answer(answer, expected):
        engine.close()
        raise ParityError(
            f"the graph of {type(network.encoder).__name__} answers otherwise than torch: "
            f"{np.abs(answer - expected).max():.3g} apart, expected {PROBE_TOLERANCE} of {np.abs(expected).max():.3g} "
            "at most; see what edgedl export says of the encoder"
        )
    return engine
