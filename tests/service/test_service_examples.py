"""``GET /v1/NAME/example``: what it gives is what was recorded, and asks its bundle as it is."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.pipelines import load
from service.app import create_app
from tests.bundles import write_scale_bundle
from tests.frozen_bundles import NAMES, unpack
from tests.service.fake_pipeline import FakePipeline


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_answers_its_own_example(name: str, tmp_path: Path) -> None:
    bundle = unpack(name, tmp_path)
    client = create_app([("served", bundle)], threads=1).test_client()
    (listed,) = client.get("/v1").get_json()["bundles"]
    assert listed["example"] == "/v1/served/example"
    example = client.get(listed["example"])
    assert example.status_code == 200
    assert example.content_type == "application/json"
    answer = client.post(listed["url"], data=example.data, content_type="application/json")
    assert answer.status_code == 200, answer.data
    assert len(answer.get_json()["results"]) == 1

    paths = client.get("/openapi.json").get_json()["paths"]
    described = paths["/v1/served/example"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert described == paths["/v1/served"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    body = example.get_json()
    recorded = [case.inputs for model in bundle.manifest.models for case in bundle.golden(model)]
    if "prompt" in body:
        assert 0 < len(body["prompt"]) <= 32
    elif "image" in body:
        found = pixels(body["image"])
        arrays = [array for inputs in recorded for array in inputs.values() if array.dtype == np.uint8]
        assert any(np.array_equal(found, one) for array in arrays for one in (array, array[0]))
    elif "images" in body:
        found = np.stack([pixels(one) for one in body["images"]])
        first = recorded[0]
        assert np.array_equal(found, first["clips"][0, : first["counts"][0]])
    else:
        (model,) = bundle.manifest.models.values()
        carried = {state.input for state in model.state}
        assert body["inputs"].keys() == {tensor.name for tensor in model.inputs} - carried
        given = {name: np.array(value) for name, value in body["inputs"].items()}
        assert all(len(array) == 1 for array in given.values()), "one row"
        assert any(
            all(np.array_equal(inputs[name], array.astype(inputs[name].dtype)) for name, array in given.items())
            for inputs in recorded
        ), "to the last bit"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("timer", "sgd", "longlag"))])
def test_the_described_arrays_take_what_the_route_takes(name: str, tmp_path: Path) -> None:
    """The schema and the route agree about an example, and about what differs from it in one thing."""
    bundle = unpack(name, tmp_path, declared=True)
    client = create_app([("served", bundle)], threads=1).test_client()
    paths = client.get("/openapi.json").get_json()["paths"]
    schema = paths["/v1/served"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = client.get("/v1/served/example").get_json()
    first = min(body["inputs"])

    def changed(**inputs: object) -> dict[str, object]:
        return {"inputs": body["inputs"] | inputs}

    flat = np.array(body["inputs"][first])
    whole = flat.dtype.kind == "i"
    trials = {
        "the example": (body, True),
        "a number with a fraction of zero": (changed(**{first: flat.astype(float).round().tolist()}), True),
        "text": (changed(**{first: "x"}), False),
        "a fraction": (changed(**{first: (flat + 0.5).tolist()}), not whole),
        "more than the type holds": (changed(**{first: np.full(flat.shape, 1e39).tolist()}), False),
        "one axis more": (changed(**{first: [body["inputs"][first]]}), False),
        "another input": (changed(other=[1]), False),
        "no inputs": ({"inputs": {}}, False),
        "another key": (body | {"more": 1}, False),
    }
    for what, (sent, fits) in trials.items():
        status = client.post("/v1/served", json=sent).status_code
        assert (status == 200) is fits, (what, status)
        assert conforms(sent, schema) is fits, what


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as far as arrays of numbers need it."""
    match schema["type"]:
        case "object":
            known = schema["properties"]
            return (
                isinstance(value, dict)
                and value.keys() <= known.keys()
                and value.keys() >= set(schema["required"])
                and all(conforms(one, known[name]) for name, one in value.items())
            )
        case "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 10**9)
            return (
                isinstance(value, list)
                and least <= len(value) <= most
                and all(conforms(one, schema["items"]) for one in value)
            )
        case kind:
            number = type(value) in (int, float) and (kind == "number" or float(value).is_integer())
            return (
                number
                and schema.get("minimum", -np.inf) <= value <= schema.get("maximum", np.inf)
                and schema.get("exclusiveMinimum", -np.inf) < value < schema.get("exclusiveMaximum", np.inf)
            )


def test_the_longest_row_that_people_can_read_is_taken(tmp_path: Path) -> None:
    timer = create_app([unpack("timer-lstm", tmp_path)], threads=1).test_client().get("/v1/timer/example").get_json()
    assert np.array(timer["inputs"]["u"]).shape == (1, 20, 2)


def test_a_bundle_without_recorded_inputs_says_so() -> None:
    client = create_app([FakePipeline()]).test_client()
    assert client.get("/v1").get_json()["bundles"][0]["example"] is None
    answer = client.get("/v1/age/example")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
    assert "no recorded input" in answer.get_json()["detail"]
    assert client.get("/v1/nobody/example").status_code == 404


def test_a_clip_has_no_more_frames_than_a_request_may(tmp_path: Path) -> None:
    bundle = unpack("caption-mean", tmp_path)

    class Long(type(load(bundle))):  # type: ignore[misc]
        def example(self) -> np.ndarray:
            return np.zeros((9, 8, 6, 3), np.uint8)

    client = create_app([Long.open(bundle, threads=1)], max_images=4).test_client()
    example = client.get("/v1/caption/example")
    assert len(example.get_json()["images"]) == 4
    assert client.post("/v1/caption", data=example.data, content_type="application/json").status_code == 200


def test_recorded_inputs_that_were_changed_on_disk_are_not_shown(tmp_path: Path) -> None:
    write_scale_bundle(tmp_path / "scale.edge")
    client = create_app([load(tmp_path / "scale.edge")]).test_client()
    assert client.get("/v1/scale/example").status_code == 200
    (tmp_path / "scale.edge" / "scale.golden.npz").write_bytes(b"something else")
    answer = client.get("/v1/scale/example")
    assert answer.status_code == 404
    assert "can no longer be read" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("faces of a collection", "faces of a collection"),
        ({"name": "digits", "n": 1438}, "digits, 1,438 samples"),
        ({"name": 3}, None),
        (None, None),
    ],
    ids=["words", "name and number", "something else", "nothing"],
)
def test_what_a_network_was_learnt_from_is_listed(tmp_path: Path, data: object, told: str | None) -> None:
    from service.bundles.served import Served

    bundle = write_scale_bundle(tmp_path / "scale.edge")
    bundle.manifest.provenance.clear()  # type: ignore[attr-defined]
    bundle.manifest.provenance.update({} if data is None else {"data": data})  # type: ignore[attr-defined]
    described = Served(load(bundle)).describe()
    assert described["data"] == told
    assert described["metrics"][0]["value"] == 4.75


def test_the_examples_of_the_embedded_data_are_of_them() -> None:
    """The clips that a captioner of bouncing digits records are validation clips, as evaluation has them."""
    pytest.importorskip("sklearn", reason="the embedded digits are scikit-learn's")
    from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits, example_clips

    clips = example_clips(3)
    validation = BouncingDigits().split("val")
    shown = [validation.media(index) for index in range(len(validation))]
    for clip in clips:
        assert clip.shape == (10, 64, 64, 3)
        assert any(np.array_equal(clip, other) for other in shown)
