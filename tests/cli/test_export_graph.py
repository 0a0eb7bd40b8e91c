"""``edgedl export model.onnx``: an existing graph becomes a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.pipelines import load
from service.app import create_app

GRAPHS = Path(__file__).parent.parent / "exporters" / "graphs"


def test_a_file_becomes_a_bundle_that_is_verified_and_served(edgedl, tmp_path: Path):
    source = GRAPHS / "sklearn_scaled_logistic_with_maps.onnx"
    result = edgedl("export", source, "-o", tmp_path / "b.edge", "--json")
    assert result.status == 0, result.err
    provenance = result.document["manifest"]["provenance"]
    assert (provenance["source"], provenance["reference"]) == (source.name, "onnx.reference float64")
    assert edgedl("verify", tmp_path / "b.edge").status == 0
    with load(tmp_path / "b.edge") as pipeline:
        answers = pipeline.predict({"X": np.zeros((2, 4), np.float32)})["outputs"]
    assert np.shape(answers["probabilities"]) == (2, 3)
    client = create_app([tmp_path / "b.edge"]).test_client()
    posted = client.post("/v1/sklearn_scaled_logistic_with_maps", json={"inputs": {"X": np.zeros((2, 4)).tolist()}})
    assert posted.status_code == 200
    np.testing.assert_array_equal(posted.json["results"][0]["outputs"]["probabilities"], answers["probabilities"])
    refused = edgedl("export", source, "-o", tmp_path / "c.edge", "--opset", "18")
    assert refused.status == 2
    assert "--opset is for networks" in refused.err


def test_samples_bring_their_answers(edgedl, tmp_path: Path):
    source = GRAPHS / "sklearn_clusters.onnx"
    rng = np.random.default_rng(0)
    samples = []
    for rows in range(1, 9):
        x = rng.standard_normal((rows, 4)).astype(np.float32)
        with load(_bundle(edgedl, source, tmp_path)) as pipeline:
            answers = {name: np.asarray(array) for name, array in pipeline.predict({"X": x})["outputs"].items()}
        np.savez(tmp_path / f"{rows}.npz", X=x, **answers)
        samples += ["--sample", str(tmp_path / f"{rows}.npz")]
    result = edgedl("export", source, *samples, "-o", tmp_path / "given.edge", "--json")
    assert result.status == 0, result.err
    assert result.document["manifest"]["provenance"]["reference"] == "given answers"
    assert result.document["manifest"]["models"]["sklearn_clusters"]["examples"] == "real"


def _bundle(edgedl, source: Path, folder: Path) -> Path:
    path = folder / "b.edge"
    if not path.exists():
        assert edgedl("export", source, "-o", path).status == 0
    return path
