"""``edgedl predict --stream``: a line in, a line out, as it comes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.export import export
from exporters.spec import Input, Output
from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.manifest import StateSpec


class Counter(nn.Module):
    """An Elman network with a state that goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.RNN(2, 4, batch_first=True)

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        y, hn = self.recurrent(x, h0)
        return y.sum(-1), hn


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        Counter().eval(),
        tmp_path_factory.mktemp("bundles") / "counter.edge",
        name="counter",
        task="generic",
        inputs=[Input("x", "float32", ("B", "T", 2)), Input("h0", "float32", (1, "B", 4))],
        outputs=[Output("y", "float32", ("B", "T")), Output("hn", "float32", (1, "B", 4))],
        state=[StateSpec("h0", "hn", (1, "B", 4), "float32")],
        untrained=True,
    )


STEPS = np.array([[0.5, -1], [0.25, 2], [3, 0]], np.float32)
TEXT = "0.5 -1\n\n0.25,2\n[3, 0]\n"


def whole(bundle: Bundle) -> list[float]:
    """What one call of all steps answers."""
    with Engine(bundle.graph("counter"), spec=bundle.manifest.models["counter"]) as engine:
        answers: list[float] = engine.run(STEPS[None], np.zeros((1, 1, 4), np.float32))["y"][0].tolist()
    return answers


def test_lines_answer_as_one_call(edgedl, bundle, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    result = edgedl("predict", bundle.path, "--stream")
    assert result.status == 0
    np.testing.assert_allclose([float(line) for line in result.out.splitlines()], whole(bundle), atol=1e-6)


def test_documents_and_a_line_that_is_no_step(edgedl, bundle, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("0.5 -1\nnonsense\n0.25 2\n"))
    result = edgedl("predict", bundle.path, "--stream", "--json")
    assert result.status == 2
    first, wrong, second = (json.loads(line) for line in result.out.splitlines())
    np.testing.assert_allclose([first["y"], second["y"]], whole(bundle)[:2], atol=1e-6)
    assert wrong == {"ok": False, "error": "'nonsense' in 'nonsense' is no number"}
    assert result.err == "edgedl: line 2: 'nonsense' in 'nonsense' is no number\n"


def test_each_line_is_answered_before_the_next_is_there(bundle):
    command = [sys.executable, "-m", "edgedl", "predict", str(bundle.path), "--stream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line, expected in zip(("0.5 -1\n", "0.25 2\n"), whole(bundle), strict=False):
            process.stdin.write(line)
            process.stdin.flush()
            assert float(process.stdout.readline()) == pytest.approx(expected, abs=1e-6)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("arguments", [("clip.mp4", "--stream"), ("--stream", "--save", "somewhere")])
def test_a_stream_takes_standard_input_only(edgedl, bundle, arguments):
    result = edgedl("predict", bundle.path, *arguments)
    assert result.status == 2
    assert "--stream reads standard input" in result.err


def test_nothing_to_predict(edgedl, bundle):
    result = edgedl("predict", bundle.path)
    assert (result.status, result.out) == (2, "")
    assert "name an input" in result.err


def test_a_model_without_state_has_no_steps(edgedl, scale_bundle: Path):
    result = edgedl("predict", scale_bundle, "--stream")
    assert result.status == 2
    assert "declares no state" in result.err
