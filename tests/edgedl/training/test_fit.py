"""Training into a run: what it learns, writes, resumes and refuses."""

from __future__ import annotations

import math
import random
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import StrategyRegistry

from edgedl.training import callbacks as callbacks_module
from edgedl.training import fit as fit_module
from edgedl.training.augment import Augmentation, resize
from edgedl.training.batches import Batches
from edgedl.training.callbacks import WeightAverage
from edgedl.training.fit import fit
from edgedl.training.objectives import AgeLearning, AgeObjective
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import CheckFailedError, DeviceError, InputError
from tests.edgedl.training.tiny import YEARS, tiny_module, tiny_samples

OPTIONS = TrainOptions(
    epochs=4,
    batch_size=32,
    lr=0.1,
    head_lr=2.0,
    device="cpu",
    warmup=0.5,
    ema=0.9,
    clip=5.0,
    augmentation=Augmentation(),
)


def new_run(path) -> Run:
    return Run.create(path, {"task": "age"})


def saved_state(run: Run) -> dict:
    return torch.load(run.last, weights_only=True)


def without_seconds(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history()]


def same(a, b) -> bool:
    """Equality bit for bit of nested checkpoints, the time spent apart."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(name == "seconds" or same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An uninterrupted training of four epochs."""
    run = new_run(tmp_path_factory.mktemp("trained") / "run")
    module = tiny_module()
    return run, module, fit(module, tiny_samples(), tiny_samples(90, seed=1), run, OPTIONS)


def test_it_learns_and_says_so(trained):
    run, _, result = trained
    always_fifty = 25.0
    assert result.best < 0.75 * always_fifty
    assert (result.metric, result.epochs, len(result.history)) == ("MAE", 4, 4)
    assert result.best == min(row["MAE"] for row in result.history)
    assert result.history == tuple(run.history())
    assert list(result.history[0]) == [
        "epoch", "step", "seconds", "lr", "train_loss", "validation_loss", "MAE", "CS@5",
    ]  # fmt: skip
    assert [row["step"] for row in result.history] == [6, 12, 18, 24]


def test_the_run_folder_holds_exactly_what_is_promised(trained):
    run = trained[0]
    files = sorted(str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file())
    assert files == [
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.json", "metrics.csv",
    ]  # fmt: skip


def test_the_network_is_left_at_its_best(trained):
    run, module, result = trained
    assert same(dict(module.network.state_dict()), run.best_weights())
    assert not module.network.training
    sums = [
        module.learning.measure(module.network, module.prepare(batch, None, None))["MAE"]
        for batch in Batches(tiny_samples(90, seed=1), 32, train=False)
    ]
    error = sum(total.item() for total, _ in sums) / sum(count for _, count in sums)
    assert error == pytest.approx(result.best, rel=1e-5)


def test_the_last_epoch_can_be_kept_so_that_validation_chooses_nothing(tmp_path):
    misread = tiny_samples(90, seed=1)
    misread.columns["age"] = (100 - misread.columns["age"][0],)  # who learns gets worse
    results = {}
    for keep in ("best", "last"):
        run, module = new_run(tmp_path / keep), tiny_module()
        results[keep] = fit(module, tiny_samples(), misread, run, replace(OPTIONS, keep=keep))
        assert same(dict(module.network.state_dict()), run.best_weights())
        assert results[keep].best == results[keep].history[results[keep].best_epoch - 1]["MAE"]
    assert results["best"].best_epoch < 4, "or this shows nothing"
    assert results["last"].best_epoch == 4
    assert not same(Run.open(tmp_path / "best").best_weights(), Run.open(tmp_path / "last").best_weights())


def test_settling_begins_on_a_learning_rate_of_its_own(tmp_path):
    """The history has the rate of the step to come: after two of four epochs that of the first that settles."""
    options = replace(OPTIONS, settle=2, settle_lr=0.03, head_lr=1.0)
    run = new_run(tmp_path / "run")
    fit(tiny_module(), tiny_samples(), tiny_samples(90, seed=1), run, options)
    assert run.history()[1]["lr"] == pytest.approx(0.03 * 0.1)


@dataclass(frozen=True)
class Interrupted(AgeLearning):
    """Somebody presses Ctrl-C in the third epoch."""

    calls: tuple = ()
    error: type[BaseException] = KeyboardInterrupt

    def loss(self, network, batch):
        self.calls[0][0] += 1
        if self.calls[0][0] == 15:
            raise self.error
        return super().loss(network, batch)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(trained, tmp_path, error):
    run = new_run(tmp_path / "run")
    learning = Interrupted(AgeObjective(YEARS), calls=([0],), error=error)
    with pytest.raises(error):
        fit(tiny_module(learning), tiny_samples(), tiny_samples(90, seed=1), run, OPTIONS)
    assert [row["epoch"] for row in run.history()] == [1, 2]
    # As if it had been killed after the third row was written, but before its checkpoint.
    run.write_history([*run.history(), {**run.history()[-1], "epoch": 3, "MAE": 0.0}])

    # Other initial weights and another global random state: everything must come from the checkpoint.
    module = tiny_module(seed=99)
    torch.manual_seed(1234)
    result = fit(module, tiny_samples(), tiny_samples(90, seed=1), Run.open(run.path), replace(OPTIONS, resume=True))
    assert same(saved_state(run), saved_state(trained[0]))
    assert same(run.best_weights(), trained[0].best_weights())
    assert without_seconds(run) == without_seconds(trained[0])
    assert result.best == trained[2].best


def test_a_finished_run_can_be_trained_further(tmp_path):
    options = replace(OPTIONS, schedule="constant", warmup=0)
    longer = new_run(tmp_path / "longer")
    fit(tiny_module(), tiny_samples(), tiny_samples(90), longer, options)
    run = new_run(tmp_path / "run")
    fit(tiny_module(), tiny_samples(), tiny_samples(90), run, replace(options, epochs=2))
    fit(tiny_module(seed=5), tiny_samples(), tiny_samples(90), run, replace(options, resume=True))
    assert without_seconds(run) == without_seconds(longer)
    assert same(saved_state(run)["state_dict"], saved_state(longer)["state_dict"])


def test_the_best_epoch_may_lie_before_the_interruption(tmp_path):
    run = new_run(tmp_path / "run")
    first = fit(tiny_module(), tiny_samples(), tiny_samples(90), run, replace(OPTIONS, epochs=2))
    before = run.best.read_bytes()
    misread = tiny_samples(90)
    misread.columns["age"] = (100 - misread.columns["age"][0],)
    second = fit(tiny_module(), tiny_samples(), misread, run, replace(OPTIONS, epochs=3, resume=True))
    assert second.history[-1]["MAE"] > first.best
    assert (second.best, second.best_epoch) == (first.best, first.best_epoch)
    assert run.best.read_bytes() == before


def test_resuming_what_is_complete_trains_nothing(trained, tmp_path):
    run, _, result = trained
    before = run.last.read_bytes()
    again = fit(tiny_module(seed=5), tiny_samples(), tiny_samples(90, seed=1), run, replace(OPTIONS, resume=True))
    assert again.history == result.history
    assert run.last.read_bytes() == before


def test_a_trained_run_is_not_overwritten(trained):
    with pytest.raises(InputError, match="trained already"):
        fit(tiny_module(), tiny_samples(), tiny_samples(), trained[0], OPTIONS)


def test_resuming_before_the_first_epoch_begins_at_the_beginning(tmp_path):
    options = replace(OPTIONS, epochs=1, resume=True)
    assert fit(tiny_module(), tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), options).epochs == 1


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_loop_equals_one_written_by_hand(tmp_path, name):
    """Batches, preparation, optimiser and schedule in the order that anybody would write them."""
    options = TrainOptions(
        epochs=2, batch_size=32, optimiser=name, lr=0.01, momentum=0.9, weight_decay=0.01, ema=0, device="cpu", seed=11
    )
    module = tiny_module()
    module.network.dropout.p = 0.0
    run = new_run(tmp_path / "run")
    fit(module, tiny_samples(), tiny_samples(90), run, options)

    by_hand = tiny_module()
    network = by_hand.network
    network.dropout.p = 0.0
    decayed = [network.conv.weight, network.head.weight]
    rest = [network.conv.bias, network.norm.weight, network.norm.bias, network.head.bias]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    settings = {"momentum": 0.9, "fused": True} if name == "sgd" else {"fused": True}
    optimiser = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name](groups, lr=0.01, **settings)
    batches = Batches(tiny_samples(), 32, train=True, seed=11)
    step = 0
    for epoch in range(2):
        batches.set_epoch(epoch)
        for batch in batches:
            for group in optimiser.param_groups:
                group["lr"] = 0.01 * (1 + math.cos(math.pi * step / 12)) / 2
            images = resize(batch["image"].permute(0, 3, 1, 2), 12)
            optimiser.zero_grad()
            by_hand.learning.objective(network.logits(images), batch["age"]).backward()
            optimiser.step()
            step += 1
    found = saved_state(run)["state_dict"]
    for key, value in network.state_dict().items():
        assert torch.allclose(found[f"network.{key}"], value, atol=1e-6), key


def test_averaged_weights_follow_their_formula():
    module = tiny_module()
    average = WeightAverage(decay=0.7)
    average.on_fit_start(None, module)
    expected = {name: tensor.double() for name, tensor in module.network.named_parameters()}
    for step in range(1, 12):
        with torch.no_grad():
            for parameter in module.network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.on_train_batch_end(None, module, None, None, 0)
        decay = min(0.7, (1 + step) / (10 + step))
        for name, parameter in module.network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.double()
    for name, tensor in expected.items():
        assert torch.allclose(average.average[name].double(), tensor, atol=1e-5)
    current = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    average.on_validation_start(None, module)
    assert torch.allclose(module.network.conv.weight.double(), expected["conv.weight"], atol=1e-5)
    average.on_validation_end(None, module)
    assert same(dict(module.network.state_dict()), current)


def test_several_validation_sets(tmp_path):
    sets = {"crop": tiny_samples(40, seed=1), "aligned": tiny_samples(70, seed=2)}
    result = fit(tiny_module(), tiny_samples(), sets, new_run(tmp_path / "run"), replace(OPTIONS, epochs=1))
    row = result.history[0]
    assert row["crop/MAE"] != row["aligned/MAE"]
    assert row["MAE"] == pytest.approx((row["crop/MAE"] + row["aligned/MAE"]) / 2)


def test_early_stopping(tmp_path):
    """A learning rate of almost 0 without averaging: no epoch is better than the first."""
    options = replace(OPTIONS, epochs=9, lr=1e-30, ema=0, warmup=0, patience=2, schedule="constant")
    module = tiny_module()
    module.network.norm.momentum = 0.0
    result = fit(module, tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), options)
    assert (result.epochs, result.best_epoch) == (3, 1)


@pytest.mark.parametrize(("minutes", "steps"), [(0.04, [3]), (0.15, [6]), (0.25, [6, 12])], ids=str)
def test_the_time_limit_ends_an_epoch_and_keeps_what_was_learnt(tmp_path, monkeypatch, minutes, steps):
    """By a clock on which a step takes a second: an epoch is cut short, or the next is not begun."""
    passed = [0]
    monkeypatch.setattr(callbacks_module.time, "monotonic", lambda: float(passed[0]))

    @dataclass(frozen=True)
    class Slow(AgeLearning):
        def loss(self, network, batch):
            passed[0] += 1
            return super().loss(network, batch)

    run = new_run(tmp_path / "run")
    learning = Slow(AgeObjective(YEARS))
    fit(tiny_module(learning), tiny_samples(), tiny_samples(), run, replace(OPTIONS, epochs=9, max_minutes=minutes))
    assert [row["step"] for row in run.history()] == steps
    assert run.best.exists()
    assert run.last.exists()


def test_l2_becomes_the_decay_of_the_weights(tmp_path):
    run = new_run(tmp_path / "run")
    fit(tiny_module(), tiny_samples(), tiny_samples(), run, replace(OPTIONS, epochs=1, l2=3.0))
    groups = saved_state(run)["optimizer_states"][0]["param_groups"]
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        "body weights": 3.0 / 200,
        "body biases and norms": 0.0,
        "head weights": 3.0 / 200,
        "head biases and norms": 0.0,
    }


def test_the_gradient_is_clipped(tmp_path):
    """Plain SGD, six steps of rate 0.1 and norm 0.01 at most: the weights move by 0.006 at most."""
    module = tiny_module()
    before = torch.cat([parameter.detach().flatten().clone() for parameter in module.network.parameters()])
    options = TrainOptions(
        epochs=1, batch_size=32, lr=0.1, momentum=0, schedule="constant", ema=0, clip=0.01, device="cpu"
    )
    fit(module, tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), options)
    moved = torch.cat([parameter.detach().flatten() for parameter in module.network.parameters()]) - before
    assert 0.003 < moved.norm() <= 0.006 + 1e-6


def test_l1_shrinks_the_weights(tmp_path):
    sizes = []
    for strength in (0.0, 0.05):
        module = tiny_module()
        run = new_run(tmp_path / str(strength))
        fit(module, tiny_samples(), tiny_samples(), run, replace(OPTIONS, epochs=2, l1=strength, ema=0))
        state = saved_state(run)["state_dict"]
        sizes.append(state["network.conv.weight"].abs().sum() + state["network.head.weight"].abs().sum())
    assert sizes[1] < 0.8 * sizes[0]


def test_a_diverging_training_says_what_to_do(tmp_path):
    with pytest.raises(CheckFailedError, match="lower the learning rate"):
        fit(
            tiny_module(),
            tiny_samples(),
            tiny_samples(),
            new_run(tmp_path / "run"),
            replace(OPTIONS, lr=1e20, clip=None, warmup=0),
        )


def test_surroundings_are_given_back(tmp_path, capsys):
    torch.manual_seed(4)
    random.seed(4)
    np.random.seed(4)  # noqa: NPY002  # the legacy state is what must not move
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    module = tiny_module()
    torch.manual_seed(4)
    fit(module, tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), replace(OPTIONS, epochs=1, threads=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002
    assert (torch.get_num_threads(), signal.getsignal(signal.SIGINT)) == (threads, handler)
    assert capsys.readouterr() == ("", "")  # standard error is no terminal here: no progress line


def test_the_progress_line_is_for_terminals(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fit(tiny_module(), tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), replace(OPTIONS, epochs=1))
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1/1:" in err
    assert "/6 [" in err
    *_, last, rest = err.split("\r")
    assert (last.strip(), rest) == ("", ""), "the line is empty for the epoch's report"


def test_bfloat16_and_channels_last_learn_too(tmp_path):
    options = replace(OPTIONS, epochs=3, bf16=True, channels_last=True)
    module = tiny_module()
    result = fit(module, tiny_samples(), tiny_samples(90, seed=1), new_run(tmp_path / "run"), options)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert all(parameter.dtype == torch.float32 for parameter in module.network.parameters())


def test_a_monitor_that_is_not_measured(tmp_path):
    learning = AgeLearning(AgeObjective(YEARS), monitor="accuracy")
    with pytest.raises(InputError, match="'accuracy' is to choose the best epoch; found loss, MAE, CS@5"):
        fit(tiny_module(learning), tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), OPTIONS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="finds none"):
        fit(tiny_module(), tiny_samples(), tiny_samples(), new_run(tmp_path / "run"), replace(OPTIONS, device="gpu"))


RESTING = "_find_unused_parameters_true"


@pytest.mark.parametrize(
    ("settings", "environment", "expected", "resting"),
    [
        ({}, {}, "auto", "auto"),
        ({"devices": 2}, {}, "ddp_spawn", f"ddp_spawn{RESTING}"),
        ({"devices": 2}, {"LOCAL_RANK": "1"}, "auto", f"ddp{RESTING}"),
        ({"devices": 2, "num_nodes": 2}, {}, "auto", f"ddp{RESTING}"),
        ({"devices": 2, "strategy": "fsdp"}, {}, "fsdp", "fsdp"),
    ],
    ids=["one", "several", "launched", "machines", "asked for"],
)
def test_strategy(settings, environment, expected, resting, monkeypatch):
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = replace(OPTIONS, **settings)
    assert fit_module._strategy(options, rests=False) == expected
    assert fit_module._strategy(options, rests=True) == resting
    assert {expected, resting} - {"auto"} <= set(StrategyRegistry)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"ema": 1.0},
        {"warmup": 9.0},
        {"l2": 1.0, "weight_decay": 0.1},
        {"l2": 1.0, "optimiser": "adamw"},
        {"patience": 0},
        {"clip": 0.0},
        {"seed": -1},
        {"weight_decay": -0.1},
    ],
    ids=str,
)
def test_options_that_do_not_fit(settings):
    with pytest.raises(InputError):
        replace(OPTIONS, **settings)
