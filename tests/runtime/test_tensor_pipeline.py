"""Arrays in, arrays out: the pipeline of a bundle whose graph does everything."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from runtime import npy
from runtime.bundle import Bundle
from runtime.errors import BundleError, InputError
from runtime.pipelines import load
from runtime.pipelines.tensors import TensorPipeline
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.fixture
def pipeline(tmp_path):
    with load(write_scale_bundle(tmp_path / "scale.edge").path, threads=1) as opened:
        yield opened


def stored(save, *arrays, **named) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def test_every_form_of_the_input_gives_the_same(pipeline, tmp_path):
    npy, npz = stored(np.save, X), stored(np.savez, x=X)
    (tmp_path / "x.npy").write_bytes(npy)
    (tmp_path / "x.npz").write_bytes(npz)
    for source in (X, npy, npz, {"x": X}, tmp_path / "x.npy", str(tmp_path / "x.npz")):
        assert pipeline.predict(source) == {"outputs": {"y": (X * SCALE).tolist()}}


def test_an_empty_batch_is_an_empty_answer(pipeline):
    assert pipeline.predict(X[:0]) == {"outputs": {"y": []}}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"\xff\xd8\xff\xe0", r"the body is not a \.npy or \.npz file.*takes x"),
        (b"", "the body is not"),
        (stored(np.save, X)[:-3], "the body is not"),
        (stored(np.savez, x=X)[:-30], "the body is not"),
        (stored(np.save, np.array([{"a": 1}], object), allow_pickle=True), "the body is not"),
        (stored(np.savez, x=np.array([{"a": 1}], object)), "the body is not"),
        (stored(np.savez, z=X), "z"),
        (stored(np.savez, x=X, z=X), "z"),
        (X.astype(np.float64), "float64"),
        (X[:, :2], "2"),
        (X[0], "3"),
    ],
    ids=["jpeg", "nothing", "cut npy", "cut npz", "pickle", "pickle in npz", "other name", "one too many", "dtype",
         "width", "rank"],
)  # fmt: skip
def test_what_does_not_fit_is_an_input_error(pipeline, source, said):
    with pytest.raises(InputError, match=said) as caught:
        pipeline.predict(source)
    assert "\n" not in str(caught.value)


def test_an_npz_that_unpacks_to_more_than_is_read_is_refused(pipeline, monkeypatch):
    bomb = stored(np.savez_compressed, x=np.zeros((1_000_000, 3), np.float32))
    assert len(bomb) < 100_000
    monkeypatch.setattr(npy, "MAX_NPZ_BYTES", 10_000_000)
    with pytest.raises(InputError, match="unpacks to 12000"):
        pipeline.predict(bomb)


def test_a_missing_file_is_named(pipeline, tmp_path):
    with pytest.raises(InputError, match=r"none\.npy is not a"):
        pipeline.predict(tmp_path / "none.npy")


@pytest.fixture
def sums(tmp_path):
    with load(write_sums_bundle(tmp_path / "sums.edge").path, threads=1) as opened:
        yield opened


def test_a_whole_sequence_needs_no_state(sums):
    """x [2, 3, 2], summed along time; the state is one more summand, and zeros if it is not given."""
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    expected = {"y": np.cumsum(x, axis=1).tolist(), "sn": x.sum(axis=1).tolist()}
    for source in (x, {"x": x}, stored(np.save, x), stored(np.savez, x=x)):
        assert sums.predict(source) == {"outputs": expected}
    begun = sums.predict({"x": x, "s0": np.full((2, 2), 100, np.float32)})["outputs"]
    assert begun == {name: (np.array(value) + 100).tolist() for name, value in expected.items()}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"s0": np.zeros((2, 2), np.float32)}, "input 'x' is missing"),
        ({"x": np.zeros((2, 3), np.float32)}, r"got the shape \[2, 3\]"),
        ({"x": np.zeros((2, 3, 2), np.float32), "z": X}, "unknown input 'z'"),
        ({"x": np.zeros((2, 3, 2), np.float32), "s0": np.zeros((3, 2), np.float32)}, "elsewhere in the same call"),
    ],
    ids=["only the state", "rank", "stranger", "rows of the state"],
)
def test_a_sequence_that_does_not_fit_is_an_input_error(sums, source, said):
    with pytest.raises(InputError, match=said):
        sums.predict(source)


def test_options_are_refused(pipeline):
    with pytest.raises(InputError, match="'scaling' has no option distribution"):
        pipeline.predict(X, distribution=True)


def test_there_is_nothing_to_draw(pipeline):
    with pytest.raises(InputError, match="no picture"):
        pipeline.draw(X, {})


def test_it_closes_its_engine(tmp_path):
    with load(write_scale_bundle(tmp_path / "b.edge").path) as opened:
        opened.predict(X)
    with pytest.raises(Exception, match="closed"):
        opened.predict(X)


def test_several_models_need_a_pipeline_of_their_own(tmp_path):
    bundle = Bundle.open(write_scale_bundle(tmp_path / "b.edge").path)
    models = dict(bundle.manifest.models)
    bundle.manifest = dataclasses.replace(bundle.manifest, models=models | {"other": models["scale"]})
    with pytest.raises(BundleError, match=r"only a bundle with a single model.*scale, other"):
        TensorPipeline(bundle)
