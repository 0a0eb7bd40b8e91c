"""Records where in the user's code each node of a traced program arises, and in which iteration of which loop.

A trace is a flat list of operators: the loops that made it are gone. The Python frames that were running when a node
was created tell them: a *point* is the chain of (code, offset of the bytecode) from the outermost frame to the
innermost one. Within one frame a loop has begun its next iteration when its loop variable has changed, or when the
offset moved backwards. Frames of torch's own machinery are left out; those of ``torch.nn`` count, as `nn.Sequential`
loops as well.
"""

from __future__ import annotations

import dis
import functools
import operator
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import torch

_TORCH = f"{pathlib.Path(torch.__file__).parent}{os.sep}"
_COUNTED = f"{_TORCH}nn{os.sep}"

Point = tuple[tuple[CodeType | None, int], ...]
"""Where a node was created: the running frames, outermost first."""


@dataclass(eq=False, slots=True)
class Run:
    """One execution of a loop, from its first iteration to its last.

    Attributes:
        site: The place of the loop in the code; equal for every run of that loop, in every trace.
        where: The same for people, e.g. ``mine.py:12``.
        count: How many iterations created nodes.
    """

    site: tuple[Point, int]
    where: str
    count: int = 1


Path = tuple[tuple[Run, int], ...]
"""The loops that were running, outermost first, each with its iteration."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node comes from.

    Attributes:
        path: The loops around it.
        point: Its place in the code, and its number among the nodes that this place creates at a time.
        where: The line for people, e.g. ``mine.py:13``.
    """

    path: Path
    point: tuple[Point, int]
    where: str


@dataclass(frozen=True, slots=True)
class _Span:
    """A loop in bytecode: from the first instruction that is repeated to the jump back to it."""

    start: int
    end: int
    line: int
    targets: tuple[str, ...]
    """Loop variables that nothing else in the loop assigns to."""


@dataclass(eq=False, slots=True)
class _Level:
    """One running frame."""

    frame: FrameType
    offset: int
    loops: list[tuple[_Span, Run, list[Any]]] = field(default_factory=list)
    """The loops that the offset lies in, outermost first; with the iteration and the values of the loop variables."""
    calls: tuple[Run, list[int]] = field(init=False)
    """The run of what this instruction calls again and again (``map``, ``reduce``), with its iteration."""


class Recorder:
    """Follows the frames from node to node."""

    def __init__(self) -> None:
        self.origins: list[Origin] = []
        self._levels: list[_Level] = []
        self._number = 0
        self._first: Any = None
        self._moved = True

    def origin(self, frame: FrameType | None, target: Any) -> Origin:
        """The origin of a node that is being created now.

        Args:
            frame: The innermost frame.
            target: The node's operator.
        """
        chain: list[FrameType] = []
        while frame is not None:
            if is_counted(frame.f_code.co_filename):
                chain.append(frame)
            frame = frame.f_back
        chain.reverse()
        self._moved = self._follow(chain) or self._moved
        if _is_size(target):  # torch writes each size once, at its first use: no part of an iteration
            pass
        elif self._moved or target == self._first:
            if not self._moved:  # the same instruction once more, as in sum(states)
                self._again(len(self._levels) - 1)
            self._number, self._first, self._moved = 0, target, False
        else:
            self._number += 1
        levels = self._levels
        path = []
        for level in levels:
            path += [(run, at[0]) for _, run, at in level.loops]
            path.append((level.calls[0], level.calls[1][0]))
        point = tuple((level.frame.f_code, level.offset) for level in levels)
        return Origin(tuple(path), (point, self._number), _where(levels[-1].frame) if levels else "")

    def _follow(self, chain: list[FrameType]) -> bool:
        """Moves to the frames that are running now; says whether this is another place or another iteration."""
        levels = self._levels
        for depth, frame in enumerate(chain):
            if depth == len(levels) or levels[depth].frame is not frame:
                self._again(depth - 1)  # the same instruction has called a frame once more
                del levels[depth:]
                break
            if self._moves(depth):
                del levels[depth + 1 :]
                break
        else:
            changed = len(levels) > len(chain)
            del levels[len(chain) :]
            return changed
        for frame in chain[len(levels) :]:
            levels.append(_Level(frame, frame.f_lasti))
            self._enter(len(levels) - 1)
        return True

    def _moves(self, depth: int) -> bool:
        """Moves a frame to where it is now; says whether that is another place or another iteration."""
        level = self._levels[depth]
        before, level.offset = level.offset, level.frame.f_lasti
        level.loops = [entry for entry in level.loops if entry[0].start <= level.offset <= entry[0].end]
        names = level.frame.f_locals if any(span.targets for span, _, _ in level.loops) else {}
        turned = next((at for at, (span, _, now) in enumerate(level.loops) if _changed(span, now[1], names)), None)
        if turned is None and level.offset < before and level.loops:
            turned = max(
                (at for at, (span, _, _) in enumerate(level.loops) if span.start <= before <= span.end), default=None
            )
        if turned is not None:
            _, run, now = level.loops[turned]
            del level.loops[turned + 1 :]
            now[0] += 1
            now[1] = _values(level.loops[turned][0], names)
            run.count = now[0] + 1
        elif level.offset == before:
            return False
        self._enter(depth)
        return True

    def _enter(self, depth: int) -> None:
        """Begins the loops that a frame has just come into."""
        level = self._levels[depth]
        inside = {span for span, _, _ in level.loops}
        above = tuple((other.frame.f_code, other.offset) for other in self._levels[:depth])
        code = level.frame.f_code
        for span in _spans(code):
            if span.start <= level.offset <= span.end and span not in inside:
                run = Run(((*above, (code, span.start)), span.end), f"{_short(code)}:{span.line}")
                level.loops.append((span, run, [0, _values(span, level.frame.f_locals)]))
        level.calls = Run(((*above, (code, level.offset)), -1), _where(level.frame)), [0]

    def _again(self, depth: int) -> None:
        """The instruction of a frame does once more what it did before."""
        if depth >= 0:
            run, at = self._levels[depth].calls
            at[0] += 1
            run.count = at[0] + 1


@contextmanager
def recording() -> Iterator[list[Origin]]:
    """While it lasts, each node that torch traces gets ``meta["custom"]["origin"]``, an index into the list given.

    Nodes that nothing reads are kept: the last iteration of a loop has to look like the others.
    """
    recorder, create = Recorder(), torch.fx.proxy.TracerBase.create_node

    def created(self: Any, kind: str, target: Any, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = create(self, kind, target, *args, **kwargs)
        # What is written anew from another program keeps the origin that it has there.
        if kind == "call_function" and "origin" not in node.meta.get("custom", {}):
            recorder.origins.append(recorder.origin(sys._getframe(1), target))
            node.meta["custom"] = {"origin": len(recorder.origins) - 1}
        return node

    with (
        mock.patch.object(torch.fx.proxy.TracerBase, "create_node", created),
        mock.patch.object(torch.fx.Graph, "eliminate_dead_code", return_value=False),
    ):
        yield recorder.origins


def _is_size(target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):
        return target._opname.startswith(("sym_", "_assert"))
    return target is not operator.getitem and not isinstance(target, torch._ops.HigherOrderOperator)


@functools.cache
def is_counted(filename: str) -> bool:
    """Whether a file is the user's, or a layer of torch's: loops are looked for in these."""
    return not filename.startswith(_TORCH) or filename.startswith(_COUNTED)


@functools.cache
def _spans(code: CodeType) -> tuple[_Span, ...]:
    """The loops of a function, outer ones before inner ones."""
    instructions = [one for one in dis.get_instructions(code) if one.opname != "EXTENDED_ARG"]
    ends: dict[int, int] = {}
    for one in instructions:
        if one.opcode in dis.hasjrel + dis.hasjabs and isinstance(one.argval, int) and one.argval <= one.offset:
            ends[one.argval] = max(one.offset, ends.get(one.argval, 0))
    spans = []
    for start, end in sorted(ends.items(), key=lambda span: (span[0], -span[1])):
        inside = [one for one in instructions if start <= one.offset <= end]
        line = inside[0].positions.lineno if inside[0].positions else None
        spans.append(_Span(start, end, line or code.co_firstlineno, _targets(inside)))
    return tuple(spans)


def _targets(loop: list[dis.Instruction]) -> tuple[str, ...]:
    if loop[0].opname != "FOR_ITER":
        return ()
    found = []
    for one in loop[1:]:
        if one.opname.startswith("STORE_FAST") or one.opname == "STORE_DEREF":
            found += [one.argval] if isinstance(one.argval, str) else list(one.argval)
        elif not one.opname.startswith("UNPACK"):
            break
    stored = [one.argval for one in loop[1:] if one.opname.startswith("STORE")]
    return tuple(name for name in found if stored.count(name) <= 1)


def _values(span: _Span, names: Mapping[str, Any]) -> list[Any]:
    return [names.get(name) for name in span.targets]


def _changed(span: _Span, before: list[Any], names: Mapping[str, Any]) -> bool:
    return any(one is not other for one, other in zip(before, _values(span, names), strict=True))


def _short(code: CodeType) -> str:
    return pathlib.Path(code.co_filename).name


def _where(frame: FrameType) -> str:
    return f"{_short(frame.f_code)}:{frame.f_lineno}"
