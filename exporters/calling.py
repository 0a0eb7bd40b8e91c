"""How a module is called with the inputs that were declared, and what its answers are called.

Inputs are declared as a flat list. ``forward`` may want them by its own parameters' names in any order, by position,
as keywords, or put together (``forward(x, (h, c))``). Its answers may be a tensor, a tuple or a dict, nested or not.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from exporters.errors import GuardError
from exporters.spec import Input, Output, Signature

Structure = Any
"""Arguments with the names of inputs in the places of tensors: a name, None, or a tuple, list or dict of structures."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of ``forward``, with names of inputs in the places of tensors."""

    args: tuple[Structure, ...] = ()
    kwargs: Mapping[str, Structure] | None = None

    def fill(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments themselves."""
        return _filled(self.args, tensors), _filled(dict(self.kwargs or {}), tensors)

    def __str__(self) -> str:
        parts = [_text(part) for part in self.args] + [f"{k}={_text(v)}" for k, v in (self.kwargs or {}).items()]
        return f"forward({', '.join(parts)})"


def bind(module: nn.Module, inputs: Sequence[Input], works: Callable[[Call], str | None]) -> Call:
    """Finds out how ``forward`` takes the inputs.

    Names that are parameters of ``forward`` bind by name, in any order; others bind by position. Where there are more
    inputs than parameters, those that follow one another are put together as tuples, or all as a dict, if one way of
    doing so works.

    Args:
        module: The module.
        inputs: As declared.
        works: Tries a way to call it; None if it works, else why it does not.

    Raises:
        GuardError: no way works, or two readings of the declaration are possible.
    """
    names = [tensor.name for tensor in inputs]
    positional = Call(tuple(names))
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return positional  # a forward of C code
    flexible = any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)
    known = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    ours = [name for name in names if name in known]
    if len(ours) == len(names):
        return _by_name(names, parameters)
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = [one for one in places if one.default is one.empty]
    moved = [name for place, name in enumerate(names) if name in ours and name != _name_at(places, place)]
    if moved and len(names) <= len(places):
        raise GuardError(
            f"the inputs {', '.join(ours)} are parameters of forward({', '.join(known)}) and the others are not, and "
            "they stand in another order: they could be meant by name or by position. Give all inputs the names of "
            "forward's parameters, or none"
        )
    if any(one.kind is one.VAR_KEYWORD for one in parameters) and len(names) > len(places):
        return Call((), {name: name for name in names})
    if flexible or len(required) <= len(names) <= len(places):
        return positional
    reasons = []
    found = []
    for call in _grouped(names, places):
        reason = works(call)
        if reason is None:
            found.append(call)
        else:
            reasons.append(f"{call}: {reason}")
    if len(found) == 1:
        return found[0]
    wanted = ", ".join(one.name for one in parameters) or "nothing"
    if found:
        raise GuardError(
            f"forward({wanted}) takes the inputs in more than one way ({' or '.join(map(str, found))}); say which with "
            "arguments="
        )
    tried = f" ({'; '.join(reasons[:3])})" if reasons else ""
    raise GuardError(f"forward({wanted}) cannot be called with the {len(names)} inputs {', '.join(names)}{tried}")


def check_call(call: Call, inputs: Sequence[Input]) -> None:
    """Every input stands once in the arguments that were given for a call.

    Raises:
        GuardError: one is missing, unknown or there twice.
    """
    leaves = [leaf for leaf in _pytree.tree_leaves((call.args, dict(call.kwargs or {}))) if isinstance(leaf, str)]
    names = [tensor.name for tensor in inputs]
    if sorted(leaves) != sorted(names):
        raise GuardError(f"arguments= names the inputs {', '.join(leaves)}; declared are {', '.join(names)}, each once")


def named_answers(returned: object, outputs: Sequence[Output]) -> dict[str, Tensor]:
    """The tensors that a module returned, by the names of the outputs: a dict by its keys, all else in order.

    None is left out where fewer tensors are declared than there are answers.

    Raises:
        GuardError: there are more or fewer answers than outputs, or other things than tensors.
    """
    names = [output.name for output in outputs]
    returned = _fields(returned, names)
    if isinstance(returned, Mapping) and all(isinstance(key, str) for key in returned):
        given = {str(key): value for key, value in returned.items() if value is not None}
        if set(given) == set(names) and all(isinstance(value, Tensor) for value in given.values()):
            return {name: given[name] for name in names}
        if (bound := _by_key(given, names)) is not None:
            return bound
        if set(given) & set(names):
            missing = [name for name in names if name not in given]
            if missing or len(given) != len(names):
                raise GuardError(
                    f"forward returns {', '.join(given)} by name; declared are the outputs {', '.join(names)}. "
                    "Outputs of a dict are called as its keys are, those of a dataclass or a named tuple as its fields"
                )
    leaves = [leaf for leaf in _pytree.tree_leaves(returned) if leaf is not None]
    if len(leaves) != len(names) or not all(isinstance(leaf, Tensor) for leaf in leaves):
        kinds = ", ".join(type(leaf).__name__ for leaf in leaves)
        raise GuardError(f"forward returns {len(leaves)} values ({kinds}), declared are {len(names)} outputs")
    return dict(zip(names, leaves, strict=True))


def _by_key(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor] | None:
    """Tensors by their keys, and what lies deeper, as ``past_key_values``, in order under the names that are left."""
    keyed = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    deeper = [leaf for key, value in given.items() if key not in keyed for leaf in _pytree.tree_leaves(value)]
    inside = [leaf for leaf in deeper if isinstance(leaf, Tensor)]
    left = [name for name in names if name not in keyed]
    if not keyed or not set(keyed) <= set(names) or len(left) != len(inside):
        return None
    named = keyed | dict(zip(left, inside, strict=True))
    return {name: named[name] for name in names}


def _fields(returned: object, names: Sequence[str]) -> object:
    """A dataclass by its fields; so a named tuple, if its fields are the names of the outputs."""
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type | Mapping):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    if isinstance(returned, tuple) and set(getattr(returned, "_fields", ())) & set(names):
        return returned._asdict()  # type: ignore[attr-defined]  # a named tuple
    return returned


def flatten(module: nn.Module, signature: Signature, call: Call) -> nn.Module:
    """Gives a module a forward that takes the inputs in the order declared and returns the outputs in theirs.

    The module itself is changed, so that its parts and parameters keep their names.
    """
    names = [tensor.name for tensor in signature.inputs]
    original = module.forward

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = call.fill(dict(zip(names, tensors, strict=True)))
        return tuple(named_answers(original(*args, **kwargs), signature.outputs).values())

    positions = [inspect.Parameter(f"input_{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(names))]
    forward.__signature__ = inspect.Signature(positions)  # type: ignore[attr-defined]  # torch asks for it
    module.forward = forward
    return module


@contextmanager
def with_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, a module runs another forward, which is given the signature of its own."""
    forward.__signature__ = inspect.signature(module.forward)  # type: ignore[attr-defined]  # torch asks for it
    before = vars(module).get("forward")
    try:
        module.forward = forward
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _name_at(places: Sequence[inspect.Parameter], place: int) -> str | None:
    return places[place].name if place < len(places) else None


def _by_name(names: Sequence[str], parameters: Sequence[inspect.Parameter]) -> Call:
    """Positions as far as they reach without a gap, keywords from there on."""
    args, kwargs, gap = [], {}, False
    for one in parameters:
        if one.name not in names or one.kind is one.KEYWORD_ONLY:
            gap = True
        if one.name in names:
            if gap:
                kwargs[one.name] = one.name
            else:
                args.append(one.name)
    return Call(tuple(args), kwargs)


def _grouped(names: Sequence[str], places: Sequence[inspect.Parameter]) -> Iterator[Call]:
    """All ways to put inputs that follow one another into at most as many arguments as there are places."""

    def split(left: Sequence[str], parts: int) -> Iterator[tuple[Structure, ...]]:
        if parts == 1:
            yield (left[0] if len(left) == 1 else tuple(left),)
            return
        for size in range(1, len(left) - parts + 2):
            first: Structure = left[0] if size == 1 else tuple(left[:size])
            for rest in split(left[size:], parts - 1):
                yield (first, *rest)

    if len(names) > 8:
        return
    required = sum(one.default is one.empty for one in places)
    if required == 1:
        yield Call(({name: name for name in names},))
    for parts in range(max(1, required), min(len(places), len(names) - 1) + 1):
        yield from (Call(args) for args in split(list(names), parts))


def _filled(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(structure, str):
        return tensors[structure]
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(_filled(part, tensors) for part in structure))
    if isinstance(structure, tuple | list):
        return type(structure)(_filled(part, tensors) for part in structure)
    if isinstance(structure, dict):
        return {key: _filled(part, tensors) for key, part in structure.items()}
    return structure


def _text(structure: Structure) -> str:
    if isinstance(structure, tuple | list):
        return f"({', '.join(map(_text, structure))})"
    if isinstance(structure, dict):
        return f"{{{', '.join(structure)}}}"
    return str(structure)
