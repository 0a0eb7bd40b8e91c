"""How a module is called with a flat list of inputs, and what its answers are called."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from exporters.calling import Call, bind, check_call, flatten, named_answers, with_forward
from exporters.errors import GuardError
from exporters.spec import Input, Output, Signature


def inputs(*names: str) -> list[Input]:
    return [Input(name, "float32", ("N", 2)) for name in names]


def outputs(*names: str) -> list[Output]:
    return [Output(name, "float32", ("N", 2)) for name in names]


def module(forward) -> nn.Module:
    return type("Case", (nn.Module,), {"forward": staticmethod(forward)})()


def tried(one: nn.Module, declared: list[Input]):
    tensors = {tensor.name: torch.ones(1, 2) for tensor in declared}

    def works(call: Call) -> str | None:
        args, kwargs = call.fill(tensors)
        try:
            one(*args, **kwargs)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    return works


@pytest.mark.parametrize(
    ("forward", "names", "call"),
    [
        (lambda query, key: query - key, ("key", "query"), "forward(query, key)"),
        (lambda query, key: query - key, ("a", "b"), "forward(a, b)"),
        (lambda x, *, mask: x * mask, ("mask", "x"), "forward(x, mask=mask)"),
        (lambda x, scale=2.0, mask=None: x if mask is None else x * mask, ("x", "mask"), "forward(x, mask=mask)"),
        (lambda x, state: x + state[0] + state[1], ("x", "h", "c"), "forward(x, (h, c))"),
        (lambda pair, z: pair[0] - pair[1] + z, ("a", "b", "z"), "forward((a, b), z)"),
        (lambda *all_of_them: sum(all_of_them), ("a", "b", "c"), "forward(a, b, c)"),
        (lambda x, h=None: x if h is None else x + h, ("x",), "forward(x)"),
        (lambda x, h: x + h, ("x", "h0"), "forward(x, h0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_inputs_find_their_places(forward, names: tuple[str, ...], call: str) -> None:
    one, declared = module(forward), inputs(*names)
    assert str(bind(one, declared, tried(one, declared))) == call


@pytest.mark.parametrize(
    ("forward", "names", "message"),
    [
        (lambda query, key: query - key, ("key", "other"), "could be meant by name or by position"),
        (lambda x: x + 1, ("a", "b"), r"forward\(x\) cannot be called with the 2 inputs a, b"),
        (lambda p, q: sum(p) + sum(q), ("a", "b", "c"), "in more than one way"),
        (lambda x, y, z: x, ("a",), "cannot be called with the 1 inputs a"),
    ],
    ids=["mixture", "too many", "ambiguous", "too few"],
)
def test_what_cannot_be_told_is_refused(forward, names: tuple[str, ...], message: str) -> None:
    one, declared = module(forward), inputs(*names)
    with pytest.raises(GuardError, match=message):
        bind(one, declared, tried(one, declared))


def test_arguments_that_were_given_name_every_input_once() -> None:
    check_call(Call(("x", ("h", None), {"c": "c"})), inputs("x", "h", "c"))
    for args in (("x",), ("x", "h", "h", "c"), ("x", "h", "z")):
        with pytest.raises(GuardError, match="declared are x, h, c, each once"):
            check_call(Call(args), inputs("x", "h", "c"))


def test_answers_of_a_dict_bind_by_key_and_others_by_order() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert list(named_answers({"b": b, "a": a}, outputs("a", "b")).values()) == [a, b]
    assert list(named_answers((a, (b, None)), outputs("x", "y")).values()) == [a, b]
    assert list(named_answers({"p": a, "q": b}, outputs("x", "y")).values()) == [a, b]
    with pytest.raises(GuardError, match="Outputs of a dict are called as its keys are"):
        named_answers({"a": a, "c": b}, outputs("a", "b"))
    with pytest.raises(GuardError, match=r"returns 2 values \(Tensor, int\), declared are 2 outputs"):
        named_answers((a, 3), outputs("a", "b"))


def test_the_flat_module_answers_as_the_module_does() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            return {"second": state[1] * 3, "first": x - state[0]}

    flat = flatten(Net(), Signature(inputs("x", "h", "c"), outputs("first", "second")), Call(("x", ("h", "c"))))
    first, second = flat(torch.tensor([5.0]), torch.tensor([2.0]), torch.tensor([7.0]))
    assert (first.item(), second.item()) == (3.0, 21.0)


def test_fields_of_named_tuples_and_dataclasses_bind_as_keys_do() -> None:
    pair = namedtuple("pair", ("a", "b"))
    record = dataclasses.make_dataclass("record", ("a", "b"))
    a, b = torch.zeros(1), torch.ones(1)
    for made in (pair(a, b), record(a, b)):
        assert list(named_answers(made, outputs("b", "a")).values()) == [b, a]
        assert list(named_answers(made, outputs("x", "y")).values()) == [a, b]
        with pytest.raises(GuardError, match="as its fields"):
            named_answers(made, outputs("a", "c"))


@pytest.mark.parametrize("own", [False, True], ids=["of its class", "of its own"])
def test_another_forward_is_there_for_a_while(own: bool) -> None:
    one = module(lambda x: x + 1)
    if own:
        one.forward = lambda x: x + 2
    before, x = dict(vars(one)), torch.zeros(1)

    def twice(*tensors: Tensor) -> Tensor:
        return 2 + 2 * tensors[0]

    with contextlib.suppress(ZeroDivisionError), with_forward(one, twice):
        assert one(x + 3) == 8
        assert list(inspect.signature(one.forward).parameters) == ["x"]
        raise ZeroDivisionError
    assert vars(one) == before
    assert one(x) == 1 + own
