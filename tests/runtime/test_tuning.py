"""The search for the fastest options: what is taken, what is not, and what it may not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime import tuning
from runtime.bundle import Bundle, write_bundle
from runtime.errors import DeviceError
from runtime.manifest import Variant
from runtime.tuning import Way, tune
from runtime.turns import Times
from tests.bundles import SCALE, scale_graph, write_scale_bundle

Cost = Callable[[str], tuple[float, ...]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_scale_bundle(tmp_path / "scale.edge")


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cost], list[set[str]]]:
    """Sets what each way takes; gives back the groups of ways that are timed together."""

    def use(cost: Cost) -> list[set[str]]:
        groups: list[set[str]] = []

        def timed(ways: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Times]:
            for call in ways.values():
                call()  # they run
            groups.append(set(ways))
            return {name: Times(cost(name), cost(name)) for name in ways}

        monkeypatch.setattr(tuning, "in_turns", timed)
        return groups

    return use


def with_variant(bundle: Bundle, path: Path, graph: bytes) -> Bundle:
    """The bundle with a second form of its graph."""
    model = bundle.model("scale")
    files = {name: bundle.read(name) for name in ("scale.onnx", "scale.golden.npz")}
    other = Variant("scale.int8.onnx", hashlib.sha256(graph).hexdigest(), len(graph))
    models = {"scale": replace(model, variants={**model.variants, "int8": other})}
    extra = {entry.file: bundle.read(entry.file) for entry in bundle.manifest.files.values()}
    return write_bundle(path, replace(bundle.manifest, models=models), {**files, **extra, "scale.int8.onnx": graph})


def test_what_is_faster_than_the_spread_is_taken(bundle: Bundle, costs) -> None:
    def cost(way: str) -> tuple[float, ...]:
        time = 1.0
        if "spinning=off" in way:
            time *= 0.5
        if "graph=basic" in way:
            time *= 0.99  # too little
        if "arena=own" in way:
            return (0.5 * time, 0.5 * time, 0.9 * time, 1.4 * time)  # faster in the middle, and within the spread
        return (time,) * 4

    costs(cost)
    tuned = tune(bundle, threads=1)
    assert tuned.best == Way("cpu,spinning=off", 1, "fp32")
    assert tuned.default == Way("cpu", 1, "fp32")
    assert (tuned.ratio.median, str(tuned.best)) == (0.5, "--device cpu,spinning=off --threads 1 --variant fp32")
    assert [str(trial.way) for trial in tuned.trials if trial.taken] == [str(tuned.best)]


def test_each_step_begins_at_the_best_before_it(bundle: Bundle, costs) -> None:
    groups = costs(lambda way: (0.5 if "graph=off" in way else 1.0,) * 4)
    tune(bundle, threads=1)
    assert "--device cpu --threads 1 --variant fp32" in groups[0]
    assert all("graph=off" in way for way in groups[1])
    assert groups[-1] == {
        "--device cpu --threads 1 --variant fp32",
        "--device cpu,graph=off --threads 1 --variant fp32",
    }


def test_nothing_faster_leaves_the_defaults(bundle: Bundle, costs) -> None:
    costs(lambda way: (1.0,) * 4)
    tuned = tune(bundle, threads=1)
    assert tuned.best == tuned.default
    assert tuned.to_json()["is_default"] is True
    assert not any(trial.taken for trial in tuned.trials)


def test_threads_are_tried_unless_they_are_given(bundle: Bundle, costs, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = tuning.thread_budget()
    monkeypatch.setattr(tuning, "thread_budget", lambda: budget._replace(affinity=6, chosen=3))
    groups = costs(lambda way: (1.0,) * 4)
    tune(bundle)
    assert groups[0] == {f"--device cpu --threads {count} --variant fp32" for count in (1, 2, 3, 4, 6)}


def test_a_variant_is_tried_and_taken(bundle: Bundle, tmp_path: Path, costs) -> None:
    both = with_variant(bundle, tmp_path / "both.edge", scale_graph(SCALE))
    costs(lambda way: (0.5 if "int8" in way else 1.0,) * 4)
    assert tune(both, threads=1).best.variant == "int8"


def test_other_answers_are_never_the_fastest(bundle: Bundle, tmp_path: Path, costs) -> None:
    wrong = with_variant(bundle, tmp_path / "wrong.edge", scale_graph(SCALE * np.float32(1.01)))
    costs(lambda way: (0.5 if "int8" in way else 1.0,) * 4)
    tuned = tune(wrong, threads=1)
    assert tuned.best.variant == "fp32"
    assert [trial.note for trial in tuned.trials if trial.way.variant == "int8"] == [
        "not the recorded answers: scale.y"
    ]


def test_a_device_that_cannot_be_had(bundle: Bundle) -> None:
    with pytest.raises(DeviceError):
        tune(bundle, device="abacus", threads=1)


def test_the_bundle_stays_as_it_was(bundle: Bundle) -> None:
    before = {file.name: file.read_bytes() for file in bundle.path.iterdir()}
    tuned = tune(bundle, threads=1, seconds=0.0)
    assert {file.name: file.read_bytes() for file in bundle.path.iterdir()} == before
    assert all(trial.p50_ms is not None and trial.p50_ms > 0 for trial in tuned.trials)
