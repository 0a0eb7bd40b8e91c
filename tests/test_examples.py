"""The examples in C and JavaScript answer raw numbers, replay what was recorded, and are short enough to be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from exporters.cache import made_once
from exporters.targets.base import TargetError
from exporters.targets.node import NodeTarget
from exporters.targets.setup import target_folder
from runtime.bundle import Bundle, pack
from runtime.pipelines.tensors import TensorPipeline
from tests.bundles import SCALE, write_scale_bundle
from tests.frozen_bundles import unpack

FOLDER = Path(__file__).parents[1] / "docs" / "examples"
PACKAGES = "gcc,libc6-dev,libonnxruntime-dev,libzip-dev,libcjson-dev"
"""Of Debian trixie: what `edge.c` is compiled with."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def in_javascript(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs edge.mjs; skips where Node or its packages cannot be had."""
    target = NodeTarget()
    try:
        target.set_up()
    except TargetError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copy(FOLDER / "edge.mjs", folder)
    (folder / "node_modules").symlink_to(Path(target.command()[-1]) / "node_modules")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["node", str(folder / "edge.mjs"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="module")
def in_c() -> Iterator[Run]:
    """Compiles edge.c in a root of Debian trixie, and runs it there; skips where that cannot be made."""
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        pytest.skip("mmdebstrap is not installed, or this is not root, who may change into another root")

    def make(folder: Path) -> None:
        asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        mirrors = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        root = folder / "root"
        options = ["--quiet", "--variant=extract", f"--include={PACKAGES}"]
        subprocess.run(["mmdebstrap", *options, "trixie", str(root), *mirrors[:1]], timeout=900, check=True)
        for name in ("bin", "lib", "lib64", "sbin"):  # a package's script makes them, and no script was run
            if not (root / name).exists():
                (root / name).symlink_to(f"usr/{name}")

    root = made_once(target_folder("debian-trixie-c"), make) / "root"
    with ExitStack() as stack:
        inside = Path(tempfile.mkdtemp(dir=root / "tmp"))
        stack.callback(shutil.rmtree, inside)
        shutil.copy(FOLDER / "edge.c", inside)
        place = f"/tmp/{inside.name}"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/onnxruntime"]
        command = ["gcc", *flags, f"{place}/edge.c", "-o", f"{place}/edge", "-lonnxruntime", "-lzip", "-lcjson", "-lm"]
        subprocess.run(["chroot", str(root), *command], timeout=120, check=True)

        def run(*arguments: object) -> subprocess.CompletedProcess[str]:
            given = []
            for argument in map(str, arguments):
                carried = Path(argument).is_file()
                given.append(f"{place}/{Path(argument).name}" if carried else argument)
                if carried:
                    shutil.copy(argument, inside)
            command = ["chroot", str(root), f"{place}/edge", *given]
            return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

        yield run


@pytest.fixture(
    params=[
        pytest.param("in_javascript", marks=pytest.mark.network),
        pytest.param("in_c", marks=[pytest.mark.targets, pytest.mark.network]),
    ]
)
def example(request: pytest.FixtureRequest) -> Run:
    """Either of the two."""
    return request.getfixturevalue(request.param)


def packed(bundle: Bundle, folder: Path) -> Path:
    return pack(bundle, folder / f"packed-{bundle.manifest.name}.edge").path


@pytest.mark.parametrize(
    ("name", "model", "cases"),
    [("caption-attention", "caption", 10), ("chars", "chars", 8), ("digits-dbn", "draw", 9), ("age", "faces", 9)],
)
def test_recorded_answers_are_within_their_tolerance(example: Run, tmp_path: Path, name: str, model: str, cases: int):
    done = example(packed(unpack(name, tmp_path), tmp_path), model)
    assert (done.returncode, done.stdout) == (0, f"{cases} cases, 0 wrong numbers\n"), done.stderr[-500:]


def test_wrong_answers_are_found(example: Run, tmp_path: Path):
    bundle = write_scale_bundle(tmp_path / "scale.edge", SCALE * np.float32(1.001))
    done = example(packed(bundle, tmp_path), next(iter(bundle.manifest.models)))
    assert done.returncode == 1, done.stderr[-500:]
    assert done.stdout.startswith("4 cases, ")
    assert "0 wrong" not in done.stdout.split(", ")[1][:2]


def test_a_sequence_is_answered_as_in_python(example: Run, tmp_path: Path):
    bundle = unpack("timer-gru", tmp_path)
    steps = np.random.default_rng(0).random((1, 9, 2), dtype=np.float32)
    steps.tofile(tmp_path / "steps")
    spec = bundle.model("timer")
    state = ",".join(str(size) if isinstance(size, int) else "1" for size in spec.inputs[1].shape)
    done = example(packed(bundle, tmp_path), "timer", tmp_path / "steps", "1,9,2", "/dev/zero", state)
    assert done.returncode == 0, done.stderr[-500:]
    name, *numbers = done.stdout.splitlines()[0].split()
    with TensorPipeline.open(bundle) as pipeline:
        expected = pipeline.engine.run({"u": steps, "h0": np.zeros([int(n) for n in state.split(",")], np.float32)})
    assert name == "answer"
    assert np.allclose(np.array(numbers, float), expected["answer"][0], atol=1e-5)


def test_raw_rgb_is_answered_as_in_python(example: Run, tmp_path: Path):
    from runtime.pipelines.digits import DigitsPipeline

    bundle = unpack("digits-cnn", tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (1, 20, 31, 3)).astype(np.uint8)
    picture.tofile(tmp_path / "photo.rgb")
    done = example(packed(bundle, tmp_path), "digits", tmp_path / "photo.rgb", "1,20,31,3")
    found = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    with DigitsPipeline.open(bundle) as pipeline:
        (expected,) = pipeline.read(list(picture))
    assert found["digit"] == [str(expected["digit"])]
    assert np.allclose(np.array(found["probabilities"], float), expected["probabilities"], atol=1e-5)


@pytest.mark.parametrize("name", ["edge.c", "edge.mjs"])
def test_an_example_is_read_at_a_glance(name: str):
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120
