"""The public age bundle behind the service: a real photo in, a plausible age out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from runtime.pipelines import load
from service.app import create_app


@pytest.fixture(scope="module")
def client(age_bundle: Path) -> Iterator[FlaskClient]:
    with load(age_bundle, threads=1) as pipeline:
        yield create_app([pipeline]).test_client()


def test_a_portrait_gives_one_face_of_about_her_age(client: FlaskClient, portrait_path: Path) -> None:
    """Grace Hopper at 77."""
    response = client.post("/v1/age", data=portrait_path.read_bytes(), content_type="image/jpeg")
    assert response.status_code == 200
    (result,) = response.json["results"]
    (face,) = result["faces"]
    assert 67 < face["age"] < 87
    assert face["low"] <= face["high"]
    x1, y1, x2, y2 = face["box"]
    assert (140 < x1 < 200, 100 < y1 < 160, 330 < x2 < 400, 300 < y2 < 370) == (True,) * 4
    assert "probabilities" not in face


def test_the_distribution_comes_on_request(client: FlaskClient, portrait_path: Path) -> None:
    body = portrait_path.read_bytes()
    response = client.post("/v1/age?distribution=1", data=body, content_type="image/jpeg")
    (face,) = response.json["results"][0]["faces"]
    assert len(face["probabilities"]) == 81
    assert sum(face["probabilities"]) == pytest.approx(1, abs=1e-4)


def test_how_faces_are_looked_for_stands_in_the_query(client: FlaskClient, portrait_path: Path) -> None:
    body = portrait_path.read_bytes()
    response = client.post("/v1/age?smallest=0.02&turned=1", data=body, content_type="image/jpeg")
    (result,) = response.json["results"]
    assert len(result["faces"]) == 1
    assert result["turned"] == 0
    response = client.post("/v1/age?smallest=80", data=body, content_type="image/jpeg")
    assert response.status_code in (400, 422)
    assert "0.01 to 1" in response.json["detail"]
    document = client.get("/openapi.json").json
    options = {p["name"]: p["schema"]["type"] for p in document["paths"]["/v1/age"]["post"]["parameters"]}
    assert options == {"distribution": "boolean", "smallest": "number", "turned": "boolean"}
    assert set(result) <= set(document["components"]["schemas"]["Faces"]["properties"])


def test_several_photos_of_a_form_are_answered_in_order(client: FlaskClient, portrait_path: Path) -> None:
    import cv2
    import numpy as np

    grey = cv2.imencode(".png", np.full((90, 120, 3), 128, np.uint8))[1].tobytes()
    files = [(io.BytesIO(grey), "grey.png"), (io.BytesIO(portrait_path.read_bytes()), "hopper.jpg")]
    response = client.post("/v1/age", data={"file": files})
    assert response.status_code == 200
    assert [len(result["faces"]) for result in response.json["results"]] == [0, 1]


def test_a_photo_beyond_the_limit_is_answered_in_its_own_pixels(age_bundle: Path, portrait_path: Path) -> None:
    """It is read at a quarter of its size; a PNG, which cannot be, is refused."""
    import cv2

    photo = cv2.imread(str(portrait_path))
    large = cv2.imencode(".jpg", cv2.resize(photo, None, fx=3, fy=3))[1].tobytes()
    answers = []
    with load(age_bundle, threads=1) as pipeline:
        for most in (50_000_000, photo.shape[0] * photo.shape[1] * 9 // 16):
            client = create_app([pipeline], max_pixels=most).test_client()
            response = client.post("/v1/age", data=large, content_type="image/jpeg")
            (face,) = response.json["results"][0]["faces"]
            answers.append(face)
        png = cv2.imencode(".png", cv2.resize(photo, None, fx=3, fy=3))[1].tobytes()
        refused = client.post("/v1/age", data=png, content_type="image/png")
    assert answers[0]["box"] == pytest.approx(answers[1]["box"], abs=30)
    assert answers[0]["box"] != answers[1]["box"]
    assert refused.status_code == 413
    assert f"at most {most} are read" in refused.json["detail"]


def test_a_note_comes_with_the_answer(client: FlaskClient, portrait_path: Path) -> None:
    response = client.post("/v1/age", data=portrait_path.read_bytes()[:-2], content_type="image/jpeg")
    (result,) = response.json["results"]
    assert len(result["faces"]) == 1
    assert result["note"] == "the JPEG has no end marker; nothing of the picture is missing"


def test_v1_tells_of_both_models(client: FlaskClient) -> None:
    (bundle,) = client.get("/v1").json["bundles"]
    assert (bundle["name"], bundle["task"]) == ("age", "age")
    assert set(bundle["models"]) == {"faces", "crowd", "age"}
    assert client.get("/readyz").status_code == 200
