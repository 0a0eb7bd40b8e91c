"""The training options on the command line: what is given replaces the recipe, and only that."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields, replace

import pytest

from edgedl.training.arguments import add_training_arguments, train_options
from edgedl.training.augment import Augmentation
from edgedl.training.options import TrainOptions
from runtime.errors import InputError

RECIPE = TrainOptions(
    epochs=7, optimiser="adamw", lr=2e-3, weight_decay=0.05, ema=0.99, augmentation=Augmentation(), bf16=True, clip=5.0
)

GIVEN = [
    ("--epochs 3", "epochs", 3),
    ("--batch-size 8", "batch_size", 8),
    ("--lr 0.5", "lr", 0.5),
    ("--head-lr 4", "head_lr", 4.0),
    ("--momentum 0", "momentum", 0.0),
    ("--weight-decay 0", "weight_decay", 0.0),
    ("--l1 1e-4", "l1", 1e-4),
    ("--warmup 0.5", "warmup", 0.5),
    ("--settle 1", "settle", 1),
    ("--settle-lr 0.1", "settle_lr", 0.1),
    ("--ema 0", "ema", 0.0),
    ("--patience 2", "patience", 2),
    ("--clip 1", "clip", 1.0),
    ("--max-minutes 1.5", "max_minutes", 1.5),
    ("--threads 2", "threads", 2),
    ("--devices 2", "devices", 2),
    ("--num-nodes 3", "num_nodes", 3),
    ("--seed 9", "seed", 9),
    ("--optimiser sgd", "optimiser", "sgd"),
    ("--schedule step", "schedule", "step"),
    ("--keep last", "keep", "last"),
    ("--strategy ddp", "strategy", "ddp"),
    ("--device cpu", "device", "cpu"),
    ("--nesterov", "nesterov", True),
    ("--no-bf16", "bf16", False),
    ("--no-augment", "augmentation", None),
    ("--resume", "resume", True),
]

RECIPE_ONLY = {"betas", "channels_last", "progress", "settle_augmentation"}
"""What a task's recipe decides alone."""


def parsed(words: str, recipe: TrainOptions = RECIPE) -> TrainOptions:
    parser = ArgumentParser(exit_on_error=False)
    add_training_arguments(parser)
    return train_options(parser.parse_args(words.split()), recipe)


def test_nothing_given_is_the_recipe():
    assert parsed("") == RECIPE


@pytest.mark.parametrize(("words", "name", "value"), GIVEN, ids=[words for words, _, _ in GIVEN])
def test_what_is_given_replaces_that_alone(words, name, value):
    assert getattr(RECIPE, name) != value, "it would prove nothing"
    assert parsed(words) == replace(RECIPE, **{name: value})


def test_every_option_can_be_given():
    covered = {name for _, name, _ in GIVEN} | {"l2"} | RECIPE_ONLY
    assert covered == {field.name for field in fields(TrainOptions)}


def test_augmentation_stays_as_the_recipe_has_it_when_it_is_asked_for():
    assert parsed("--augment").augmentation == RECIPE.augmentation


def test_pictures_that_are_not_varied_are_not_varied_at_the_end_either():
    settling = replace(RECIPE, settle=2, settle_augmentation=Augmentation())
    assert parsed("--no-augment", settling).settle_augmentation is None


@pytest.mark.parametrize(("words", "settle"), [("--epochs 14", 4), ("--epochs 3", 0), ("--epochs 3 --settle 1", 1)])
def test_a_shorter_training_settles_for_its_share(words, settle):
    assert parsed(words, replace(RECIPE, settle=2)).settle == settle


def test_the_textbooks_penalty_takes_the_place_of_the_recipes_decay():
    options = parsed("--l2 0.1 --optimiser sgd")
    assert (options.l2, options.weight_decay) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--l2 0.1", "for SGD only"),
        ("--l2 0.1 --optimiser sgd --weight-decay 0.1", "two names for one thing"),
        ("--lr 0", "lr must be above 0"),
        ("--ema 1", "ema"),
        ("--warmup 9", "longer than the training"),
        ("--lr nan", "lr"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said):
    with pytest.raises(InputError, match=said):
        parsed(words)
