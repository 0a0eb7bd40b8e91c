"""``edgedl bench --tune`` and ``--against``, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import SCALE, scale_graph, write_scale_bundle

QUICK = ("--seconds", "0.01", "--threads", "1")

MODULE = """
import torch
from torch import nn

class Scale(nn.Module):
    def forward(self, x):
        return x * torch.tensor([2.0, -1.0, 0.5])

class Other(nn.Module):
    def forward(self, x):
        return x @ torch.ones(7, 2)
"""


def test_tune_names_the_options(edgedl, scale_bundle, tmp_path: Path) -> None:
    picture = tmp_path / "tuned.png"
    result = edgedl("bench", scale_bundle, "--tune", *QUICK, "-o", picture)
    assert (result.status, result.err) == (0, "")
    assert "cpu,spinning=off" in result.out
    assert "the fastest here: --device" in result.out or "the defaults are the fastest here" in result.out
    with Image.open(picture) as image:
        assert image.width > 400
    document = edgedl("bench", scale_bundle, "--tune", *QUICK, "--json").document
    assert set(document["best"]) == {"device", "threads", "variant"}
    assert edgedl("verify", scale_bundle, "--device", document["best"]["device"]).status == 0
    assert document["machine"]["processor"]


@pytest.mark.parametrize("kind", ["bundle", "onnx", "torch"])
def test_against(edgedl, scale_bundle, tmp_path: Path, kind: str) -> None:
    """Twice the scale: the answers are as far apart as the recorded ones are large."""
    other = tmp_path / "other.onnx"
    other.write_bytes(scale_graph(2 * SCALE))
    if kind == "bundle":
        other = write_scale_bundle(tmp_path / "other.edge", 2 * SCALE, recorded=2 * SCALE, name="other").path
    if kind == "torch":
        (tmp_path / "theirs.py").write_text(MODULE)
        other = Path(f"{tmp_path / 'theirs.py'}:Scale")
    document = edgedl("bench", scale_bundle, "--against", other, *QUICK, "--json").document
    assert (document["model"], document["threads"]) == ("scale", 1)
    one = document["batches"]["1"]
    assert one["ratio"]["low"] <= one["ratio"]["median"] <= one["ratio"]["high"]
    assert one["p50_ms"] > 0
    x = np.random.default_rng(3).normal(size=(1, 3)).astype(np.float32)
    apart = 0.0 if kind == "torch" else float(np.abs(x * SCALE).max())
    assert one["difference"] == pytest.approx(apart)
    assert set(document["batches"]) == {"1", "8"}


def test_against_draws(edgedl, scale_bundle, tmp_path: Path) -> None:
    result = edgedl("bench", scale_bundle, "--against", scale_bundle, *QUICK, "-o", tmp_path / "ratios.png")
    assert (result.status, result.err) == (0, "")
    assert "times as fast" in result.out
    with Image.open(tmp_path / "ratios.png") as image:
        assert image.width > 400


def test_what_cannot_be_compared_is_refused(edgedl, scale_bundle, linear_onnx: Path, tmp_path: Path) -> None:
    result = edgedl("bench", scale_bundle, "--against", linear_onnx, *QUICK)
    assert (result.status, result.out) == (2, "")
    assert "takes a float32" in result.err
    assert "takes x float32 [N, 3]" in result.err
    (tmp_path / "strange.py").write_text(MODULE)
    result = edgedl("bench", scale_bundle, "--against", f"{tmp_path / 'strange.py'}:Other", *QUICK)
    assert (result.status, result.out) == (2, "")
    assert "does not take the inputs of the bundle's model scale" in result.err
    assert edgedl("bench", scale_bundle, "--against", "nothing.edge", *QUICK).status == 2


@pytest.fixture
def linear_onnx(tmp_path: Path) -> Path:
    """A graph with one input more."""
    from onnx import TensorProto, helper

    numbers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "aby"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "sum", numbers[:2], numbers[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path / "sum.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "x.png"), "give --tune or --against"),
        (("--model", "scale"), "say what --against compares"),
        (("--tune", "--against", "b.edge"), "not allowed with"),
        (("--seconds", "0"), "seconds"),
    ],
)
def test_options_that_do_not_go_together(edgedl, scale_bundle, options: tuple[str, ...], message: str) -> None:
    result = edgedl("bench", scale_bundle, *options)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
