"""A run's configuration: the command line, config.json, range checks and resuming share one typed form."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, fields
from importlib import import_module, util
from pathlib import Path
from typing import Literal

import pytest

from edgedl.tasks import task, task_names
from edgedl.tasks.run_config import RunConfig, given, option
from edgedl.training.arguments import add_training_arguments
from runtime.errors import InputError

DATA = {"name": "none", "n": 0, "skipped": {}, "notes": []}
SHARED = {"data": DATA, "seed": 0, "lr": 0.1, "epochs": 1, "optimiser": "sgd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tea(RunConfig):
    task = "tea"

    kind: Literal["green", "black"] = option(default="green")
    minutes: int = option(least=1)
    sugar: float | None = option(least=0, below=1, default=None)
    cups: tuple[int, ...] = option(default=())


def tea(**changes: object) -> Tea:
    return Tea(**{**SHARED, "minutes": 3} | changes)  # type: ignore[arg-type]


def configs() -> dict[str, type[RunConfig]]:
    """The configuration of every task that has one."""
    found = {}
    for name in task_names():
        if util.find_spec(f"edgedl.tasks.{name}.config"):
            module = import_module(f"edgedl.tasks.{name}.config")
            own = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, RunConfig)]
            (found[name],) = [kind for kind in own if kind is not RunConfig] or [None]
    return {name: kind for name, kind in found.items() if kind}


@pytest.mark.parametrize("name", configs())
def test_the_options_of_a_task_are_those_of_its_configuration(name: str) -> None:
    own, shared = ArgumentParser(), ArgumentParser()
    task(name).add_train_arguments(own)
    add_training_arguments(shared)
    known = {action.dest for action in shared._actions}
    declared = {action.dest for action in own._actions if action.dest not in known}
    config = configs()[name]
    assert config.task == name
    assert declared == {one.name for one in fields(config) if "option" in one.metadata} | set(config.not_kept)


def test_json_and_back() -> None:
    written = tea(cups=(2, 3)).to_json()
    assert written == {
        "task": "tea", **SHARED, "license": "Apache-2.0", "weights": (), "kind": "green", "minutes": 3, "cups": (2, 3)
    }  # fmt: skip
    assert Tea.from_json({**written, "cups": [2, 3], "weights": [], "created": "today"}) == tea(cups=(2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minutes": None}, "minutes is None, which this version"),
        ({"minutes": True}, "minutes is True"),
        ({"minutes": "3"}, "minutes is '3'"),
        ({"kind": "red"}, "kind is 'red'"),
        ({"cups": ["a"]}, "cups is"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"minutes": 0}, "--minutes must be at least 1, not 0"),
        ({"sugar": 1.0}, "--sugar is from 0 to below 1, not 1.0"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tea.from_json(tea().to_json() | change)


def test_a_missing_key_is_named() -> None:
    written = tea().to_json()
    del written["minutes"]
    with pytest.raises(InputError, match=r"^x/config.json has no 'minutes'; it was written by another version"):
        Tea.from_json(written, "x/config.json")


def test_resuming_with_another_value_is_refused_and_with_the_same_is_not() -> None:
    nothing = Namespace(kind=None, minutes=None, sugar=None, cups=None)
    tea().check_resumed(nothing, Path("run"))
    tea(cups=(2, 3)).check_resumed(Namespace(kind="green", minutes=3, sugar=None, cups=[2, 3]), Path("run"))
    with pytest.raises(InputError, match=r"^run was begun with --cups 2 3; resume it without --cups$"):
        tea(cups=(2, 3)).check_resumed(Namespace(cups=[2]), Path("run"))


def test_what_was_given() -> None:
    assert given(Namespace(kind=None, minutes=5, sugar=0.0, cups=[1]), Tea) == {
        "minutes": 5,
        "sugar": 0.0,
        "cups": (1,),
    }
