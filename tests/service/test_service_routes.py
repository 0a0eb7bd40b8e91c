"""What the routes answer when all is well."""

from __future__ import annotations

import base64
import io
import json
import re

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from runtime.errors import InputError
from service.app import create_app
from tests.pictures import DECODES_GIF, encode
from tests.service.fake_pipeline import YEARS, FakePipeline, encoded, picture


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


RAW = {
    "jpeg": ("image/jpeg", lambda: encoded(".jpg", red=100)),
    "jpg, as many write it": ("image/jpg", lambda: encoded(".jpg", red=100)),
    "png": ("image/png", lambda: encoded(".png", red=100)),
    "webp": ("image/webp", lambda: encoded(".webp", red=100)),
    "bmp": ("image/bmp", lambda: encoded(".bmp", red=100)),
    "npy": ("application/x-npy", lambda: npy(picture(red=100))),
    "with a parameter": ("image/png; q=1", lambda: encoded(".png", red=100)),
}
if DECODES_GIF:
    RAW["gif"] = "image/gif", lambda: encode(Image.fromarray(picture(red=100)).quantize(8), "GIF")


@pytest.mark.parametrize(("content_type", "make"), RAW.values(), ids=RAW.keys())
def test_raw_body(client: FlaskClient, content_type: str, make: object) -> None:
    response = client.post("/v1/age", data=make(), content_type=content_type)
    assert response.status_code == 200, response.text
    assert response.mimetype == "application/json"
    answer = response.json
    assert (answer["name"], answer["version"]) == ("age", "1.2.3")
    (result,) = answer["results"]
    ages = [face["age"] for face in result["faces"]]
    assert ages == pytest.approx([25.0, 45.0], abs=1.0)  # red / 4, and 20 more; JPEG and WebP lose a little
    assert "probabilities" not in result["faces"][0]
    assert result["faces"][0]["box"] == pytest.approx([8, 12, 32, 36])
    assert re.fullmatch(r"decode;dur=[\d.]+, predict;dur=[\d.]+", response.headers["Server-Timing"])


def test_multipart_files_answer_in_order(client: FlaskClient) -> None:
    files = [(io.BytesIO(encoded(red=red)), f"{red}.png") for red in (40, 80, 120)]
    response = client.post("/v1/age", data={"image": files})
    assert [result["faces"][0]["age"] for result in response.json["results"]] == [10, 20, 30]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"], ids=["plain", "data URL"])
def test_json_base64(client: FlaskClient, prefix: str) -> None:
    texts = [prefix + base64.b64encode(encoded(red=red)).decode() for red in (40, 80)]
    one = client.post("/v1/age", json={"image": texts[0]})
    assert [result["faces"][0]["age"] for result in one.json["results"]] == [10]
    two = client.post("/v1/age", json={"images": texts})
    assert [result["faces"][0]["age"] for result in two.json["results"]] == [10, 20]


@pytest.mark.parametrize(
    ("query", "present"),
    [("?distribution=1", True), ("?distribution", True), ("?distribution=off", False), ("", False)],
)
def test_options_reach_the_pipeline(client: FlaskClient, query: str, present: bool) -> None:
    response = client.post(f"/v1/age{query}", data=encoded(), content_type="image/png")
    faces = response.json["results"][0]["faces"]
    assert ("probabilities" in faces[0]) is present
    if present:
        assert len(faces[0]["probabilities"]) == len(YEARS)
        assert sum(faces[0]["probabilities"]) == pytest.approx(1)


def test_integer_option(client: FlaskClient) -> None:
    response = client.post("/v1/age?limit=1", data=encoded(), content_type="image/png")
    assert len(response.json["results"][0]["faces"]) == 1


def test_exif_orientation_is_honoured(client: FlaskClient) -> None:
    """A JPEG stored lying on its side, orientation 6, is upright in the answer: its boxes reach beyond its width."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = encoded(".jpg", width=120, height=60)
    data = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    box = client.post("/v1/age", data=data, content_type="image/jpeg").json["results"][0]["faces"][1]["box"]
    assert box == pytest.approx([0.55 * 60, 0.15 * 120, 0.9 * 60, 0.75 * 120])


def test_v1_lists_the_bundles(client: FlaskClient) -> None:
    answer = client.get("/v1").json
    (bundle,) = answer["bundles"]
    assert bundle["name"] == "age"
    assert bundle["task"] == "age"
    assert bundle["url"] == "/v1/age"
    assert bundle["ready"] is True
    assert bundle["options"] == {"distribution": "bool", "limit": "int"}
    assert bundle["pipeline"]["years"] == YEARS
    assert bundle["models"]["age"]["inputs"][0]["shape"] == ["N", "H", "W", 3]
    assert answer["limits"] == {"max_bytes": 200_000, "max_pixels": 1_000_000, "max_images": 4, "video_seconds": 20.0}


def test_several_bundles_have_a_route_each() -> None:
    client = create_app([FakePipeline("first"), FakePipeline("second")]).test_client()
    for name in ("first", "second"):
        assert client.post(f"/v1/{name}", data=encoded(), content_type="image/png").json["name"] == name


def test_two_bundles_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two bundles are called 'age'"):
        create_app([FakePipeline(), FakePipeline()])


def test_no_bundle_is_refused() -> None:
    with pytest.raises(InputError, match="no bundle"):
        create_app([])


def test_operations(client: FlaskClient) -> None:
    assert client.get("/livez").json == {"status": "alive"}
    assert client.get("/readyz").json["status"] == "ready"
    health = client.get("/health").json
    assert (health["status"], health["ready"]) == ("ready", True)
    assert health["bundles"]["age"]["failure"] is None
    assert health["bundles"]["age"]["warm_up_ms"] > 0


def test_metrics_count_what_happened(client: FlaskClient) -> None:
    for _ in range(3):
        client.post("/v1/age", data=encoded(), content_type="image/png")
    client.post("/v1/age", data=b"", content_type="image/png")
    client.post("/v1/nobody", data=b"", content_type="image/png")
    client.get("/surely/not/here")
    text = client.get("/metrics").text
    sample = 'edgedl_requests_total{{bundle="{}",method="{}",route="{}",status="{}"}} {}'
    assert sample.format("age", "POST", "/v1/<name>", 200, "3.0") in text
    assert sample.format("age", "POST", "/v1/<name>", 400, "1.0") in text
    assert sample.format("", "POST", "/v1/<name>", 404, "1.0") in text  # unknown names do not become labels
    assert sample.format("", "GET", "unmatched", 404, "1.0") in text
    assert 'edgedl_images_total{bundle="age"} 3.0' in text
    assert 'edgedl_results_total{bundle="age",kind="faces"} 6.0' in text
    assert 'edgedl_request_seconds_count{bundle="age",route="/v1/<name>"} 4.0' in text
    assert 'edgedl_ready{bundle="age"} 1.0' in text
    assert "edgedl_requests_in_flight 1.0" in text  # this very request


def test_applications_do_not_share_metrics(client: FlaskClient) -> None:
    client.post("/v1/age", data=encoded(), content_type="image/png")
    other = create_app([FakePipeline()]).test_client()
    assert "edgedl_images_total{" not in other.get("/metrics").text


@pytest.mark.parametrize("path", ["/", "/v1", "/livez", "/static/page.js", "/nowhere"])
def test_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path, buffered=True).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_request_id_is_kept_or_made(client: FlaskClient) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    made = client.get("/livez", headers={"X-Request-ID": "<script>" * 20}).headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)


def test_other_sites_only_where_allowed() -> None:
    client = create_app([FakePipeline()], cors_origins=["https://good.example"]).test_client()
    good, bad = {"Origin": "https://good.example"}, {"Origin": "https://bad.example"}
    answer = client.post("/v1/age", data=encoded(), content_type="image/png", headers=good)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://good.example"
    assert "Access-Control-Allow-Origin" not in client.get("/v1", headers=bad).headers
    preflight = client.options("/v1/age", headers=good)
    assert preflight.status_code == 200
    assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]


def test_page_loads_only_its_own_files(client: FlaskClient) -> None:
    """Every file that the page or one of its modules names exists here; nothing inline, nothing from elsewhere."""
    html = client.get("/", buffered=True).text
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    assert not re.search(r"\sstyle=|\son\w+=|<style", html)
    files = {name for name in re.findall(r'(?:src|href)="([^"#]+)"', html) if name.startswith("static/")}
    seen: set[str] = set()
    while files - seen:
        name = sorted(files - seen)[0]
        seen.add(name)
        response = client.get(f"/{name}", buffered=True)
        assert response.status_code == 200, name
        text = response.text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        folder = name.rpartition("/")[0]
        for imported in re.findall(r'from "(\.[^"]+)"', text):
            parts = f"{folder}/{imported}".replace("/./", "/")
            files.add(re.sub(r"[^/]+/\.\./", "", parts))
    assert "static/tasks/age.js" in seen


def test_openapi_describes_every_route(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    routes = set()
    for rule in client.application.url_map.iter_rules():
        if rule.endpoint != "static":
            methods = {method.lower() for method in rule.methods - {"HEAD", "OPTIONS"}}
            # Under /v1 each bundle has routes of its own; under /v2 its name is a parameter.
            named = rule.rule.startswith("/v2")
            path = rule.rule.replace("<name>", "{name}" if named else "age")
            routes |= {(path.replace("<version>", "{version}" if named else "1.2.3"), method) for method in methods}
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    # This bundle carries no state, draws nothing and has no example; other tests of the service have such bundles.
    missing = ("/streams", "/drawings", "/example")
    assert described == {(path, method) for path, method in routes if not any(part in path for part in missing)}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(document["components"]["schemas"])
    operation = document["paths"]["/v1/age"]["post"]
    assert {p["name"]: p["schema"]["type"] for p in operation["parameters"]} == {
        "distribution": "boolean",
        "limit": "integer",
    }


def test_an_answer_has_the_form_that_openapi_promises(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    face_schema = document["components"]["schemas"]["Faces"]["properties"]["faces"]["items"]
    response = client.post("/v1/age?distribution=1", data=encoded(), content_type="image/png")
    for face in response.json["results"][0]["faces"]:
        assert set(face_schema["required"]) <= set(face) <= set(face_schema["properties"])


def test_fake_pictures_are_what_they_claim() -> None:
    """The oracle of this module: OpenCV reads back the red that was asked for."""
    image = cv2.imdecode(np.frombuffer(encoded(red=40), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (60, 80, 3)
    assert int(image[0, 0, 2]) == 40
