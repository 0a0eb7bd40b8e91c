"""A program that is run again after a change of one weight after the other, in the memory of two runs.

A changed weight costs only what comes after it. Half the layers of a network lie behind the middle, and the early ones
are the dear ones: this is three times faster than running all of it. What comes after reads values from before. To
keep every value takes gigabytes: 370 MB for each picture that EfficientNet-Lite2 sees at 352 pixels, and a clip has
thirty. So the weights are changed in the order of computation, the unchanged run goes along with them, and a value is
let go when no later change reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree

from exporters.errors import GuardError

_Work = tuple[tuple[Node, tuple[Node, ...]], ...]
"""Nodes in the order of computation, each with those whose values are let go after it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What is computed for one weight.

    Attributes:
        fresh: Unchanged values that are missing.
        changed: Values that the weight changes; the last one is the answer.
        dropped: Unchanged values that are let go afterwards.
    """

    fresh: _Work
    changed: _Work
    dropped: tuple[Node, ...]


class Schedule:
    """What is computed and kept for each weight that is changed.

    An operator that writes into a value of its own, as ``relu_`` behind a convolution, is replaced by the one that does
    not. Where one writes into what others read as well, the order of all nodes matters: every unchanged value is kept.

    Args:
        module: An exported program. Operators in it are replaced.
        weights: Names of parameters.

    Attributes:
        module: The program.
        weights: The same names, in the order in which `Rerun.again` must be asked for them.
        first: What is computed before any weight is changed.
        steps: For each weight that an answer depends on, what is computed.
    """

    def __init__(self, module: GraphModule, weights: Iterable[str]) -> None:
        self.module = module
        nodes = list(module.graph.nodes)
        writes = not all(map(_written_apart, nodes))
        self._place = {node: place for place, node in enumerate(nodes)}
        self._last = {node: max((self._place[user] for user in node.users), default=-1) for node in nodes}
        changed = {name: _behind(module, name) for name in weights}
        first = {name: next((self._place[n] for n in c if n.op != "get_attr"), 0) for name, c in changed.items()}
        self.weights = sorted(changed, key=first.__getitem__)
        telling = [name for name in self.weights if changed[name] and changed[name][-1].op == "output"]
        reads = {n: {r for c in changed[n] for r in c.all_input_nodes} - set(changed[n]) for n in telling}
        self.first = _with_last_uses([node for node in nodes if node.op != "output"], set()) if writes else ()
        self.steps: dict[str, _Step] = {}
        kept = {node for node, _ in self.first}
        for name, following in zip(telling, [*telling, None][1:], strict=True):
            fresh = self._missing(reads[name], kept)
            having = kept | set(fresh)
            if not writes:
                kept = self._still_read(having, reads[following], first[name]) if following else set()
            self.steps[name] = _Step(
                fresh=_with_last_uses(fresh, having - kept - reads[name]),
                changed=_with_last_uses(changed[name], set(changed[name])),
                dropped=tuple(having - kept),
            )

    def _missing(self, wanted: set[Node], known: set[Node]) -> list[Node]:
        """The nodes to compute for the wanted values, in the order of computation."""
        found: set[Node] = set()
        waiting = list(wanted)
        while waiting:
            node = waiting.pop()
            if node not in found and node not in known:
                found.add(node)
                waiting.extend(node.all_input_nodes)
        return sorted(found, key=self._place.__getitem__)

    def _still_read(self, having: set[Node], soon: set[Node], place: int) -> set[Node]:
        """The values that are kept for later weights.

        These are what the unchanged run holds, which has come as far as ``place``, and what the next weight reads of
        other branches. The inside of another branch is computed once more when its own weights are changed.
        """
        return {node for node in having if node in soon or self._place[node] < place <= self._last[node]}


class Rerun(torch.fx.Interpreter):
    """A program with its answers to some inputs, and what they become after a change.

    Args:
        schedule: Of the program.
        arguments: Its inputs.

    Attributes:
        answers: Of the unchanged program, in the order of its outputs.

    Raises:
        GuardError: the program stops.
    """

    def __init__(self, schedule: Schedule, arguments: Sequence[Tensor]) -> None:
        super().__init__(schedule.module)
        self._steps, self._turns = schedule.steps, iter(schedule.weights)
        with _told():
            self.answers = _arrays(self.run(*arguments))
        self._given = dict(zip(self._placeholders(), self.graph.process_inputs(*arguments), strict=True))
        self._kept: dict[Node, Any] = {}
        with _told():
            self._compute(schedule.first, self._kept)

    def again(self, weight: str) -> list[NDArray[Any]]:
        """The answers after a weight was changed. Ask for every weight once, in the order of the schedule.

        Raises:
            GuardError: the program stops.
            ValueError: it is the turn of another weight.
        """
        if weight != (turn := next(self._turns, None)):
            raise ValueError(f"the values that are kept are for {turn}, asked is {weight}")
        if weight not in self._steps:
            return self.answers  # no answer depends on it
        step = self._steps[weight]
        with _told():
            self._compute(step.fresh, self._kept)
            values = dict(self._kept)
            self._compute(step.changed, values)
        for node in step.dropped:
            self._kept.pop(node, None)
        return _arrays(self.graph.process_outputs(values[step.changed[-1][0]]))

    def _placeholders(self) -> list[Node]:
        return [node for node in self.graph.nodes if node.op == "placeholder"]

    def _compute(self, work: _Work, values: dict[Node, Any]) -> None:
        """Adds the values of nodes to those that they are computed from."""
        self.env = values
        for node, unread in work:
            values[node] = self._given[node] if node in self._given else self.run_node(node)
            for other in unread:
                del values[other]


def _behind(module: GraphModule, weight: str) -> list[Node]:
    """The nodes whose values a weight changes, in the order of computation; a shared one may have several names."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    behind: dict[Node, None] = {}
    for node in module.graph.nodes:
        itself = node.op == "get_attr" and parameters.get(str(node.target)) is parameters[weight]
        if itself or any(other in behind for other in node.all_input_nodes):
            behind[node] = None
    return list(behind)


def _with_last_uses(nodes: Sequence[Node], temporary: set[Node]) -> _Work:
    """Each node, with the temporary ones that no later one reads; what none reads is let go at once."""
    last = {node: node for node in nodes if node in temporary}
    last |= {read: node for node in nodes for read in node.all_input_nodes if read in temporary}
    unread: dict[Node, list[Node]] = {}
    for read, node in last.items():
        if node.op != "output":
            unread.setdefault(node, []).append(read)
    return tuple((node, tuple(unread.get(node, ()))) for node in nodes)


def _written_apart(node: Node) -> bool:
    """Whether an operator leaves what it is given as it is, or could be replaced by one that does."""
    if node.op in ("call_method", "call_module"):
        return False
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return True
    written, name = node.args[0] if node.args else None, target._opname
    apart = getattr(getattr(torch.ops.aten, name[:-1], None), target._overloadname, None) if name[-1] == "_" else None
    if apart is None or not isinstance(written, Node) or set(written.users) != {node} or not _is_new(written):
        return False
    node.target = apart
    return True


def _is_new(node: Node) -> bool:
    """Whether a value shares its memory with no other."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and not any(one.alias_info for one in target._schema.returns)


@contextmanager
def _told() -> Iterator[None]:
    """Runs a program without gradients, and says in the user's terms where it stops."""
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        at = next((line for line in reversed(lines) if line.strip().startswith("return") or "forward" in line), "")
        raise GuardError(
            f"what torch traced of forward stops at a size that forward itself takes: {lines[0]} ({at.strip()}); a "
            "number was computed from the example's size and frozen"
        ) from error


def _arrays(returned: object) -> list[NDArray[Any]]:
    return [leaf.numpy(force=True).copy() for leaf in _pytree.tree_leaves(returned)]
