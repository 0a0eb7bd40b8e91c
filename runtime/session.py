"""How a session runs, beside its device and its threads: what ONNX Runtime lets its users set.

The settings follow the name of the device, e.g. ``cpu,graph=extended,spinning=off``, so that every place that takes a
device takes them too. Nothing changes unless it is asked for; ``edgedl bench B --tune`` finds what is fastest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from runtime.errors import InputError

CHOICES: dict[str, tuple[str, ...]] = {
    "graph": ("all", "extended", "basic", "off"),
    "spinning": ("call", "always", "off"),
    "arena": ("shared", "own", "off"),
}
"""The values of each setting; the first is the default."""

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session is opened with.

    Attributes:
        graph: How far ONNX Runtime rewrites the graph: ``all``, ``extended`` (no layouts of the processor), ``basic``,
            ``off``.
        spinning: Whether threads that wait for work spin: during a ``call``, ``always`` (also between calls), ``off``.
        arena: Where tensors lie: in one pool ``shared`` by all sessions of the process, in the session's ``own``, or in
            none (``off``: every tensor is asked of the system).
    """

    graph: str = "all"
    spinning: str = "call"
    arena: str = "shared"

    def __str__(self) -> str:
        """The settings that are not the default, as they are written after a device; empty if all are."""
        return ",".join(f"{name}={value}" for name, value in self.items() if value != CHOICES[name][0])

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and values."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def apply(self, options: Any, ort: Any) -> None:
        """Sets them in an ``onnxruntime.SessionOptions``."""
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[self.graph])
        if self.arena == "shared":
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_cpu_mem_arena = self.arena != "off"
        if self.spinning == "call":
            # Threads spin while a call is under way, which keeps its latency low, and sleep as soon as it ends.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        elif self.spinning == "off":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def split_device(text: str) -> tuple[str, SessionSettings]:
    """Reads a device with its settings: ``cpu``, ``gpu:1``, ``cpu,graph=basic,spinning=off``.

    Raises:
        InputError: a setting or a value of it is unknown, or a setting is given twice.
    """
    device, *parts = (part.strip() for part in text.lower().split(","))
    settings, seen = SessionSettings(), set()
    for part in parts:
        name, _, value = part.partition("=")
        if name not in CHOICES:
            raise InputError(f"device {text!r}: unknown setting {name!r}{_near(name, CHOICES)}; there are "
                             f"{', '.join(CHOICES)}")  # fmt: skip
        if value not in CHOICES[name]:
            raise InputError(
                f"device {text!r}: {name} is {value!r}{_near(value, CHOICES[name])}, expected one of "
                f"{', '.join(CHOICES[name])}"
            )
        if name in seen:
            raise InputError(f"device {text!r}: {name} is given twice")
        seen.add(name)
        settings = replace(settings, **{name: value})
    return device, settings


def joined(device: str, settings: SessionSettings) -> str:
    """The inverse of `split_device`."""
    return ",".join(part for part in (device, str(settings)) if part)


def _near(word: str, known: Any) -> str:
    import difflib  # here, because it is of use to a misspelt word only

    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
