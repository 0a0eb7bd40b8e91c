"""The public age network in int8, on real faces and through the pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.quantize import search
from runtime.bundle import Bundle
from runtime.pipelines.age import AgePipeline
from runtime.processor import processor_class
from runtime.turns import Ratio
from runtime.verify import verify


@pytest.mark.slow
@pytest.mark.data
def test_ages_in_int8_keep_to_the_budget(
    age_bundle: Path,
    shared_data: Path,
    tmp_path: Path,
    portrait_path: Path,
    call: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How fast this machine is decides nothing here; `edgedl quantize` says it."""
    monkeypatch.setattr(search, "compare_speed", lambda *_: Ratio(2.0, 1.9, 2.1))
    path = Path(shutil.copytree(age_bundle, tmp_path / "age.edge"))
    data, elsewhere = shared_data / "utkface-train.zip", tmp_path / "int8.edge"
    words = ("--model", "age", "--max-drop", "0.15", "--samples", "300", "-o", elsewhere, "--json")
    status, out, err = call("quantize", path, "--data", data, *words)
    assert status == 0, err
    (judged,) = json.loads(out)["judgements"]
    assert judged["drop"] <= 0.15
    assert judged["processor"] == processor_class()
    # A third of a year on average: fewer than half of the rounded years change, and some do.
    assert 0.05 < judged["decisions"]["age"]["changed"] / judged["decisions"]["age"]["of"] < 0.5
    bundle = Bundle.open(elsewhere)
    assert verify(bundle, variant="int8").ok
    assert bundle.model("faces").variants.keys() == {"fp32"}
    with AgePipeline.open(bundle, threads=1) as exact, AgePipeline.open(bundle, threads=1, variant="int8") as int8:
        ages = [pipeline.predict(portrait_path)["faces"][0]["age"] for pipeline in (exact, int8)]
    assert ages[0] != ages[1]
    assert abs(ages[0] - ages[1]) < 5
