"""A run's configuration: the command line, config.json, range checks and resuming share one typed form."""

from __future__ import annotations

import json
import math
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module, util
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import pytest

from edgedl.tasks import task, task_names
from edgedl.tasks.comparison import Comparison, TrainingConfig
from edgedl.tasks.run_config import RunConfig, Settings, described, given, option
from edgedl.training.arguments import add_training_arguments
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import InputError

DATA = {"name": "none", "n": 0, "skipped": {}, "notes": []}
SHARED = {"data": DATA, "seed": 0, "lr": 0.1, "epochs": 1, "optimiser": "sgd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Water(Settings):
    source: Literal["tap", "well"] = option(default="tap", named="water")
    degrees: float = option(above=0, default=80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tea(RunConfig):
    task = "tea"

    kind: Literal["green", "black"] = option(default="green")
    minutes: int = option(least=1)
    sugar: float | None = option(least=0, below=1, default=None)
    cups: tuple[int, ...] = option(least=1, default=())
    heat: float = option(above=0, default=90.0)
    water: Water = Water()


def tea(**changes: object) -> Tea:
    return Tea(**{**SHARED, "minutes": 3} | changes)  # type: ignore[arg-type]


def options(settings: type[Settings]) -> set[str]:
    """The names of all options that set a field, those of nested settings too."""
    found = {one.metadata["named"] or one.name for one in fields(settings) if "option" in one.metadata}
    hints = get_type_hints(settings)
    nested = [hints[one.name] for one in fields(settings) if isinstance(hints[one.name], type)]
    return found.union(*(options(kind) for kind in nested if issubclass(kind, Settings)))


def configs() -> dict[str, type[RunConfig]]:
    """The configuration of every task that has one."""
    found = {}
    for name in task_names():
        if util.find_spec(f"edgedl.tasks.{name}.config"):
            module = import_module(f"edgedl.tasks.{name}.config")
            kinds = [
                value for value in vars(module).values() if isinstance(value, type) and issubclass(value, RunConfig)
            ]
            (found[name],) = [kind for kind in kinds if kind.__module__ == module.__name__] or [None]
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
    assert declared == options(config) | set(config.not_kept)


class BegunError(Exception):
    """A run would have been made now, with this configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config


def flat(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries by the names of their options, those of nested settings too."""
    nested = {key: value for key, value in entries.items() if isinstance(value, Mapping) and key != "pretraining"}
    found = {name: item for value in nested.values() for name, item in value.items()}
    told = {key: value.get("name", value.get("n")) for key, value in nested.items()}
    return found | told | {key: value for key, value in entries.items() if key not in nested}


@pytest.mark.parametrize("name", configs())
def test_help_shows_what_a_run_without_options_is_begun_with(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def create(path: Path, config: Mapping[str, Any]) -> None:
        raise BegunError(config)

    monkeypatch.setattr(Run, "create", create)
    parser = ArgumentParser()
    task(name).add_train_arguments(parser)
    with pytest.raises(BegunError) as begun:
        task(name).learn(parser.parse_args([], Namespace(data=None)), tmp_path / "run")
    config, kind = begun.value.config, configs()[name]
    each = kind.each if issubclass(kind, TrainingConfig) else None
    told = {one.dest: (one.help or "").rpartition("(default: ")[2] for one in parser._actions if one.dest != each}
    checked = set()
    for entries in config[f"{each}s"].values() if each else [config]:
        for key, value in flat(entries).items():
            if key not in told or value is None:
                continue
            shown = f"{value:g}" if isinstance(value, int | float) else str(value)
            shown = ("off", "on")[value] if isinstance(value, bool) else shown
            assert re.search(rf"(?<![\w.]){re.escape(shown)}(?![\w.])", told[key]), (key, shown, told[key])
            checked.add(key)
    assert checked >= {"lr", "epochs", "optimiser", "seed", "batch_size", "schedule", "bf16"}
    assert len(checked) > 18


class TrainedError(Exception):
    """A network would be trained now, with these options."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options


@pytest.mark.parametrize("augment", ["--augment", "--no-augment"])
@pytest.mark.parametrize("name", ["timer", "chars", "digits", "longlag"])
def test_resuming_without_options_goes_on_with_those_of_the_run(
    name: str, augment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """None of these values is a recipe's."""

    def fit(*arguments: Any) -> None:
        raise TrainedError(arguments[-1])

    monkeypatch.setattr(import_module(f"edgedl.tasks.{name}.training"), "fit", fit)
    parser = ArgumentParser()
    task(name).add_train_arguments(parser)

    def options(line: str) -> TrainOptions:
        with pytest.raises(TrainedError) as trained:
            task(name).learn(parser.parse_args(line.split(), Namespace(data=None)), tmp_path / "run")
        return trained.value.options

    given = "--epochs 7 --lr 0.0123 --seed 5 --batch-size 9 --optimiser sgd --momentum 0.3 --schedule step --ema 0.5"
    begun = options(
        f"{given} --warmup 1 --clip 2 --patience 3 --keep last --settle 2 --settle-lr 0.4 --nesterov {augment}"
    )
    assert (begun.epochs, begun.lr, begun.seed, begun.batch_size) == (7, 0.0123, 5, 9)
    assert options("--resume") == replace(begun, resume=True)
    longer = options("--resume --epochs 14")
    assert (longer.epochs, longer.settle, longer.lr) == (14, 4, 0.0123)
    assert options("--resume") == longer, "what a training goes on with is in config.json"


@pytest.mark.parametrize("name", [name for name in task_names() if not task(name).resumes])
def test_a_task_that_does_not_resume_says_so(name: str, tmp_path: Path) -> None:
    parser = ArgumentParser()
    task(name).add_train_arguments(parser)
    with pytest.raises(InputError, match=f"a run of {name} takes .* and is not resumed; train it anew"):
        task(name).learn(parser.parse_args(["--resume"], Namespace(data=None)), tmp_path / "run")


# As the versions before typed configurations wrote them.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "chars": {
        "task": "chars", "cell": "gru", "hidden": 8, "layers": 1, "embedding": 5, "dropout": 0.0, "sequence": 20,
        "characters": ["a", "b"], "weights": [], "license": "LicenseRef-training-data",
        "data": {"name": "a.txt", "n": 9, "sha256": "0", "skipped": {}, "notes": []},
        "seed": 0, "lr": 0.005, "epochs": 2, "optimiser": "adamw",
    },
    "digits": {
        "task": "digits", "model": "dbn", "dropout": 0.1, "hidden": [12, 10],
        "pretraining": {"epochs": 2, "lr": 0.05, "steps": 1, "persistent": True},
        "weights": [], "license": "Apache-2.0", "data": DATA, "seed": 0, "lr": 0.005, "epochs": 2, "optimiser": "adamw",
    },
    "sgd": {
        "task": "sgd", "method": "mini", "optimiser": "sgd", "batch_size": 8, "lr": 0.3, "momentum": 0.0,
        "nesterov": False, "schedule": "constant", "l2": 0.0, "l1": 0.0, "weight_decay": 0.0, "dropout": 0.0,
        "epochs": 2, "seed": 0, "cost": {"samples": 64},
        "data": {"name": "strain-gauges", "n": 64, "n_validation": 256},
    },
    "longlag": {
        "task": "longlag", "problem": "adding", "length": 20, "network": "elman", "hidden": 4, "weights": [],
        "license": "Apache-2.0", "data": DATA, "seed": 0, "lr": 0.001, "epochs": 1, "batch_size": 4,
        "optimiser": "adam",
    },
    "gradients": {
        "task": "gradients", "network": "lstm", "hidden": 8, "steps": 20, "weights": [], "license": "Apache-2.0",
        "data": DATA, "seed": 0, "lr": 0.02, "epochs": 1, "optimiser": "adam",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_a_run_of_an_earlier_version_is_read_and_its_entries_stay(name: str) -> None:
    kind = configs()[name]
    begun = kind.of(Run(Path("run"), BEFORE[name]))
    again = json.loads(json.dumps(begun.to_json()))
    assert {key: again[key] for key in BEFORE[name]} == BEFORE[name]
    begun.check_resumed(Namespace(), Path("run"))


def test_json_and_back() -> None:
    written = tea(cups=(2, 3)).to_json()
    assert written == {
        "task": "tea", **SHARED, "license": "Apache-2.0", "weights": (), "kind": "green", "minutes": 3, "cups": (2, 3),
        "heat": 90.0, "water": {"source": "tap", "degrees": 80},
    }  # fmt: skip
    assert Tea.from_json({**written, "cups": [2, 3], "weights": [], "created": "today"}) == tea(cups=(2, 3))
    assert Tea.from_json({**written, "water": {"source": "well"}}).water == Water(source="well")


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
        ({"sugar": math.nan}, "--sugar is from 0 to below 1, not nan"),
        ({"heat": 0.0}, "--heat must be above 0, not 0.0"),
        ({"cups": [2, 0]}, "--cups must be at least 1, not 0"),
        ({"water": "tap"}, "water is 'tap'"),
        ({"water": {"source": "sea"}}, "config.json: water: source is 'sea', which this version"),
        ({"water": {"degrees": 0.0}}, "--degrees must be above 0, not 0.0"),
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
    tea(seed=4).check_resumed(Namespace(seed=4, water="tap"), Path("run"))
    with pytest.raises(InputError, match=r"^run was begun with --water tap; resume it without --water$"):
        tea().check_resumed(Namespace(water="well"), Path("run"))
    with pytest.raises(InputError, match=r"^run was begun with --seed 4; resume it without --seed$"):
        tea(seed=4).check_resumed(Namespace(seed=0), Path("run"))

    with pytest.raises(InputError, match=r"^run was begun without --sugar; resume it without --sugar$"):
        tea().check_resumed(Namespace(sugar=0.5), Path("run"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pot(TrainingConfig):
    task = "pots"
    each = "shape"
    shared = ("seed", "data")

    shape: str = option()
    litres: int = option(least=1)


def pots(**litres: int) -> Comparison[Pot]:
    return Comparison({name: Pot(**SHARED, shape=name, litres=size) for name, size in litres.items()})  # type: ignore[arg-type]


def test_a_comparison_and_its_trainings_are_read_as_they_were_written() -> None:
    both = pots(round=1, square=2)
    written = json.loads(json.dumps(both.to_json()))
    assert set(written) == {"task", "seed", "data", "shapes"}
    # The tuple of no public weights comes back as a list and is one again.
    assert Comparison.of(Run(Path("run"), written), Pot) == both
    one = Run(Path("run/shapes/round"), written["shapes"]["round"])
    assert Comparison.of(one, Pot, single=True) == pots(round=1)
    with pytest.raises(InputError, match="is one shape of a comparison; name the run that it lies in"):
        Comparison.of(one, Pot)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": {}}, "run/config.json, shapes: expected an object for each shape, found {}"),
        ({"shapes": {"round": 3}}, "expected an object for each shape"),
        ({"shapes": {"round": {"shape": "round"}}}, "run/config.json, shapes, round has no 'data'"),
        ({"task": "timer"}, "is a run of timer, not of pots"),
    ],
    ids=["empty", "number", "incomplete", "another task"],
)
def test_what_is_no_comparison_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Comparison.of(Run(Path("run"), pots(round=1).to_json() | change), Pot)


@pytest.mark.parametrize(
    ("sizes", "asked", "message"),
    [
        ({"round": 1, "square": 1}, {"shape": ["round"]}, "was begun with --shape round square; resume it"),
        ({"round": 1, "square": 1}, {"litres": 2}, "was begun with --litres 1; resume it without --litres"),
        ({"round": 1, "square": 2}, {"litres": 1}, "was begun with --litres 1 2; resume it without --litres"),
    ],
    ids=["trainings", "shared", "own"],
)
def test_a_comparison_is_resumed_as_it_was_begun(sizes: dict[str, int], asked: dict[str, Any], message: str) -> None:
    pots(**sizes).check_resumed(Namespace(shape=list(sizes), litres=None), Path("run"))
    with pytest.raises(InputError, match=message):
        pots(**sizes).check_resumed(Namespace(**asked), Path("run"))


def test_what_was_given() -> None:
    with pytest.raises(InputError, match="--minutes must be at least 1, not 0"):
        given(Namespace(minutes=0), Tea)
    assert given(Namespace(kind=None, minutes=5, sugar=0.0, cups=[1]), Tea) == {
        "minutes": 5,
        "sugar": 0.0,
        "cups": (1,),
    }
    assert given(Namespace(water="well", degrees=None), Water) == {"source": "well"}


class Leaves:
    name = "leaves"
    skipped: ClassVar = {"too old": 2}
    notes = ("green",)

    def __len__(self) -> int:
        return 3


def test_a_run_is_resumed_on_the_data_that_it_was_begun_on() -> None:
    data = described(Leaves())
    assert data == {"name": "leaves", "n": 3, "skipped": {"too old": 2}, "notes": ["green"]}
    tea(data=data).check_data(Leaves(), "leaves", Path("run"))
    for change in ({"n": 4}, {"name": "herbs"}):
        begun = data | change
        said = rf"^run was begun on {begun['n']} cups of {begun['name']}, not on 3 of leaves; resume it with the data"
        with pytest.raises(InputError, match=said):
            tea(data=begun).check_data(Leaves(), "cups", Path("run"))
