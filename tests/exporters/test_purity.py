"""A function of its inputs, or refused; fresh copies; the float type that a network computes in."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.copies import fresh, plain
from exporters.errors import GuardError
from exporters.precision import computing_in, in_dtype, own_dtype
from exporters.purity import check_function

COUNT = itertools.count()


class Net(nn.Module):
    """A module whose forward is the function under test; some keep a state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.calls, self.cache = kind, 0, {}
        self.a = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.kind)(self.a(x))

    def plain(self, x):
        return x

    def cached(self, x):
        table = self.cache.setdefault(x.shape[0], torch.arange(x.shape[0], dtype=x.dtype))
        return x * table[:, None]

    def counted(self, x):
        self.calls += 1  # reaches no answer
        return x

    def counter(self, x):
        self.calls += 1
        return x * self.calls

    def running(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean

    def first(self, x):
        """What data-dependent initialisation does: the first input decides for all that follow."""
        if "scale" not in self.cache:
            self.cache["scale"] = x.abs().max()
        return x / self.cache["scale"]

    def in_place(self, x):
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return x - self.mean

    def listed(self, x):
        self.cache.setdefault("seen", []).append(1)
        return x * len(self.cache["seen"])

    def dropout(self, x):
        return F.dropout(x, 0.5)

    def noise(self, x):
        return x + torch.rand_like(x)

    def drawn(self, x):
        return x + torch.randn(4)

    def bernoulli(self, x):
        return torch.bernoulli(x.sigmoid())

    def shuffled(self, x):
        return x[:, torch.randperm(4)]

    def outside(self, x):
        return x + next(COUNT)

    def attention(self, x):
        return F.scaled_dot_product_attention(x[None], x[None], x[None])[0]

    def nan(self, x):
        return x * float("nan")


def run(module: nn.Module, case: Tensor) -> dict:
    with torch.no_grad():
        return {"y": module(case).numpy().copy()}


def check(module: nn.Module) -> None:
    check_function(module, lambda: fresh(module), run, torch.ones(2, 4), torch.full((5, 4), 0.3))


@pytest.mark.parametrize("kind", ["plain", "cached", "counted", "attention", "nan"])
def test_functions_and_caches_pass(kind: str) -> None:
    check(Net(kind))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("counter", "keeps a state that reaches its answers: calls changes"),
        ("running", "keeps a state that reaches its answers: mean changes"),
        ("in_place", "keeps a state that reaches its answers: mean changes"),
        ("first", "keeps a state that reaches its answers: cache changes"),
        ("listed", "keeps a state that reaches its answers: cache changes"),
        ("dropout", r"forward is random: .*at test_purity.py:\d+: return F.dropout\(x, 0.5\)"),
        ("noise", r"forward is random: .*at test_purity.py:\d+: return x \+ torch.rand_like\(x\)"),
        ("drawn", r"forward is random: .*torch.randn\(4\)"),
        ("bernoulli", "forward is random: bernoulli"),
        ("shuffled", "forward is random: randperm"),
        ("outside", "not a function of its inputs"),
    ],
)
def test_chance_and_state_are_refused_by_name(kind: str, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        check(Net(kind))


def test_copies_that_share_what_calls_change_are_refused() -> None:
    class Shared(Net):
        def __deepcopy__(self, memo: dict) -> Shared:
            return self

    module = Shared("counted")
    with pytest.raises(GuardError, match="calls have changed calls in all copies"):
        check(module)


def test_a_copy_knows_nothing_of_another() -> None:
    module = Net("cached")
    used = fresh(module)
    run(used, torch.ones(3, 4))
    assert module.cache == {}
    assert list(used.cache) == [3]


def test_an_old_weight_norm_and_a_kept_activation_are_copied() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(4, 3))
    x = torch.ones(2, 4)
    old.seen = [old(x)]  # carries a graph of gradients
    torch.testing.assert_close(fresh(old)(x), old(x).detach())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_copied_is_refused_by_what_it_is() -> None:
    scripted = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(GuardError, match="is a TorchScript module"):
        plain(scripted)
    with pytest.raises(GuardError, match=r"the submodule 0 is a TorchScript module"):
        plain(nn.Sequential(scripted))
    with pytest.raises(GuardError, match="found function"):
        plain(run)  # type: ignore[arg-type]
    holder = nn.Linear(2, 2)
    holder.file = open(__file__)  # noqa: SIM115, PTH123
    with holder.file, pytest.raises(GuardError, match="keep open files, locks"):
        fresh(holder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_wrapped_or_compiled_is_taken_out() -> None:
    inner = nn.Linear(2, 2)
    assert plain(torch.compile(inner)) is inner
    assert plain(nn.DataParallel(inner)) is inner


class Casts(nn.Module):
    """Everything that published code does to fall back to float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.norm, self.gru = nn.Linear(8, 4), nn.RMSNorm(4), nn.GRU(4, 4, batch_first=True)
        self.table = torch.rand(4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.a(ids.float() / 255))
        x = x.softmax(-1, dtype=torch.float32) * torch.arange(4, dtype=torch.float32) + self.table.to(torch.float32)
        x = self.gru(x)[0].type(torch.float32) + torch.tensor([0.1]) + torch.full((4,), 0.3)
        return x + torch.ones_like(x, dtype=torch.float32) * torch.linspace(0, 1, 4, dtype=torch.float32)


def test_a_network_that_names_float32_is_computed_in_float64() -> None:
    """Equal, bit for bit, to the module written out in doubles."""
    module, ids = Casts().eval(), torch.randint(0, 256, (3, 5, 8), dtype=torch.uint8)
    double = in_dtype(fresh(module), torch.float64, torch.float32)
    with computing_in(torch.float64, torch.float32), torch.no_grad():
        found = double(ids)
    assert found.dtype == torch.float64
    with torch.no_grad():
        x = double.norm(double.a(ids.double() / 255))
        x = x.softmax(-1) * torch.arange(4, dtype=torch.float64) + double.table
        x = double.gru(x)[0] + torch.tensor([0.1], dtype=torch.float64) + torch.full((4,), 0.3, dtype=torch.float64)
        expected = x + torch.linspace(0, 1, 4, dtype=torch.float64)
    assert torch.equal(found, expected)


class Counted(TorchDispatchMode):
    """Counts the operators that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "layer", [nn.RNN(3, 4), nn.RNN(3, 4, nonlinearity="relu"), nn.GRU(3, 4), nn.LSTM(3, 4)], ids=str
)
def test_a_recurrent_layer_is_not_watched_step_by_step(layer: nn.RNNBase) -> None:
    """Watching each operator made a reference of 65,536 steps too dear to take."""
    steps = torch.randn(50, 2, 3, dtype=torch.float64)
    with Counted() as counted, computing_in(torch.float64, torch.float32), torch.no_grad():
        layer.double()(steps)
    assert counted.calls < 50


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_networks_of_other_types_are_computed_in_float32(own: torch.dtype) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x.to(self.a.weight.dtype)).softmax(-1, dtype=torch.float32).to(own)

    module = Half().to(own).eval()
    assert own_dtype(module) == own
    single = in_dtype(fresh(module), torch.float32, own)
    with computing_in(torch.float32, own), torch.no_grad():
        found = single(torch.ones(1, 8))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(torch.ones(1, 8, dtype=own)).detach().float(), atol=2e-2, rtol=0)


def test_a_narrower_cast_stays() -> None:
    with computing_in(torch.float64, torch.float32):
        assert torch.ones(2).half().dtype == torch.float16
        assert torch.ones(2).dtype == torch.float64
    assert torch.ones(2).dtype == torch.float32
