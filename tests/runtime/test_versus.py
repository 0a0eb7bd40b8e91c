"""One model against something else: which way the ratio goes, and what is fed to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from runtime import versus as module
from runtime.bundle import Bundle
from runtime.turns import Ratio, Times
from runtime.versus import opened, versus
from tests.bundles import write_scale_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge")


def test_a_ratio_above_1_is_a_faster_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(ways: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Times]:
        assert list(ways) == ["ours", "theirs"]
        return {"ours": Times((0.001,), (0.002,)), "theirs": Times((0.003,), (0.008,))}

    monkeypatch.setattr(module, "in_turns", timed)
    fed = []
    with opened(bundle, device="cpu", threads=1) as (engine, inputs):
        one, eight = versus(engine, inputs, lambda feed: fed.append(feed["x"].shape) or {"y": feed["x"] * 0})
    assert (one.rows, eight.rows, fed) == (1, 8, [(1, 3), (8, 3)])
    assert (one.wall, one.cpu) == (Ratio(3.0, 3.0, 3.0), Ratio(4.0, 4.0, 4.0))
    assert (one.ours.p50_ms, one.theirs.p50_ms) == (1.0, 3.0)
    first = bundle.golden("scale")[0]
    assert one.difference == pytest.approx(float(np.abs(first.outputs["y"]).max()))
