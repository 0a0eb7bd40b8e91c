"""The manifest: every wrong type is named by its place, and what is written is read back the same."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import BundleError
from runtime.fields import BundleWarning
from runtime.manifest import Manifest

SHA = "0" * 64

# The example of DESIGN.md §2, whole, as an exporter from elsewhere would write it.
EXAMPLE: dict[str, Any] = {
    "schema_version": 1,
    "name": "age",
    "version": "1.0.0",
    "task": "age",
    "license": "CC0-1.0",
    "description": "…",
    "models": {
        "age": {
            "variants": {
                "fp32": {"file": "age.onnx", "sha256": SHA, "bytes": 10752978},
                "int8": {
                    "file": "age.int8.onnx",
                    "sha256": "1" * 64,
                    "bytes": 2799174,
                    "error": {"metric": "MAE", "fp32": 5.93, "int8": 6.01},
                },
            },
            "inputs": [
                {"name": "face", "dtype": "uint8", "shape": ["N", "H", "W", 3], "layout": "NHWC", "meaning": "RGB"}
            ],
            "outputs": [
                {"name": "age", "dtype": "float32", "shape": ["N"], "unit": "year"},
                {"name": "probabilities", "dtype": "float32", "shape": ["N", 81]},
            ],
            "dimensions": {"N": {"min": 0}, "H": {"min": 1, "max": 8192}, "W": {"min": 32, "max": 64, "multiple": 4}},
            "state": [{"input": "h0", "output": "hn", "shape": [1, "B", 64], "dtype": "float32", "init": "zeros"}],
            "golden": {"file": "age.golden.npz", "sha256": "2" * 64, "cases": 12},
            "parity": {
                "criterion": "|a-b| <= atol + rtol*|b|",
                "reference": "torch float64",
                "outputs": {"age": {"atol": 1e-3, "rtol": 0.0, "max_abs": 1.1e-5, "noise": 1e-6, "decision": "round"}},
            },
            "trace": {"file": "age.trace.npz", "sha256": "3" * 64},
        }
    },
    "pipeline": {"margin": 0.4, "years": [1, 2]},
    "files": {"notice": {"file": "NOTICE", "sha256": "4" * 64}},
    "metrics": [{"dataset": "utkface", "value": 4.9}],
    "provenance": {"tool": "edgedl 0.1.0"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example with one value replaced; `...` takes the key away."""
    data = copy.deepcopy(EXAMPLE)
    *folders, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    place: Any = data
    for key in folders:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


def test_the_documented_example_is_read_and_written_back_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = Manifest.from_json(EXAMPLE)
    assert manifest.models["age"].inputs[0].shape == ("N", "H", "W", 3)
    assert manifest.models["age"].parity.outputs["age"].decision == "round"
    assert manifest.to_json() == EXAMPLE
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema_version", 2, "schema_version is 2.*update edgedl"),
        ("schema_version", "1", "schema_version is '1'"),
        ("schema_version", True, "schema_version is True"),
        ("schema_version", ..., "schema_version is None"),
        ("name", "../age", "not a flat file name"),
        ("name", ["age"], "not a flat file name"),
        ("task", 7, "task is the number 7, expected a text"),
        ("task", ..., "task is missing"),
        ("models", {}, "models is empty"),
        ("models", [], "models is a list, expected an object"),
        ("models/age/variants", {}, "variants is empty"),
        ("models/age/variants/fp32/file", "../../etc/passwd", "models.age.variants.fp32.file.*not a flat file name"),
        ("models/age/variants/fp32/file", "/etc/passwd", "not a flat file name"),
        ("models/age/variants/fp32/file", "a\\b.onnx", "not a flat file name"),
        ("models/age/variants/fp32/file", "C:x", "not a flat file name"),
        ("models/age/variants/fp32/file", ".hidden", "not a flat file name"),
        ("models/age/variants/fp32/file", "a\0b", "not a flat file name"),
        ("models/age/variants/fp32/file", "age.onnx\n", "not a flat file name"),
        ("models/age/variants/fp32/file", "manifest.json", "names manifest.json itself"),
        ("models/age/variants/fp32/sha256", "0" * 63, "expected 64 lower-case hexadecimal digits"),
        ("models/age/variants/fp32/sha256", None, "expected 64 lower-case hexadecimal digits"),
        ("models/age/variants/fp32/bytes", -1, "bytes is the number -1"),
        ("models/age/variants/fp32/bytes", 1.0, "bytes is the number 1.0, expected a whole number"),
        ("models/age/variants/fp32/bytes", True, "bytes is a truth value"),
        ("models/age/inputs", {}, "inputs is an object, expected a list"),
        ("models/age/inputs/0/dtype", "float8", r"models.age.inputs\[0\].dtype is 'float8', expected one of bool"),
        ("models/age/inputs/0/dtype", {}, "dtype is {}"),
        ("models/age/inputs/0/shape", ["N", -3], "holds -3"),
        ("models/age/inputs/0/shape", ["N", 1.5], "holds 1.5"),
        ("models/age/inputs/0/shape", [""], "holds ''"),
        ("models/age/inputs/0/shape", "NHWC", "shape is a text, expected a list"),
        ("models/age/inputs/0/finite", "no", r"inputs\[0\].finite is a text, expected true or false"),
        ("models/age/dimensions", [], "dimensions is a list, expected an object"),
        ("models/age/dimensions/K", {"min": 1}, "dimensions speaks of K, which no tensor has"),
        ("models/age/dimensions/H/min", -1, "models.age.dimensions.H.min is the number -1"),
        ("models/age/dimensions/H/min", 1.0, "min is the number 1.0, expected a whole number"),
        ("models/age/dimensions/H/max", 0, "models.age.dimensions.H takes no size: 1 to 0"),
        ("models/age/dimensions/W/multiple", 0, "multiple is 0, expected at least 1"),
        ("models/age/dimensions/W/multiple", 65, "takes no size: 32 to 64, multiples of 65"),
        ("models/age/outputs/1/name", "age", "outputs gives a name twice: age, age"),
        ("models/age/state/0/init", "random", "init is 'random', expected one of zeros"),
        ("models/age/parity/criterion", "always", "criterion is 'always'"),
        ("models/age/parity/outputs", {"year": {"atol": 1, "rtol": 0}}, "speaks of year, which is no output"),
        ("models/age/parity/outputs/age/atol", float("inf"), "atol is the number inf, expected a finite number"),
        ("models/age/parity/outputs/age/atol", float("nan"), "expected a finite number"),
        ("models/age/parity/outputs/age/atol", -1e-3, "expected a finite number of at least 0"),
        ("models/age/parity/outputs/age/atol", ..., "atol is missing"),
        ("models/age/parity/outputs/age/decision", "coin", "decision is 'coin'"),
        ("models/age/golden/cases", None, "cases is null"),
        ("files/notice/file", "age.onnx", "gives? age.onnx another sha256"),
        ("metrics", [7], r"metrics\[0\] is the number 7, expected an object"),
        ("pipeline", "years", "pipeline is a text"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_wrong_values_are_named_by_their_place(path: str, value: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Manifest.from_json(changed(path, value))


@pytest.mark.parametrize("data", [[], "text", 7, None], ids=str)
def test_a_manifest_that_is_no_object(data: Any) -> None:
    with pytest.raises(BundleError, match="expected an object"):
        Manifest.from_json(data)


@pytest.mark.parametrize("path", ["future", "models/age/future", "models/age/inputs/0/future"])
def test_unknown_keys_warn_and_are_left_aside(path: str) -> None:
    with pytest.warns(BundleWarning, match="unknown keys.*'future'"):
        manifest = Manifest.from_json(changed(path, 1))
    assert manifest.to_json() == EXAMPLE


def test_the_smallest_manifest() -> None:
    small = {key: EXAMPLE[key] for key in ("schema_version", "name", "version", "task")}
    model = {key: EXAMPLE["models"]["age"][key] for key in ("variants", "inputs", "outputs")}
    manifest = Manifest.from_json({**small, "models": {"age": model}})
    assert manifest.models["age"].golden is None
    assert manifest.metrics == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    "models", "models/age", "models/age/variants", "models/age/variants/fp32", "models/age/inputs",
    "models/age/inputs/0", "models/age/inputs/0/shape", "models/age/state", "models/age/golden", "models/age/parity",
    "models/age/parity/outputs", "models/age/parity/outputs/age", "files", "files/notice", "metrics",
    "pipeline", "provenance", "name", "version", "license", "schema_version",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_any_json_anywhere_is_read_or_refused(path: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BundleWarning)
        try:
            manifest = Manifest.from_json(changed(path, value))
        except BundleError:
            return
    assert isinstance(manifest.digests(), dict)
    manifest.to_json()
