"""Opening the models of a bundle: beside each other or one by one, the same engines, and the first fault is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError
from runtime.pipelines import engines as module
from runtime.pipelines.engines import open_engines


def opened(bundle: Bundle, device: str = "cpu", expected: tuple[str, ...] = ()) -> dict[str, Engine]:
    return open_engines(bundle, expected, device=device, threads=1, variant=None, meanwhile=lambda: None)


@pytest.mark.parametrize("cores", [1, 2])
def test_the_engines_come_in_the_order_of_the_manifest(age_bundle, monkeypatch, cores):
    monkeypatch.setattr(module, "default_threads", lambda: cores)
    engines = opened(Bundle.open(age_bundle))
    assert list(engines) == ["faces", "age"]
    for name, engine in engines.items():
        assert engine.name == name
        engine.close()


def test_with_two_cores_all_models_are_under_way_at_once(age_bundle, monkeypatch):
    """Each waits for the other, and for the caller: one after the other they would wait for ever."""
    monkeypatch.setattr(module, "default_threads", lambda: 2)
    together = threading.Barrier(3, timeout=30)
    graph = Bundle.graph

    def wait(self, name, variant="fp32"):
        together.wait()
        return graph(self, name, variant)

    monkeypatch.setattr(Bundle, "graph", wait)
    engines = open_engines(
        Bundle.open(age_bundle), (), device="cpu", threads=1, variant=None, meanwhile=lambda: together.wait() and None
    )
    assert len(engines) == 2


def test_with_one_core_no_two_models_are_in_memory_beside_each_other(age_bundle, monkeypatch):
    monkeypatch.setattr(module, "default_threads", lambda: 1)
    steps: list[str] = []
    graph = Bundle.graph
    monkeypatch.setattr(
        Bundle, "graph", lambda self, name, variant: (steps.append(name), graph(self, name, variant))[1]
    )
    create = Engine.__init__

    def created(self, *arguments, **options):
        create(self, *arguments, **options)
        steps.append(f"{self.name} is open")

    monkeypatch.setattr(Engine, "__init__", created)
    opened(Bundle.open(age_bundle))
    assert steps == ["faces", "faces is open", "age", "age is open"]


def test_the_first_fault_is_told_and_the_other_sessions_are_closed(age_bundle, monkeypatch):
    closed: list[str] = []
    close, graph = Engine.close, Bundle.graph
    monkeypatch.setattr(Engine, "close", lambda self: (closed.append(self.name), close(self))[1])

    def damaged(self, name, variant="fp32"):
        if name == "faces":
            raise BundleError("faces is damaged")
        return graph(self, name, variant)

    monkeypatch.setattr(Bundle, "graph", damaged)
    with pytest.raises(BundleError, match="faces is damaged"):
        opened(Bundle.open(age_bundle))
    assert closed == ["age"]


def test_what_is_missing_is_named_before_anything_is_opened(age_bundle):
    with pytest.raises(BundleError, match="needs the models faces, nose; nose is missing, the bundle holds faces, age"):
        opened(Bundle.open(age_bundle), expected=("faces", "nose"))
    with pytest.raises(DeviceError):
        opened(Bundle.open(age_bundle), device="no such device")


def test_a_first_answer_does_without_what_only_others_need(age_bundle: Path, portrait_path: Path):
    """Each of these would make a cold start longer."""
    unneeded = (
        "av", "email", "html", "importlib.metadata", "runtime.door", "runtime.media.clips", "runtime.media.video",
        "runtime.occlusion", "secrets", "shutil", "subprocess", "zipfile",
    )  # fmt: skip
    code = (
        "import sys, edgedl\n"
        "with edgedl.load(sys.argv[1], threads=1) as age: assert age.faces(sys.argv[2])\n"
        "print(*sorted(set(sys.argv[3:]) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{code}",
         str(age_bundle), str(portrait_path), *unneeded],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == []
