"""Opening the models of a bundle: in a thread of its own, one after the other, and the first fault is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.bundle import Bundle
from runtime.engine import Engine
from runtime.errors import BundleError, DeviceError
from runtime.pipelines.engines import open_engines


def opened(bundle: Bundle, device: str = "cpu", expected: tuple[str, ...] = ()) -> dict[str, Engine]:
    return open_engines(bundle, expected, device=device, threads=1, variant=None, meanwhile=lambda: None)


@contextmanager
def closing_all(engines: dict[str, Engine]) -> Iterator[dict[str, Engine]]:
    yield engines
    for engine in engines.values():
        engine.close()


def test_the_engines_come_in_the_order_of_the_manifest(age_bundle):
    engines = opened(Bundle.open(age_bundle))
    assert list(engines) == ["faces", "age"]
    for name, engine in engines.items():
        assert engine.name == name
        engine.close()


def test_the_caller_goes_on_while_the_models_are_opened(age_bundle, monkeypatch):
    """Each side waits for the other: one after the other they would wait for ever."""
    together = threading.Barrier(2, timeout=30)
    graph = Bundle.graph

    def wait(self, name, variant="fp32"):
        if name == "faces":
            together.wait()
        return graph(self, name, variant)

    monkeypatch.setattr(Bundle, "graph", wait)
    with closing_all(
        open_engines(
            Bundle.open(age_bundle),
            (),
            device="cpu",
            threads=1,
            variant=None,
            meanwhile=lambda: together.wait() and None,
        )
    ) as engines:
        assert len(engines) == 2


def test_one_model_is_opened_before_the_next_is_read(age_bundle, monkeypatch):
    """Otherwise the bytes of all of them would lie in memory at the same time."""
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
    with closing_all(opened(Bundle.open(age_bundle))):
        assert steps == ["faces", "faces is open", "age", "age is open"]


def test_a_fault_of_the_caller_s_part_is_told_once_the_models_are_opened(age_bundle):
    def fail() -> None:
        raise RuntimeError("no OpenCV today")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no OpenCV today"):
        open_engines(Bundle.open(age_bundle), (), device="cpu", threads=1, variant=None, meanwhile=fail)
    assert threading.active_count() == before


def test_the_first_fault_is_told_and_the_other_sessions_are_closed(age_bundle, monkeypatch):
    closed: list[str] = []
    close, graph = Engine.close, Bundle.graph
    monkeypatch.setattr(Engine, "close", lambda self: (closed.append(self.name), close(self))[1])

    def damaged(self, name, variant="fp32"):
        if name == "age":
            raise BundleError("age is damaged")
        return graph(self, name, variant)

    monkeypatch.setattr(Bundle, "graph", damaged)
    with pytest.raises(BundleError, match="age is damaged"):
        opened(Bundle.open(age_bundle))
    assert closed == ["faces"]


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
