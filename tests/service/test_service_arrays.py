"""Arrays as JSON, of bundles whose task is only a graph; and drawings, of those that can draw."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import InputError
from runtime.manifest import TensorSpec
from service import json_body
from service.app import create_app
from service.routes.arrays import json_arrays
from tests.bundles import SCALE, write_scale_bundle, write_sums_bundle
from tests.digits import write_digits_bundle
from tests.service.fake_pipeline import encoded
from tests.service.test_service_problems import check


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [
        write_scale_bundle(folder / "scale.edge"),
        write_sums_bundle(folder / "sums.edge"),
        write_digits_bundle(folder / "digits.edge"),
        write_digits_bundle(folder / "reader.edge", draws=False, name="reader"),
    ]
    return create_app(bundles, threads=1).test_client()


def test_lists_in_lists_out(client: FlaskClient) -> None:
    x = [[1, 2, 3], [4.5, 5, 6]]
    response = client.post("/v1/scale", json={"inputs": {"x": x}})
    assert response.status_code == 200, response.text
    assert response.json == {
        "name": "scale",
        "version": "2.0.1",
        "results": [{"outputs": {"y": (np.array(x) * SCALE).tolist()}}],
    }
    assert response.headers["Server-Timing"].startswith("decode;dur=")


def test_a_whole_sequence_of_a_recurrent_bundle(client: FlaskClient) -> None:
    asked = {"x": [[[1, 10], [2, 20]]]}
    found = client.post("/v1/sums", json={"inputs": asked}).json["results"][0]["outputs"]
    assert found == {"y": [[[1, 10], [3, 30]]], "sn": [[3, 30]]}
    begun = client.post("/v1/sums", json={"inputs": asked | {"s0": [[100, 0]]}}).json["results"][0]["outputs"]
    assert begun == {"y": [[[101, 10], [103, 30]]], "sn": [[103, 30]]}


BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "not JSON"),
    "list": (b"[[1, 2, 3]]", 400, 'Found array; expected an object {"inputs": {"x": …}}'),
    "picture": (b'{"image": "aaaa"}', 400, "an object with the keys ['image']"),
    "two keys": (b'{"inputs": {}, "more": 1}', 400, "['inputs', 'more']"),
    "inputs in a list": (b'{"inputs": [1]}', 400, "inputs of type array"),
    "stranger": (b'{"inputs": {"z": [1]}}', 400, "the input 'z'"),
    "missing": (b'{"inputs": {}}', 422, "input 'x' is missing"),
    "ragged": (b'{"inputs": {"x": [[1, 2, 3], [1]]}}', 422, "numbers in lists of equal lengths"),
    "null": (b'{"inputs": {"x": [[1, 2, null]]}}', 422, "x[0][2] is null; the input x (float32) needs numbers"),
    "texts": (b'{"inputs": {"x": [["1", "2", "3"]]}}', 422, "needs numbers"),
    "truths": (b'{"inputs": {"x": [[true, true, false]]}}', 422, "needs numbers"),
    "objects": (b'{"inputs": {"x": {"y": 1}}}', 422, "needs numbers"),
    "NaN": (b'{"inputs": {"x": [[NaN, 1, 2]]}}', 400, "not JSON"),
    "too large for float32": (b'{"inputs": {"x": [[1e39, 1, 2]]}}', 422, "numbers that float32 can hold"),
    "width": (b'{"inputs": {"x": [[1, 2]]}}', 422, "[1, 2]"),
    "rank": (b'{"inputs": {"x": 1}}', 422, "shape []"),
    "deep": (b'{"inputs": {"x": ' + b"[" * 100 + b"1" + b"]" * 100 + b"}}", 422, "lists of equal lengths"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_a_problem(client: FlaskClient, name: str) -> None:
    body, status, words = BAD[name]
    response = client.post("/v1/scale", data=body, content_type="application/json")
    assert words in check(response, status)["detail"]


def test_long_json_is_sent_to_npy(client: FlaskClient) -> None:
    body = b'{"inputs": {"x": [[1, 2, 3]]}}' + b" " * json_body.MOST_BYTES
    assert "Send the array as .npy" in check(
        client.post("/v1/scale", data=body, content_type="application/json"), 413
    )["detail"]  # fmt: skip
    assert (
        client.post("/v1/scale", data=body[: json_body.MOST_BYTES], content_type="application/json").status_code == 200
    )


@pytest.mark.parametrize(
    ("dtype", "value", "found"),
    [
        ("int64", [[1, -2]], [[1, -2]]),
        ("uint8", [0, 255], [0, 255]),
        ("uint8", [0, 256], "whole numbers from 0 to 255"),
        ("uint8", [-1], "whole numbers from 0 to 255"),
        ("int64", [1.5], "whole numbers"),
        ("int64", [10**30], "whole numbers"),
        ("bool", [True, False], [True, False]),
        ("bool", [1, 0], "true or false"),
        ("string", [["a", "é"]], [["a", "é"]]),
        ("string", [1], "texts"),
        ("float64", 1e300, 1e300),
        ("float16", [0.5], [0.5]),
        ("float16", [70000], "float16 can hold"),
        ("float32", [[]], [[]]),
        ("int64", [], []),
    ],
)
def test_values_are_of_the_declared_type(dtype: str, value: Any, found: Any) -> None:
    spec = TensorSpec("x", dtype, ("N",))
    body = json.dumps({"inputs": {"x": value}}).encode()  # the standard library writes numbers of any size
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            json_arrays(body, [spec])
    else:
        array = json_arrays(body, [spec])["x"]
        assert array.dtype == ("object" if dtype == "string" else dtype)
        assert array.tolist() == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "inputs", "y"]), inner),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_no_body_breaks_it(client: FlaskClient, value: Any) -> None:
    for body in ({"inputs": {"x": value}}, value):
        response = client.post("/v1/scale", data=json.dumps(body), content_type="application/json")
        assert response.status_code in (200, 400, 422), response.text


def test_it_is_listed_and_described(client: FlaskClient) -> None:
    scale, sums, digits, reader = client.get("/v1").json["bundles"]
    assert scale["accepts"] == ["application/json", "application/x-npy"]
    assert sums["models"]["sums"]["state"][0]["input"] == "s0"
    assert (digits["drawings"], reader["drawings"], scale["drawings"]) == ("/v1/digits/drawings", None, None)
    paths = client.get("/openapi.json").json["paths"]
    assert set(paths["/v1/scale"]["post"]["requestBody"]["content"]) == set(scale["accepts"])
    assert "/v1/digits/drawings" in paths
    assert "/v1/reader/drawings" not in paths


def test_a_drawing_by_label_and_seed(client: FlaskClient) -> None:
    def drawn(**wish: int) -> dict[str, Any]:
        response = client.post("/v1/digits/drawings", json=wish)
        assert response.status_code == 200, response.text
        return response.json["results"][0]

    one, other, again = drawn(label=7), drawn(label=7, seed=1), drawn(label=7, seed=0)
    assert one == again
    assert one["drawn"]["label"] == 7
    ink = np.array(one["drawn"]["ink"])
    assert ink.shape == (8, 8)
    np.testing.assert_allclose(ink, 0.7, atol=0.01)
    assert one["drawn"]["ink"] != other["drawn"]["ink"]
    document = client.get("/openapi.json").json
    schema = document["paths"]["/v1/digits/drawings"]["post"]["responses"]["200"]
    result = schema["content"]["application/json"]["schema"]["properties"]["results"]["items"]
    assert result == {"$ref": "#/components/schemas/Digit"}
    assert set(one) == set(document["components"]["schemas"]["Digit"]["properties"]) - {"note"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"7", 400, "Found number"),
        (b"{}", 400, "an object with the keys []"),
        (b'{"label": 7, "size": 1}', 400, "['label', 'size']"),
        (b'{"label": "7"}', 400, "a label of type string"),
        (b'{"label": true}', 400, "a label of True"),
        (b'{"label": 7.5}', 400, "a label of 7.5"),
        (b'{"label": -1}', 400, "a label of -1"),
        (b'{"label": 10}', 422, "0 … 9, not 10"),
        (b'{"label": 7, "seed": 9223372036854775808}', 400, "a seed of"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_a_wish_that_cannot_be_drawn(client: FlaskClient, body: bytes, status: int, words: str) -> None:
    response = client.post("/v1/digits/drawings", data=body, content_type="application/json")
    assert words in check(response, status)["detail"]


def test_who_cannot_draw_says_so(client: FlaskClient) -> None:
    assert "draws nothing" in check(client.post("/v1/reader/drawings", json={"label": 1}), 404)["detail"]
    assert check(client.post("/v1/nobody/drawings", json={"label": 1}), 404)
    assert check(client.post("/v1/digits/drawings", data=encoded(), content_type="image/png"), 415)
    assert check(client.get("/v1/digits/drawings"), 405)


def test_pictures_are_read_as_before(client: FlaskClient) -> None:
    response = client.post("/v1/reader", data=encoded(red=0), content_type="image/png")
    assert response.status_code == 200
    assert response.json["results"][0]["digit"] == 1, "dark in the middle"
