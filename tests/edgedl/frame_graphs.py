"""Graphs of frame encoders, made once: even a small one takes a second, and those of equal encoders are equal."""

from __future__ import annotations

from typing import Any

import pytest

from edgedl.tasks.caption.network import frame_encoder

GRAPHS: dict[tuple[Any, ...], bytes] = {}


def make_each_graph_once(patch: pytest.MonkeyPatch) -> None:
    """Has equal encoders share their graph for as long as the process lives."""
    make = frame_encoder.frame_graph

    def remembered(network: frame_encoder.FrameEncoder, places: int, features: int) -> bytes:
        encoder = network.encoder
        numbers = tuple((name, value) for name, value in vars(encoder).items() if isinstance(value, int | float))
        weights = tuple(float(tensor.double().sum()) for tensor in encoder.state_dict().values())
        key = (type(encoder), numbers, weights)
        if key not in GRAPHS:
            GRAPHS[key] = make(network, places, features)
        return GRAPHS[key]

    patch.setattr(frame_encoder, "frame_graph", remembered)
