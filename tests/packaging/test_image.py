"""The image: built without an engine, and its command run as its user on a read-only root.

    make test-slow PYTEST_ARGS=tests/packaging/test_image.py

It needs root and Debian's packages buildah, mmdebstrap and, for the other processor, qemu-user-static. Packages come
from where this machine's apt and pip take theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgedl
from tests.packaging.containers import BASE, BUILD, Images, Root, why_not

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.xdist_group("image"), pytest.mark.timeout(1800)]

MOST = 230e6
"""Bytes that the Dockerfile may add to its base."""

ASK = """
import json
from pathlib import Path
from urllib.request import Request, urlopen

answers = {}
for path in sorted(Path("/photos").iterdir()):
    head = {"Content-Type": "image/" + path.suffix[1:]}
    with urlopen(Request("http://127.0.0.1:8000/v1/age", path.read_bytes(), head), timeout=200) as answer:
        answers[path.name] = json.load(answer)["results"][0]["faces"]
with urlopen("http://127.0.0.1:8000/readyz", timeout=200) as answer:
    state = json.load(answer)
print(json.dumps({"answers": answers, "state": state}))
"""

Build = Callable[..., Root]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    missing = why_not()
    if missing:
        pytest.skip(missing)
    images = Images(tmp_path_factory.mktemp("images"))

    def built(architecture: str, extras: str = "cpu,serve") -> Root:
        base = images.base("base", BASE, architecture)
        # The stage that builds runs here, whatever the image is for; buildah 1.28 wants its base to say otherwise.
        tools = images.base("tools", BUILD, "amd64", label=architecture)
        arguments = [f"BASE={base}", f"BUILD={tools}", f"EXTRAS={extras}"]
        tag = f"localhost/edgedl-{extras.replace(',', '-')}:{architecture}"
        images.build(architecture, tag, *(word for value in arguments for word in ("--build-arg", value)))
        return images.unpack(tag, architecture)

    built.images = images  # type: ignore[attr-defined]
    return built


@pytest.fixture(scope="module")
def image(build: Build) -> Root:
    return build("amd64")


@pytest.fixture
def bundles(tmp_path: Path, age_bundle: Path) -> Path:
    folder = tmp_path / "bundles"
    folder.mkdir()
    copy = shutil.copytree if age_bundle.is_dir() else shutil.copy
    copy(age_bundle, folder / "age.edge")
    readable(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path, portrait_path: Path) -> Path:
    """The portrait in every form that is read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = cv2.imread(str(portrait_path))
    for kind in ("jpeg", "png", "webp", "bmp", "gif"):
        cv2.imwrite(str(folder / f"portrait.{kind}"), picture)
    readable(folder)
    return folder


def readable(folder: Path) -> None:
    """For the user of the image; pytest keeps its folders to itself."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_it_adds_no_more_to_its_base_than_it_may(image, record_property):
    record_property("bytes", image.installed)
    assert image.installed <= MOST


def test_it_says_how_it_is_run(image):
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["edgedl", "serve", "--host", "0.0.0.0", "--port", "8000"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert not config.get("Volumes")


def test_it_holds_nothing_of_the_workshop(image):
    held = {path.name for path in (image.path / "opt" / "edgedl").iterdir()}
    assert {"edgedl", "runtime", "service", "onnxruntime", "cv2"} <= held
    assert not held & {"torch", "onnx", "pip", "setuptools", "sympy", "mpmath", "av", "google"}
    assert not list((image.path / "opt" / "edgedl").rglob("tests"))
    assert not list(image.path.rglob("pip.conf"))


def test_its_command_answers_as_nobody_on_a_read_only_root(image, bundles, photos, age_bundle, record_property):
    done = image.serve({"/bundles": bundles, "/photos": photos}, ASK)
    for name in ("ready_seconds", "ready_processor_seconds", "idle_mb", "asked_mb", "most_mb"):
        record_property(name, done[name])
    assert done["user"] == 10001
    assert done["writable"] is False
    assert done["status"] == 0, done["stderr"]
    assert done["answer"]["state"]["status"] == "ready"
    with edgedl.load(age_bundle) as pipeline:
        for name, faces in done["answer"]["answers"].items():
            (expected,) = pipeline.predict(photos / name)["faces"]
            (face,) = faces
            assert face["age"] == pytest.approx(expected["age"], abs=0.1), name
            assert np.abs(np.subtract(face["box"], expected["box"])).max() < 0.1, name


def test_a_bundle_can_be_baked_in(build, image, bundles, photos, tmp_path):
    images = build.images  # type: ignore[attr-defined]
    file = bundles / "Dockerfile"
    file.write_text("FROM localhost/edgedl-cpu-serve:amd64\nCOPY age.edge /bundles/age.edge\n")
    root = images.unpack(images.build("amd64", "localhost/baked:amd64", file=file), "amd64")
    done = root.serve({"/photos": photos}, ASK)
    assert len(done["answer"]["answers"]) == 5


def test_the_decoder_of_videos_can_be_had(build, record_property):
    root = build("amd64", "cpu,serve,video")
    record_property("bytes", root.installed)
    assert (root.path / "opt" / "edgedl" / "av").is_dir()


def test_another_processor_gets_an_image_too(build, bundles, photos, age_bundle, record_property):
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("qemu-aarch64-static is not installed")
    root = build("arm64")
    record_property("bytes", root.installed)
    assert root.installed <= MOST
    done = root.serve({"/bundles": bundles, "/photos": photos}, ASK, emulator=Path(emulator))
    assert done["status"] == 0, done["stderr"]
    with edgedl.load(age_bundle) as pipeline:
        (expected,) = pipeline.predict(photos / "portrait.png")["faces"]
    (face,) = done["answer"]["answers"]["portrait.png"]
    assert face["age"] == pytest.approx(expected["age"], abs=0.1)
