"""Declarations as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.declaration import parse_input, parse_output, parse_sizes, parse_state, read_sample
from exporters.spec import Input, Output
from runtime.errors import InputError
from runtime.manifest import DimensionSpec, StateSpec


@pytest.mark.parametrize(
    ("text", "expected", "sizes"),
    [
        ("x: float32[N, 8]", Input("x", "float32", ("N", 8)), {}),
        (" x :uint8[ N,H,W , 3 ] ", Input("x", "uint8", ("N", "H", "W", 3)), {}),
        ("x: float32[B, T=1..512, 24] in 0..1", Input("x", "float32", ("B", "T", 24), limits=(0.0, 1.0)),
         {"T": DimensionSpec(1, 512)}),
        ("x: float32[T=4..] in -1e-3..2.5", Input("x", "float32", ("T",), limits=(-1e-3, 2.5)),
         {"T": DimensionSpec(4)}),
        ("x: float32[H=32..1024/32]", Input("x", "float32", ("H",)), {"H": DimensionSpec(32, 1024, 32)}),
        ("x.y: int64[]", Input("x.y", "int64", ()), {}),
    ],
    ids=range(6),
)  # fmt: skip
def test_inputs(text: str, expected: Input, sizes: dict[str, DimensionSpec]) -> None:
    assert parse_input(text) == (expected, sizes)


def test_outputs_states_and_sizes() -> None:
    assert parse_output("y: float32[N, 3] argmax nan") == (
        Output("y", "float32", ("N", 3), decision="argmax", nan=True), {}
    )  # fmt: skip
    h0 = Input("h0", "float32", (1, "B", 4))
    assert parse_state("h0=hn", [h0]) == StateSpec("h0", "hn", (1, "B", 4), "float32")
    assert parse_sizes(["T=1,7,33", "N=2"]) == {"T": [1, 7, 33], "N": [2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "is no declaration"),
        ("x: float[N]", "'float' in .* is no type"),
        ("x: float32[N, -1]", "'-1' in .* is no dimension"),
        ("x: float32[N, None]x", "is no range of values"),
        ("x: float32[(1, 2)]", "is no dimension"),
        ("x: float32[T=9..3]", "holds no size"),
        ("x: float32[N] in 3..1", "is no range of values"),
        ("x: float32[N] between 1 and 2", "is no range of values"),
    ],
)
def test_what_is_no_input(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_input(text)


def test_what_is_no_output_state_or_size() -> None:
    with pytest.raises(InputError, match=r"'maximum' in .* is none of argmax, round, exact and nan"):
        parse_output("y: float32[N] maximum")
    for text in ("h0", "h0=", "z=hn"):
        with pytest.raises(InputError, match="a state is INPUT=OUTPUT"):
            parse_state(text, [Input("h0", "float32", ("N",))])
    with pytest.raises(InputError, match="sizes are NAME=N"):
        parse_sizes(["T=1,x"])


def test_samples(tmp_path: Path) -> None:
    inputs = [Input("x", "float32", ("N",))]
    np.savez(tmp_path / "a.npz", x=np.ones(3, np.float32))
    case, answers = read_sample(str(tmp_path / "a.npz"), inputs)
    assert (case.inputs["x"].tolist(), answers) == ([1.0, 1.0, 1.0], {})
    np.savez(tmp_path / "b.npz", y=np.ones(3))
    (tmp_path / "c.npz").write_bytes(b"PK")
    for name, message in (("b", "holds the arrays y; expected x"), ("c", "damaged"), ("d", "No such file")):
        with pytest.raises(InputError, match=message):
            read_sample(str(tmp_path / f"{name}.npz"), inputs)
