"""What a changed weight does to the answers, in the memory of two runs."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporters.mutants import each_mutation, measure_mutants
from exporters.rerun import Rerun, Schedule
from exporters.spec import Case, Input, Output, Signature

LAYERS = 12
WIDTH = 16


class Chain(nn.Module):
    """Many layers, each with a shortcut around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


class Branches(nn.Module):
    """Two chains and a table that hangs on no input; the later chain is read first, and one weight has two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.table = Chain(), Chain(), nn.Linear(WIDTH, WIDTH)
        self.unused = nn.Linear(WIDTH, WIDTH)
        self.shared = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        right = self.right(x)
        left = self.left(self.shared(x))
        return self.shared(left * right) @ (self.table.weight @ self.table.weight), right


class InPlaceChain(Chain):
    """Operators that write into values of their own."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            made = torch.relu_(layer(x))
            made += x
            x = made
        return x


class InPlace(nn.Module):
    """An operator that writes into what is read later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        torch.relu_(made)
        return self.second(made) + made


def program_of(module: nn.Module) -> torch.fx.GraphModule:
    batch = torch.export.Dim.DYNAMIC
    exported = torch.export.export(module.eval(), (torch.zeros(3, WIDTH),), dynamic_shapes=({0: batch},), strict=False)
    return exported.module(check_guards=False)


@pytest.mark.parametrize("kind", [Chain, Branches, InPlaceChain, InPlace], ids=lambda kind: kind.__name__)
def test_the_answers_after_a_change_are_those_of_the_changed_module(kind):
    torch.manual_seed(0)
    module = kind()
    program = program_of(copy.deepcopy(module))
    x = torch.randn(5, WIDTH)
    schedule = Schedule(program, [name for name, one in module.named_parameters() if one.ndim == 2])
    rerun = Rerun(schedule, [x])
    asked = []
    with torch.no_grad():
        for name, form in each_mutation(program, schedule.weights):
            found = rerun.again(name)
            changed = copy.deepcopy(module)
            weight = changed.get_parameter(name)
            weight.copy_(weight.to(getattr(torch, form)).to(weight.dtype))
            expected = changed(x)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for answer, wanted in zip(found, expected, strict=True):
                assert torch.equal(torch.from_numpy(answer), wanted), name
            asked.append(name)
    assert sorted(asked) == sorted(schedule.weights)


def test_weights_that_no_format_changes_are_passed_over():
    module = Chain()
    with torch.no_grad():
        module.layers[3].weight.fill_(0.5)
    exported = torch.export.export(module.eval(), (torch.zeros(3, WIDTH),), strict=False)
    signature = Signature((Input("x", "float32", (3, WIDTH)),), (Output("y", "float32", (3, WIDTH)),))
    case = Case("one", {"x": np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)})
    found = measure_mutants(exported.module(check_guards=False), signature, [case, case])
    assert [mutant.layer for mutant in found] == [f"layers.{at}.weight" for at in range(LAYERS) if at != 3]
    assert all(mutant.effects["y"] > 0 for mutant in found)


def test_weights_are_asked_for_in_their_order():
    program = program_of(Chain())
    rerun = Rerun(Schedule(program, ["layers.1.weight", "layers.0.weight"]), [torch.zeros(1, WIDTH)])
    with pytest.raises(ValueError, match=r"kept are for layers\.0\.weight, asked is layers\.1"):
        rerun.again("layers.1.weight")


@pytest.mark.parametrize("kind", [Chain, Branches, InPlaceChain], ids=lambda kind: kind.__name__)
def test_no_more_values_are_held_than_two_runs_hold(kind, monkeypatch):
    program = program_of(kind())
    schedule = Schedule(program, [name for name, one in program.named_parameters() if one.ndim == 2])
    x = torch.zeros(1000, WIDTH)
    most = 0

    class Watched(Rerun):
        def run_node(self, n: torch.fx.Node) -> object:
            nonlocal most
            held = {id(value): value.nbytes for value in (*self.env.values(), *getattr(self, "_kept", {}).values())}
            most = max(most, sum(size for size in held.values() if size >= x.nbytes))
            return super().run_node(n)

    rerun = Watched(schedule, [x])
    once, most = most, 0
    for name, _ in each_mutation(program, schedule.weights):
        rerun.again(name)
    computed = sum(len(step.fresh) for step in schedule.steps.values())
    assert computed <= 2 * len(program.graph.nodes), "the unchanged run goes along, it does not begin anew"
    assert once >= 2 * x.nbytes, "a run holds the input of a layer and its output"
    assert most <= 2 * once + x.nbytes
