"""The bundles of a service, by name and version."""

from __future__ import annotations

import itertools

import pytest

from runtime.errors import InputError
from service.app import create_app
from service.bundles.repository import Repository, version_key
from service.bundles.served import Served
from service.problems import Problem
from tests.service.fake_pipeline import FakePipeline


def served(version: str, name: str = "age") -> Served:
    pipeline = FakePipeline(name)
    object.__setattr__(pipeline.bundle.manifest, "version", version)
    return Served(pipeline)


@pytest.mark.parametrize(
    "ordered", list(itertools.pairwise(["0.9", "1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.2", "1.10", "2"])), ids=str
)
def test_versions_are_ordered_by_their_numbers(ordered: tuple[str, str]) -> None:
    low, high = ordered
    assert version_key(low) < version_key(high)


def test_the_highest_version_answers_for_its_name() -> None:
    repository = Repository()
    for version in ("1.9", "1.10", "1.2"):
        repository.add(served(version))
    assert repository.find("age").version == repository["age"].version == "1.10"
    assert repository.find("age", "1.2").version == "1.2"
    assert repository.versions("age") == ("1.10", "1.9", "1.2")
    assert list(repository) == ["age"]
    assert len(repository) == 1


def test_what_is_not_there_is_named_with_what_is() -> None:
    repository = Repository()
    repository.add(served("1.0"))
    with pytest.raises(Problem, match=r"no bundle 'face'; this service has 'age'"):
        repository.find("face")
    with pytest.raises(Problem, match=r"no version '2' here; it has 1\.0"):
        repository.find("age", "2")
    assert repository.versions("face") == ()


def test_two_of_one_name_and_version_are_refused() -> None:
    repository = Repository()
    repository.add(served("1.0"))
    with pytest.raises(InputError, match=r"two bundles are called 'age' and have the version 1\.0"):
        repository.add(served("1.0"))


def test_the_document_of_the_routes_follows_what_is_offered() -> None:
    """It is kept between requests."""
    app = create_app([FakePipeline()])
    client, repository = app.test_client(), app.extensions["edgedl"]
    for names in (["age"], ["age", "face"], ["face"]):
        if names == ["age", "face"]:
            repository.add(served("1.0", "face"))
        elif names == ["face"]:
            repository.remove(repository["age"])
        for _ in range(2):
            paths = client.get("/openapi.json").json["paths"]
            assert [name for name in ("age", "face") if f"/v1/{name}" in paths] == names


def test_a_broken_bundle_writes_its_trace_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried; another fault is another trace."""
    one = served("1.0")
    one.pipeline.fault = RuntimeError("broken")
    for _ in range(3):
        one.health.warm_up()
    one.pipeline.fault = MemoryError()
    one.health.warm_up()
    one.health.close()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError, MemoryError]
