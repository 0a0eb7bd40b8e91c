"""How the command line starts: quickly, with nothing imported that the verb does not need."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from argparse import ArgumentParser

import pytest

from edgedl._version import __version__
from edgedl.cli import VERBS, build_parser
from edgedl.tasks import task, task_names

NAMES = [verb.__name__.rpartition(".")[2] for verb in VERBS]

REFUSE = """
import sys

class Refuse:
    refused = {"numpy", "onnxruntime", "torch", "onnx", "onnxscript", "lightning", "cv2", "flask", "gunicorn",
               "matplotlib", "scipy"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.refused:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from edgedl.cli import main
sys.exit(main(sys.argv[1:]))
"""


REFUSE_ALL_BUT_NUMPY = REFUSE.replace('"numpy", ', "")


def start(*arguments: str, refuse: str = REFUSE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", refuse, *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_no_heavy_package_and_lists_every_verb():
    done = start("--help")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in NAMES:
        assert re.search(rf"^    {name}\s", done.stdout, re.MULTILINE)


def test_the_hook_of_the_test_above_works():
    done = start("doctor")
    assert done.returncode != 0
    assert "was imported" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_each_verb_explains_itself_without_its_packages(name):
    done = start(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: edgedl {name} ")
    assert "--json" in done.stdout


def test_help_takes_a_fifth_of_a_second_at_most():
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "edgedl", "--help"], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, the best of several: other tests run meanwhile, and their time is not this command's.
    assert min(once() for _ in range(7)) <= 0.2


def test_version(edgedl):
    result = edgedl("--version")
    assert (result.status, result.out, result.err) == (0, f"edgedl {__version__}\n", "")


def test_python_m_edgedl_is_edgedl():
    done = subprocess.run([sys.executable, "-m", "edgedl", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"edgedl {__version__}\n"


def test_the_verbs_are_those_of_the_design():
    expected = {
        "pull",
        "train",
        "export",
        "verify",
        "inspect",
        "predict",
        "evaluate",
        "bench",
        "calibrate",
        "pack",
        "prove",
        "deploy",
        "quantize",
        "serve",
        "doctor",
    }
    assert set(NAMES) == expected | {"plot"}


def test_options_are_not_abbreviated(edgedl):
    result = edgedl("inspect", "x", "--jso")
    assert result.status == 2
    assert "--jso" in result.err


ORDERS = [
    ("predict", "B", "--save", "out", "a.jpg", "b.jpg"),
    ("predict", "--save", "out", "B", "a.jpg", "b.jpg"),
    ("--save=out", "predict", "B", "a.jpg", "b.jpg"),
    ("predict", "B", "a.jpg", "--save", "out", "b.jpg"),
    ("predict", "B", "a.jpg", "b.jpg", "--save", "out"),
]


@pytest.mark.parametrize("words", ORDERS, ids=range(len(ORDERS)))
def test_options_and_inputs_stand_in_any_order(words):
    args = build_parser().parse_verb(words)
    assert (args.bundle, args.inputs, args.save) == ("B", ["a.jpg", "b.jpg"], "out")


def test_what_stands_behind_two_dashes_is_an_input():
    args = build_parser().parse_verb(["predict", "B", "--json", "--", "--save", "-x.jpg"])
    assert (args.inputs, args.save, args.json) == (["--save", "-x.jpg"], None, True)


@pytest.mark.parametrize(
    "words",
    [("train", "timer", "--hidden", "4", "--data", "age"), ("train", "--data", "age", "--hidden", "4", "timer")],
    ids=["first", "last"],
)
def test_a_task_may_stand_anywhere(words):
    args = build_parser().parse_verb(words)
    assert (args.task, args.hidden, args.data) == ("timer", 4, "age")


def test_train_help_lists_the_tasks(edgedl):
    told = edgedl("train", "--help").out
    for name in task_names():
        assert f"\n  {name} " in told


DEFAULTS = {
    "age": [
        "side that the network looks at (default: 160 of mobilenet, 80 of resnet10, 64 of compact)",
        "0 leaves it uncalibrated (default: 0.1; with --data: 0.2)",
        "passes over the training data (default: 6; with --data: 15)",
        "bfloat16 mixed precision (default: off; with --data: on where the processor has it)",
    ],
    "caption": [
        "units of a recurrent layer (default: 96; with --data: 384)",
        "passes over the training data (default: 8; with --data: 37)",
        "the last N epochs learn from their own samples' CIDEr-D (default: 0; with --data: 26)",
    ],
    "timer": [
        "--network {elman,jordan,lstm,gru} the recurrent layer (default: elman)",
        "peak learning rate (default: 0.006; lstm, gru: 0.01)",
        "stop after so many epochs without a better validation (default: never)",
        "SGD looks ahead (default: off)",
    ],
    "chars": ["units of a layer (default: 128)", "(default: 3 with --data, 1 with the stories)", "(default: adamw)"],
    "digits": ["from below (default: 256 256)", "(default: 40; dbn: 120)", "the training pictures (default: on)"],
    "sgd": ["while training (default: 0; dropout: 0.2)", "process (default: 64; mini, dropout: 8; online, decay: 1)"],
    "longlag": ["steps of the lag (default: 100; digits: 64)", "(default: 20; digits: 80)"],
    "gradients": ["(default: rnn gru lstm)", "(default: 18; gru: 10; lstm, peephole: 8)"],
}


@pytest.mark.parametrize("name", task_names())
def test_the_help_of_a_task_shows_its_defaults_without_torch(name):
    done = start("train", name, "--help", refuse=REFUSE_ALL_BUT_NUMPY)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "--batch-size N" in told
    for words in DEFAULTS.get(name, ()):
        assert words in told


@pytest.mark.parametrize("name", task_names())
def test_every_option_that_takes_a_value_shows_a_default(name):
    parser = ArgumentParser()
    task(name).add_train_arguments(parser)
    silent = [action.option_strings[0] for action in parser._actions if "(default: " not in (action.help or "")]
    assert set(silent) <= {"-h", "--resume", "--persistent", "--from-nothing", "--fine-tune"}


def test_every_verb_has_help_and_a_run():
    parser = build_parser()
    assert parser.prog == "edgedl"
    for verb in VERBS:
        assert verb.__doc__
        assert callable(verb.run)


def completions(tmp_path, line: str) -> list[str]:
    """What a shell would be offered for a line that was typed so far."""
    answer = tmp_path / "answer"
    environment = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "edgedl"], env=os.environ | environment, timeout=60, check=False)
    return [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("edgedl pre", ["predict"]),
        ("edgedl verify --exp", ["--explain"]),
        ("edgedl train timer --self-w", ["--self-weight"]),
        ("edgedl train timer --network jo", ["jordan"]),
    ],
)
def test_a_shell_is_told_how_a_line_may_go_on(tmp_path, line, offered):
    assert completions(tmp_path, line) == offered
