"""A folder of bundles, loaded and unloaded by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask

from runtime.bundle import pack
from runtime.errors import CheckFailedError, InputError
from service.app import create_app
from service.bundles.folder import BundleFolder
from service.bundles.loading import IndexRow
from service.problems import Problem
from tests.bundles import write_scale_bundle, write_sums_bundle
from tests.service.test_service_swaps import factor, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    folder.mkdir()
    write(folder / "scale-2.edge", 2)
    pack(write(tmp_path / "three.edge", 3), folder / "scale-3.edge")
    write_sums_bundle(folder / "sums.edge")
    (folder / "notes.txt").write_text("not a bundle")
    (folder / ".half.edge").mkdir()
    return folder


@pytest.fixture
def app(folder: Path) -> Flask:
    return create_app([], repository=folder, threads=1)


def loading(app: Flask) -> BundleFolder:
    found: BundleFolder = app.extensions["edgedl.parts"].loading
    return found


def states(app: Flask) -> set[tuple[str, str, str]]:
    return {(row.name, row.version, row.state) for row in loading(app).index()}


def test_every_bundle_of_the_folder_is_served(app: Flask) -> None:
    client = app.test_client()
    assert factor(client) == factor(client, "/v1/scale/versions/3") == 3
    assert factor(client, "/v1/scale/versions/2") == 2
    assert loading(app).index() == [
        IndexRow("scale", "3", "READY", ""),
        IndexRow("scale", "2", "READY", ""),
        IndexRow("sums", "1.0.0", "READY", ""),
    ]


def test_it_is_off_unless_it_is_asked_for(folder: Path) -> None:
    assert create_app([folder / "sums.edge"], threads=1).extensions["edgedl.parts"].loading is None


def test_what_is_unloaded_is_gone_until_it_is_loaded(app: Flask) -> None:
    client = app.test_client()
    loading(app).unload("scale")
    response = client.post("/v1/scale", json={"inputs": {"x": [[1, 1, 1]]}})
    assert (response.status_code, response.json["expected"]) == (404, "sums")
    assert states(app) == {
        ("scale", "2", "UNAVAILABLE"), ("scale", "3", "UNAVAILABLE"), ("sums", "1.0.0", "READY")
    }  # fmt: skip
    assert 'bundle="scale"' not in "".join(
        line for line in client.get("/metrics").text.splitlines() if line.startswith("edgedl_ready")
    )
    loading(app).unload("scale")  # a second time is no error
    loading(app).load("scale")
    assert factor(client) == 3
    loading(app).load("scale")  # neither is this
    assert states(app) == {("scale", "2", "READY"), ("scale", "3", "READY"), ("sums", "1.0.0", "READY")}


def test_the_last_one_may_go(app: Flask) -> None:
    client = app.test_client()
    for name in ("scale", "sums"):
        loading(app).unload(name)
    assert client.get("/v1").json["bundles"] == []
    assert client.get("/readyz").status_code == client.get("/openapi.json").status_code == 200
    assert client.post("/v1/sums", json={}).status_code == 404


def test_load_takes_what_is_new_and_what_was_replaced(app: Flask, folder: Path) -> None:
    client = app.test_client()
    write(folder / "scale-3.edge".replace("3", "2"), 4)
    write(folder / "more.edge", 5)
    loading(app).load("scale")
    assert factor(client) == 5
    assert factor(client, "/v1/scale/versions/4") == 4
    assert client.post("/v1/scale/versions/2", json={}).status_code == 404


@pytest.mark.parametrize("loaded", [False, True], ids=["new", "replaced"])
def test_what_is_wrong_is_kept_out_with_the_reason(app: Flask, folder: Path, loaded: bool) -> None:
    path = folder / ("scale-2.edge" if loaded else "new.edge")
    write(path, 9, recorded=np.full(3, 2.0))
    with pytest.raises(Problem, match=r"is kept out: .*model scale, output y: error") as refused:
        loading(app).load("scale")
    assert refused.value.status == 422
    assert str(folder) not in refused.value.detail
    rows = {(row.name, row.version): row for row in loading(app).index()}
    assert rows["scale", "9"].state == "UNAVAILABLE"
    assert "output y: error" in rows["scale", "9"].reason
    assert str(folder) not in rows["scale", "9"].reason
    assert rows["scale", "2"].state == rows["scale", "3"].state == "READY"
    assert factor(app.test_client(), "/v1/scale/versions/2") == 2


def test_what_cannot_be_read_goes_by_the_name_of_its_file(app: Flask, folder: Path) -> None:
    (folder / "broken.edge").write_bytes(b"PK")
    assert IndexRow("broken", "", "UNAVAILABLE", "not loaded") in loading(app).index()
    with pytest.raises(Problem, match="is kept out") as refused:
        loading(app).load("broken")
    assert refused.value.status == 422


@pytest.mark.parametrize("name", ["nobody", "", "..", "../three", "three", "/etc/passwd", "scale-2.edge", "a/b", "\0"])
def test_nothing_but_the_names_in_the_folder_is_loaded(app: Flask, name: str) -> None:
    for change in (loading(app).load, loading(app).unload):
        with pytest.raises(Problem, match="The repository has no bundle") as refused:
            change(name)
        assert (refused.value.status, refused.value.expected) == (404, "scale, sums")


def test_what_was_named_on_the_command_line_is_not_unloaded(tmp_path: Path, folder: Path) -> None:
    outside = write_scale_bundle(tmp_path / "outside.edge", name="outside").path
    app = create_app([outside], repository=folder, threads=1)
    with pytest.raises(Problem, match="no bundle 'outside'"):
        loading(app).unload("outside")
    assert ("outside", "2.0.1", "READY") in states(app)


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda folder: write(folder / "wrong.edge", 9, recorded=np.ones(3)), CheckFailedError, "wrong.edge"),
        (lambda folder: write(folder / "again.edge", 2), InputError, "two bundles"),
    ],
    ids=["wrong", "twice"],
)
def test_a_folder_with_a_wrong_bundle_does_not_start(folder: Path, prepare: Any, error: Any, message: str) -> None:
    prepare(folder)
    with pytest.raises(error, match=message):
        create_app([], repository=folder, threads=1)


@pytest.mark.parametrize("what", ["nothing there", "empty", "a file"])
def test_a_folder_without_bundles_does_not_start(tmp_path: Path, what: str) -> None:
    path = tmp_path / "folder"
    if what == "empty":
        path.mkdir()
    if what == "a file":
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"expected (a folder of bundles|folders or files NAME\.edge)"):
        create_app([], repository=path)


def test_several_workers_neither_stream_nor_load(folder: Path) -> None:
    with pytest.raises(InputError, match="a stream lives in one process; it cannot be served by 2 workers"):
        create_app([folder / "sums.edge"], threads=1, workers=2)
    with pytest.raises(InputError, match="what is loaded by name is loaded by one process, and there are 2 workers"):
        create_app([], repository=folder, threads=1, workers=2)
    assert create_app([folder / "scale-2.edge"], threads=1, workers=2).test_client().get("/readyz").status_code == 200


def test_clients_of_the_protocol_load_and_unload(app: Flask, folder: Path) -> None:
    """The routes of Triton's model repository do what the folder does."""
    client = app.test_client()
    question = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
    infer = "/v2/models/scale.scale/infer"
    assert client.post(infer, json=question).json["outputs"][0]["data"] == [3, 3, 3]
    assert client.post("/v2/repository/models/scale/unload").status_code == 200
    assert client.post(infer, json=question).status_code == 404
    write(folder / "scale-2.edge", 4)
    assert client.post("/v2/repository/models/scale/load").status_code == 200
    answer = client.post(infer, json=question).json
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("4", [4, 4, 4])
    write(folder / "wrong.edge", 9, recorded=np.full(3, 2.0))
    refused = client.post("/v2/repository/models/scale/load")
    assert refused.status_code == 422
    rows = client.post("/v2/repository/index").json
    (wrong,) = [row for row in rows if row["version"] == "9"]
    assert (wrong["state"], "output y: error" in wrong["reason"]) == ("UNAVAILABLE", True)
    assert {row["version"] for row in rows if row["name"] == "scale" and row["state"] == "READY"} == {"3", "4"}
