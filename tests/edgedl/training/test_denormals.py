"""A training computes without denormal numbers, from the first step to the last, and leaves the process as it was."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from edgedl.tasks.digits.config import PretrainOptions
from edgedl.tasks.digits.contrastive_divergence import pretrain
from edgedl.tasks.digits.rbm import RBM
from edgedl.training.batches import Batches
from edgedl.training.fit import fit
from edgedl.training.objectives import AgeLearning, AgeObjective
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from exporters.denormals import denormals_are_flushed
from tests.edgedl.training.tiny import YEARS, tiny_module, tiny_samples

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor has no such flag")

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = TrainOptions(epochs=2, batch_size=32, lr=0.1, device="cpu", threads=2)


def kept() -> int:
    """How many of 100,000 denormal numbers two threads leave as they are."""
    numbers = torch.full((100_000,), 1000, dtype=torch.int32).view(torch.float32)
    return int(np.count_nonzero((numbers * 1).view(torch.int32).numpy()))


@dataclass(frozen=True)
class Watching(AgeLearning):
    """Counts denormal numbers that are kept: in the loss, in its backward pass, and in validation."""

    seen: dict[str, list[int]] = field(default_factory=lambda: {"loss": [], "backward": [], "measure": []})

    def loss(self, network, batch):
        self.seen["loss"].append(kept())
        loss = super().loss(network, batch)
        loss.register_hook(lambda gradient: self.seen["backward"].append(kept()))
        return loss

    def measure(self, network, batch):
        self.seen["measure"].append(kept())
        return super().measure(network, batch)


class SwitchedOff(Batches):
    """Somebody clears the flag between the steps, as ONNX Runtime does where it opens its first session."""

    def __iter__(self):
        for batch in super().__iter__():
            torch.set_flush_denormal(False)
            yield batch


@pytest.mark.parametrize("batches", [Batches, SwitchedOff])
def test_no_step_keeps_any(tmp_path, batches):
    samples = tiny_samples()
    sources = [batches(samples, 32, train=train, seed=0) for train in (True, False)]
    learning = Watching(AgeObjective(YEARS))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert kept() == 100_000
        fit(tiny_module(learning), *sources, Run.create(tmp_path / "run", {"task": "age"}), OPTIONS)
        assert kept() == 100_000, "the process is given back"
    finally:
        torch.set_num_threads(threads)
    assert all(set(counts) == {0} for counts in learning.seen.values()), learning.seen
    assert len(learning.seen["loss"]) == len(learning.seen["backward"]) == 12


FIRST_SESSION = """
import sys
import onnx, onnxruntime, torch
from onnx import TensorProto, helper
from edgedl.training.batches import Batches
from edgedl.training.fit import fit
from edgedl.training.objectives import AgeObjective
from edgedl.training.run import Run
from tests.edgedl.training.test_denormals import OPTIONS, Watching, kept
from tests.edgedl.training.tiny import YEARS, tiny_module, tiny_samples

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy")
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "graph", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()

class Opening(Batches):
    def __iter__(self):
        for batch in super().__iter__():
            onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            yield batch

learning = Watching(AgeObjective(YEARS))
sources = Opening(tiny_samples(), 32, train=True), Batches(tiny_samples(), 32, train=False)
fit(tiny_module(learning), *sources, Run.create(sys.argv[1], {"task": "age"}), OPTIONS)
print({name: set(counts) for name, counts in learning.seen.items()}, kept())
"""


@pytest.mark.xdist_group("preloaded")
def test_the_first_session_of_a_process_opened_between_two_steps(preloaded, tmp_path):
    done = subprocess.run(
        [preloaded.bin / "python", "-c", FIRST_SESSION, str(tmp_path / "run")],
        cwd=ROOT, env=preloaded.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'loss': {0}, 'backward': {0}, 'measure': {0}} 100000\n"


def test_a_boltzmann_machine_learns_without_them():
    seen = []

    class Machine(RBM):
        def hidden_probabilities(self, visible):
            seen.append(denormals_are_flushed())
            return super().hidden_probabilities(visible)

    data = torch.rand(8, 6, generator=Generator().manual_seed(0))
    pretrain(Machine(6, 3), data, data, PretrainOptions(epochs=1, batch_size=4), Generator().manual_seed(0))
    assert all(seen)
    assert len(seen) > 2
    assert not denormals_are_flushed()
