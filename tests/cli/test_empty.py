"""``edgedl predict`` of nothing: an answer or one sentence and exit status 2, never an abort."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.axes import input_dimensions
from tests.frozen_bundles import ARRAYS, MINIMA, NAMES, RECURRENT, unpack


@pytest.mark.parametrize("declared", [False, True], ids=["as it was", "with ranges"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_nothing(name: str, declared: bool, edgedl: Callable[..., Any], tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path, declared=declared)
    ((model, spec),) = bundle.manifest.models.items()
    carried = {state.input for state in spec.state}
    for empty in input_dimensions(spec):
        arrays = {
            tensor.name: np.zeros(
                [0 if s == empty else 1 if isinstance(s, str) else s for s in tensor.shape], tensor.dtype
            )
            for tensor in spec.inputs
            if tensor.name not in carried
        }
        np.savez(tmp_path / "nothing.npz", **arrays)
        done = edgedl("predict", bundle.path, tmp_path / "nothing.npz", "--json", "--threads", "1")
        (result,) = done.document["results"]
        if MINIMA[model][empty] if declared else empty == "T":
            assert (done.status, result["error"]["type"]) == (2, "InputError")
            assert f"{empty} is 0, the bundle takes 1" in done.err
        else:
            assert done.status == 0, done.err
            assert not any(np.any(value) for value in result["outputs"].values())


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("age", "digits", "caption"))])
@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 5, 5, 3)], ids=str)
def test_pictures_of_nothing(name: str, shape: tuple[int, ...], edgedl: Callable[..., Any], tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    np.save(tmp_path / "nothing.npy", np.zeros(shape, np.uint8))
    (tmp_path / "nothing.png").write_bytes(b"")
    for file in ("nothing.npy", "nothing.png"):
        done = edgedl("predict", bundle.path, tmp_path / file, "--threads", "1")
        assert done.status == 2
        assert "Traceback" not in done.err
        assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in RECURRENT if name != "chars"])
def test_lines_of_nothing(
    name: str, edgedl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = unpack(name, tmp_path, declared=True)
    zeros = " ".join("0" * bundle.manifest.models[bundle.manifest.task].inputs[0].shape[-1])
    bad = ["[]", "[[]]", "{}", ",", '{"u": []}', f"1e39 {zeros[2:]}", f"nan {zeros[2:]}", '["0", true]']
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["", zeros, *bad, "", zeros, ""])))
    done = edgedl("predict", bundle.path, "--stream", "--threads", "1")
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == len(bad)
    answers = done.out.strip().splitlines()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{zeros}\n{zeros}\n"))
    assert answers == edgedl("predict", bundle.path, "--stream", "--threads", "1").out.strip().splitlines()


def test_a_text_of_nothing(edgedl: Callable[..., Any], tmp_path: Path) -> None:
    bundle = unpack("chars", tmp_path, declared=True)
    (tmp_path / "nothing.txt").write_bytes(b"")
    done = edgedl("predict", bundle.path, tmp_path / "nothing.txt", "--length", "5", "--json", "--threads", "1")
    assert done.status == 0, done.err
    assert len(done.document["results"][0]["text"]) == 5
