"""``edgedl export package.module:factory``: anybody's module, through the gate, into a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle import Bundle

MODULE = """
import torch
from exporters.spec import Input, Output

class Mix(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(3, 1, bias=False)
        self.mix.weight.data = torch.tensor([[0.299, 0.587, 0.114]])

    def forward(self, x):
        return self.mix(x).squeeze(-1)

class Training(Mix):
    pass

OPTIONS = {
    "inputs": [Input("x", "float32", ("N", 3))],
    "outputs": [Output("y", "float32", ("N",))],
    "sizes": {"N": [1, 2, 3, 4, 5, 6, 7, 32]},
}

def mix():
    return Mix().eval(), OPTIONS

def named():
    return Mix().eval(), {**OPTIONS, "name": "grey", "task": "grey", "license": "CC0-1.0"}

def training():
    return Mix().train(), OPTIONS

def module_only():
    return Mix().eval()

def no_outputs():
    return Mix().eval(), {"inputs": OPTIONS["inputs"]}

def misspelt():
    return Mix().eval(), {**OPTIONS, "colour": "grey"}

def nearly():
    return Mix().eval(), {**OPTIONS, "size": {"N": [1, 2]}}

def nothing_at_all():
    pass

class Needy(Mix):
    def __init__(self, width):
        super().__init__()

ready = Mix()

def broken():
    return 1 / 0

class Holder:
    make = staticmethod(mix)

number = 3
"""


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("factories.py").write_text(MODULE)
    Path("needs.py").write_text("import something_that_nobody_has\n")
    yield
    sys.modules.pop("factories", None)


def test_a_factory_becomes_a_bundle(edgedl):
    path = list(sys.path)
    result = edgedl("export", "factories:mix", "-o", "mine.edge", "--json")
    assert result.status == 0, result.err
    assert sys.path == path
    manifest = result.document["manifest"]
    assert (manifest["name"], manifest["task"]) == ("mix", "generic")
    assert manifest["models"]["mix"]["parity"]["outputs"]["y"]["atol"] > 0
    assert edgedl("verify", "mine.edge").status == 0


def test_options_of_the_command_line_win(edgedl):
    assert edgedl("export", "factories:named", "--name", "other").status == 0
    manifest = Bundle.open("other.edge").manifest
    assert (manifest.name, manifest.task, manifest.license) == ("other", "grey", "CC0-1.0")


def test_a_factory_may_lie_in_a_class(edgedl):
    assert edgedl("export", "factories:Holder.make").status == 0
    assert Bundle.open("make.edge").manifest.name == "make"


@pytest.mark.parametrize(
    ("source", "status", "found"),
    [
        ("factories:training", 1, "training mode"),
        ("factories:module_only", 2, "gives no inputs; declare them with --input"),
        ("factories:nothing_at_all", 2, "returned NoneType, expected an nn.Module or (module, options)"),
        ("factories:Mixx", 2, "factories has no Mixx; did you mean Mix?"),
        ("factories:Needy", 2, "A class is made without arguments; write a factory that gives them"),
        ("nowhere.py:mix", 2, "nowhere.py: there is no such file"),
        ("factories:no_outputs", 2, "gives no outputs"),
        ("factories:misspelt", 2, "there is no option 'colour'"),
        ("factories:nearly", 2, "there is no option 'size'; did you mean sizes?"),
        ("factories:nothing", 2, "factories has no nothing"),
        ("factories:number", 2, "is int, expected a factory, a class of nn.Module or a module"),
        ("nowhere:factory", 2, "there is no module nowhere"),
        ("factories.nowhere:factory", 2, "there is no module factories.nowhere"),
        ("needs:factory", 2, "importing needs failed with ModuleNotFoundError: No module named 'something"),
        ("factories:broken", 2, "factories:broken failed with ZeroDivisionError"),
        ("not a factory", 2, "it does not exist"),
    ],
)
def test_what_does_not_work_leaves_nothing_behind(edgedl, source, status, found):
    result = edgedl("export", source, "-o", "mine.edge")
    assert (result.status, result.out) == (status, "")
    assert found in result.err
    assert not Path("mine.edge").exists()


DECLARED = ("--input", "x: float32[N=1..64, 3] in 0..1", "--output", "y: float32[N]", "--size", "N=1,2,3,4,5,6,7,32")


@pytest.mark.parametrize("source", ["factories:Mix", "factories:ready", "factories:module_only", "factories.py:mix"])
def test_a_class_an_instance_or_a_file_with_declarations(edgedl, source):
    result = edgedl("export", source, "-o", "mine.edge", *DECLARED)
    assert result.status == 0, result.err
    (model,) = Bundle.open("mine.edge").manifest.models.values()
    assert str(model.dimensions["N"]) == "1 to 64"


def test_a_real_sample_is_held(edgedl, tmp_path):
    for number in range(8):
        np.savez(tmp_path / f"{number}.npz", x=np.full((1 + number, 3), number / 9, np.float32))
    samples = [word for number in range(8) for word in ("--sample", f"{number}.npz")]
    result = edgedl("export", "factories:Mix", "-o", "mine.edge", *DECLARED[:4], *samples)
    assert result.status == 0, result.err
    assert "no real input was held" not in result.err
    assert "sample 3.npz" in {case.name for case in Bundle.open("mine.edge").golden("Mix")}


def test_the_current_folder_is_left_aside_when_python_is_told_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "edgedl", "export", "factories:mix", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "there is no module factories" in json.loads(done.stdout)["error"]["message"]
