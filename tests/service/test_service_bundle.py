"""A real bundle behind the service: its engine, its recorded cases, its arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from runtime import pipelines
from runtime.errors import BundleError, CheckFailedError, InputError
from service.app import create_app
from tests.bundles import SCALE, write_scale_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "scale.edge"
    write_scale_bundle(path)
    return path


@pytest.fixture
def client(bundle: Path) -> FlaskClient:
    return create_app([bundle], threads=1).test_client()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_arrays_in_arrays_out(client: FlaskClient) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    response = client.post("/v1/scale", data=npy(x), content_type="application/x-npy")
    assert response.status_code == 200
    assert response.json["results"] == [{"outputs": {"y": (x * SCALE).tolist()}}]


def test_an_array_that_does_not_fit_is_named(client: FlaskClient) -> None:
    response = client.post("/v1/scale", data=npy(np.zeros((2, 4), np.float32)), content_type="application/x-npy")
    assert response.status_code == 422
    assert "x" in response.json["detail"]
    assert "4" in response.json["detail"]


def test_a_photo_is_not_an_array(client: FlaskClient) -> None:
    response = client.post("/v1/scale", data=b"\xff\xd8\xff" + bytes(10), content_type="image/jpeg")
    assert response.status_code == 422
    assert ".npy" in response.json["detail"]


def test_v1_tells_where_it_runs(client: FlaskClient) -> None:
    (bundle,) = client.get("/v1").json["bundles"]
    model = bundle["models"]["scale"]
    assert (model["device"], model["variant"], model["threads"]) == ("cpu", "fp32", 1)
    assert model["provider"] == "CPUExecutionProvider"
    assert model["outputs"] == [
        {"name": "y", "dtype": "float32", "shape": ["N", 3], "layout": None, "meaning": None, "unit": "metre"}
    ]


def test_the_warm_up_runs_a_recorded_case_on_every_engine(bundle: Path) -> None:
    pipeline = pipelines.load(bundle, threads=1)
    shapes = []
    run = pipeline.engine.run

    def recording(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shapes.append(inputs["x"].shape)
        return run(inputs)

    pipeline.engine.run = recording
    client = create_app([pipeline]).test_client()
    assert shapes[0] == (1, 3), "the smallest of the four recorded cases"
    assert client.get("/readyz").status_code == 200


def test_a_closed_engine_does_not_start(bundle: Path) -> None:
    pipeline = pipelines.load(bundle, threads=1)
    pipeline.close()
    with pytest.raises(CheckFailedError, match="engine 'scale' is closed"):
        create_app([pipeline])


def test_a_damaged_bundle_does_not_start(bundle: Path) -> None:
    graph = bundle / "scale.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError):
        create_app([bundle])


def test_a_bundle_is_served_under_another_name(bundle: Path) -> None:
    """Under its own and under another one at a time: routes, answers and descriptions tell the name of the route."""
    client = create_app([("other", bundle), bundle], threads=1).test_client()
    told = {one["name"]: one["url"] for one in client.get("/v1").json["bundles"]}
    assert told == {"other": "/v1/other", "scale": "/v1/scale"}
    for name in told:
        answer = client.post(f"/v1/{name}", json={"inputs": {"x": [[1, 2, 3]]}}).json
        assert (answer["name"], answer["version"]) == (name, "2.0.1")
    document = client.get("/openapi.json").json
    operation = document["paths"]["/v1/other"]["post"]
    assert operation["operationId"] == "predict_other"
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema["properties"]["name"] == {"const": "other"}
    assert client.get("/health").json["bundles"].keys() == told.keys()
    assert 'bundle="other"' in client.get("/metrics").text


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".."])
def test_a_name_that_cannot_stand_in_a_route_is_refused(bundle: Path, name: str) -> None:
    with pytest.raises(InputError, match="is no name for a bundle in a route"):
        create_app([(name, bundle)], threads=1)


def test_two_bundles_of_one_name_are_refused_with_the_way_out(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"two bundles are called 'scale'.*serve one of them as NAME=scale\.edge"):
        create_app([bundle, ("scale", bundle)], threads=1)
