"""The targets in JavaScript: Node and a browser run graphs, and what they answer is judged here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from exporters.targets.base import Target, TargetError
from exporters.targets.known import find_target
from exporters.targets.node import PROGRAM, NodeTarget
from exporters.targets.npm import RELEASE, Package, unpacked
from exporters.targets.prove import prove
from exporters.targets.wire import pack, unpack
from runtime.verify import verify
from tests.bundles import SCALE, write_scale_bundle
from tests.frozen_bundles import unpack as unpack_frozen

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="Node is not on the PATH")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("node", marks=[needs_node, pytest.mark.network]),
        pytest.param("browser", marks=[pytest.mark.browser, pytest.mark.network, pytest.mark.xdist_group("browser")]),
    ],
)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """A target; skips where npm, Node or Chromium is missing."""
    found = find_target(request.param)
    try:
        found.open()
    except TargetError as error:
        pytest.skip(str(error))
    with found:
        yield found


@pytest.mark.parametrize("name", ["caption-attention", "digits-dbn", "timer-lstm"])
def test_recorded_answers_are_given_there(target: Target, tmp_path: Path, name: str) -> None:
    bundle = unpack_frozen(name, tmp_path)
    report = prove(bundle, target)
    assert report.ok
    expected = verify(bundle, threads=1).checks
    assert [(check.output, check.cases) for check in report.checks] == [(one.output, one.cases) for one in expected]
    (proof,) = report.proofs
    assert proof.onnxruntime.endswith(RELEASE)
    assert proof.p50_ms <= proof.p95_ms
    assert not proof.emulated


def test_wrong_answers_are_judged_here(target: Target, tmp_path: Path) -> None:
    report = prove(write_scale_bundle(tmp_path / "scale.edge", SCALE * np.float32(1.001)), target)
    assert not report
    assert report.proofs[0].share > 1


def test_a_graph_that_does_not_load_is_an_answer_and_the_next_one_runs(target: Target, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"[Pp]rotobuf|load"):
        target.session(b"no graph")
    assert prove(write_scale_bundle(tmp_path / "scale.edge"), target)


def test_what_has_ended_is_told_and_begun_again(target: Target, tmp_path: Path) -> None:
    inner = getattr(target, "_tab", None) or getattr(target, "_child", None)
    inner._process.kill()
    inner._process.wait()
    with pytest.raises(TargetError, match="ended"):
        inner.ask({"close": 0})
    assert prove(write_scale_bundle(tmp_path / "scale.edge"), target)


@needs_node
def test_messages_in_javascript_are_those_of_python() -> None:
    kinds = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "bool"]
    tensors = {kind: np.arange(5).astype(kind).reshape(1, 5) for kind in kinds}
    tensors |= {"text": np.array([["é", ""]], object), "empty": np.zeros((0, 3), np.float32), "one": np.array(2.5)}
    message = pack({"run": 3, "names": ["é"]}, tensors)
    program = """
      import { readFileSync, writeSync } from "node:fs";
      import { pack, unpack } from "./wire.js";
      const { header, tensors } = unpack(new Uint8Array(readFileSync(0)).subarray(8));
      writeSync(1, pack(header, tensors));
    """
    command = [str(NODE), "--input-type=module", "-e", program]
    done = subprocess.run(command, input=message, cwd=PROGRAM.parent, capture_output=True, timeout=60, check=True)
    header, found = unpack(done.stdout[8:])
    assert header == {"run": 3, "names": ["é"]}
    assert {name: (array.dtype, array.shape, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.shape, array.tolist()) for name, array in tensors.items()
    }


@pytest.mark.parametrize("missing", ["npm", "node", "browser"])
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing == "npm":
        with pytest.raises(TargetError, match="npm is not on the PATH; it fetches a@1"):
            unpacked("a", (Package("a", "1", "sha512-"), ("dist",)))
    elif missing == "node":
        with pytest.raises(TargetError, match="node is not on the PATH"):
            NodeTarget().open()
    else:
        with pytest.raises(TargetError, match=r"none of chromium, .* is on the PATH"):
            find_target("browser").open()
    assert list((tmp_path / "targets").glob("*")) == [] if (tmp_path / "targets").exists() else True


def test_what_was_not_pinned_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text('#!/bin/sh\nwhile [ "$1" != --pack-destination ]; do shift; done\necho no > "$2/a-1.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("EDGEDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(
        TargetError, match=r"npm gave a a@1 with the integrity sha512-.*, pinned is sha512-x; it is not"
    ):
        unpacked("a", (Package("a", "1", "sha512-x"), ("dist",)))
    assert list((tmp_path / "cache" / "targets").iterdir()) == []
