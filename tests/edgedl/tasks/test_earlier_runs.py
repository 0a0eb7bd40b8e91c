"""Runs that were made before their configuration had a type are exported and resumed as ever."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch

from edgedl.tasks import task
from edgedl.tasks.age import training as age_training
from edgedl.tasks.age.config import AgeConfig
from edgedl.tasks.caption import training as caption_training
from edgedl.tasks.caption.config import CaptionConfig
from edgedl.tasks.run_config import RunConfig
from edgedl.training.run import Run
from runtime.errors import InputError

RUNS = Path(__file__).with_name("runs")
ADDED = {"schema_version", "created", "versions", "unreadable"}
ROOMS = [("age", AgeConfig, age_training), ("caption", CaptionConfig, caption_training)]
CONFIGS = {name: config for name, config, _ in ROOMS}

each_room = pytest.mark.parametrize(("name", "config", "training"), ROOMS, ids=["age", "caption"])


def earlier_run(name: str, tmp_path: Path) -> Run:
    shutil.copy(RUNS / f"{name}.json", tmp_path / "config.json")
    return Run.open(tmp_path)


def asked(name: str, *words: str) -> Namespace:
    parser = ArgumentParser()
    task(name).add_train_arguments(parser)
    return parser.parse_args([*words, "--resume"])


@each_room
def test_every_key_is_kept(name, config: type[RunConfig], training, tmp_path):
    run = earlier_run(name, tmp_path)
    read = config.of(run)
    kept = {k: v for k, v in run.config.items() if k not in ADDED}
    if name == "caption":  # what such a run says nothing of, as it was then
        learning = {"top_from": 0, "self_critical_top": False, "concept_weight": 0.0}
        kept |= {"top": False, "concepts": 0, "views": 2, "learning": kept["learning"] | learning}
    assert json.loads(json.dumps(read.to_json())) == kept
    assert config.from_json(json.loads(json.dumps(read.to_json()))) == read


@each_room
def test_the_network_is_built_again(name, config, training, tmp_path):
    run = earlier_run(name, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(1)
    weights = training.network_of(config.of(run)).state_dict()
    run.save_best(weights, epoch=1, metric="x", value=0.0)
    network = training.trained_network(run)
    assert not network.training
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[key]), key


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("age", "", ""),
        ("age", "--seed 0 --size 32 --sigma 3 --objective dldl --network compact --from-nothing --epochs 9", ""),
        ("age", "--size 64", "was begun with --size 32; resume it without --size"),
        ("age", "--network resnet10", "was begun with --network compact;"),
        ("age", "--objective mean-variance", "was begun with --objective dldl;"),
        ("age", "--sigma 2", "was begun with --sigma 3.0;"),
        ("age", "--dropout 0", "was begun with --dropout 0.1;"),
        ("age", "--seed 1", "was begun with --seed 0; resume it without --seed"),
        ("caption", "", ""),
        ("caption", "--beam 2 --frames 10 --samples 5 --cell gru --decoder attention", ""),
        ("caption", "--beam 3", "was begun with --beam 2;"),
        ("caption", "--frames 9", "was begun with --frames 10;"),
        ("caption", "--every 10", "was begun with --frames 10;"),
        ("caption", "--self-critical 1", "was begun with --self-critical 0;"),
        ("caption", "--decoder spatial", "was begun with --decoder attention;"),
        ("caption", "--fine-tune", "was begun with an encoder that does not learn; resume it without --fine-tune"),
    ],
)
def test_a_run_is_resumed_with_the_options_that_it_was_begun_with(name, words, said, tmp_path):
    config = CONFIGS[name].of(earlier_run(name, tmp_path))
    args = asked(name, *words.split())
    if not said:
        config.check_resumed(args, tmp_path)
        return
    with pytest.raises(InputError) as caught:
        config.check_resumed(args, tmp_path)
    assert said in str(caught.value)


def test_a_run_with_public_weights_is_not_resumed_from_nothing(tmp_path):
    run = earlier_run("age", tmp_path)
    config = AgeConfig.from_json({**run.config, "weights": ["dlib dnn_age_predictor_v1"]})
    with pytest.raises(InputError, match="was begun with the public weights; resume it without --from-nothing"):
        config.check_resumed(asked("age", "--from-nothing"), tmp_path)


@pytest.mark.parametrize("name", ["age", "caption"])
@pytest.mark.parametrize(
    ("change", "said"),
    [({"size": 31.5}, "size is 31.5"), ({"dropout": 1.5}, "--dropout is from"), ({"years": 3, "hidden": "x"}, " is ")],
    ids=["type", "range", "kind"],
)
def test_a_configuration_that_does_not_fit_is_refused(name, change, said, tmp_path):
    run = earlier_run(name, tmp_path)
    with pytest.raises(InputError, match=said):
        CONFIGS[name].from_json({**run.config, **change})


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_without_torch(name):
    code = f"import sys, edgedl.tasks.{name}.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "False\n"
