"""Settings of a session: how they are written after a device, and that ONNX Runtime gets them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.devices import PROBE_GRAPH, onnxruntime
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.session import CHOICES, SessionSettings, joined, split_device

SETTINGS = st.builds(SessionSettings, **{name: st.sampled_from(values) for name, values in CHOICES.items()})


@given(st.sampled_from(["cpu", "gpu:1", "auto"]), SETTINGS)
def test_what_is_written_is_read(device: str, settings: SessionSettings) -> None:
    assert split_device(joined(device, settings)) == (device, settings)


def test_defaults_are_not_written() -> None:
    assert joined("cpu", SessionSettings()) == "cpu"
    assert joined("cpu", SessionSettings(spinning="off")) == "cpu,spinning=off"
    assert split_device(" CPU , graph=Basic ") == ("cpu", SessionSettings(graph="basic"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu,grph=basic", "unknown setting 'grph' .did you mean graph."),
        ("cpu,graph=bsic", "graph is 'bsic' .did you mean basic.., expected one of all, extended, basic, off"),
        ("cpu,graph", "graph is '', expected one of"),
        ("cpu,arena=own,arena=off", "arena is given twice"),
        ("cpu,", "unknown setting ''"),
    ],
)
def test_a_mistake_is_told(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Engine(PROBE_GRAPH, device=text)


@pytest.mark.parametrize(
    "settings", [SessionSettings(*values) for values in itertools.product(*CHOICES.values())], ids=str
)
def test_onnxruntime_gets_them(settings: SessionSettings) -> None:
    ort = onnxruntime()
    with Engine(PROBE_GRAPH, device=joined("cpu", settings), threads=1) as engine:
        assert engine.device == "cpu"
        options = engine.session.get_session_options()
    levels = dict(zip(CHOICES["graph"], ("ENABLE_ALL", "ENABLE_EXTENDED", "ENABLE_BASIC", "DISABLE_ALL"), strict=True))
    assert options.graph_optimization_level == getattr(ort.GraphOptimizationLevel, f"ORT_{levels[settings.graph]}")
    assert options.enable_cpu_mem_arena == (settings.arena != "off")
    entries = {
        "session.use_env_allocators": "1" if settings.arena == "shared" else "",
        "session.force_spinning_stop": "1" if settings.spinning == "call" else "",
        "session.intra_op.allow_spinning": "0" if settings.spinning == "off" else "",
    }
    for key, value in entries.items():
        if value:
            assert options.get_session_config_entry(key) == value
        else:
            with pytest.raises(RuntimeError):  # not set
                options.get_session_config_entry(key)
