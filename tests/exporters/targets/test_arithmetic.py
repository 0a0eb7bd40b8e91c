"""What a target's arithmetic may add to a tolerance: derived from operators, never from the answers it excuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporters.targets.arithmetic import SAFETY, Term, estimating, probe, terms, with_terms
from exporters.targets.base import RemoteSession, Target, TargetMachine
from exporters.targets.prove import prove
from runtime.bundle import Bundle, GoldenCase, golden_to_npz, write_bundle
from runtime.engine import Engine
from runtime.manifest import OutputParity
from tests.bundles import write_scale_bundle

OFF = 8e-6


class Estimating(Target):
    """This machine, whose division is made wrong by `OFF`; with `clever` only where it is not probed."""

    name = "estimating"

    def __init__(self, way: str = "up") -> None:
        self.way = way

    def open(self) -> None:
        return

    def machine(self) -> TargetMachine:
        return TargetMachine("1.0", "made up", "arm", "none")

    def session(self, graph: bytes) -> RemoteSession:
        return Local(estimating(graph, {"Div": OFF}, self.way) or graph)


class Local(RemoteSession):
    def __init__(self, graph: bytes) -> None:
        self.engine = Engine(graph, threads=1)

    def run(self, names, feed):
        return self.engine.session.run(list(names), dict(feed))


def division_bundle(path, mutant: float | None = 1e-3) -> Bundle:
    """y = 1 / x, with a tolerance of float32's rounding."""
    graph = helper.make_graph(
        [helper.make_node("Div", ["one", "x"], ["y"])],
        "division",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    whole = write_scale_bundle(path)
    model = whole.model("scale")
    x = np.random.default_rng(0).uniform(1, 2, (7, 3)).astype(np.float32)
    golden = golden_to_npz([GoldenCase("seven", {"x": x}, {"y": 1 / x.astype(np.float64)})])
    files = {"scale.onnx": data, "scale.golden.npz": golden}
    digest = {name: __import__("hashlib").sha256(content).hexdigest() for name, content in files.items()}
    variant = replace(model.variants["fp32"], sha256=digest["scale.onnx"], bytes=len(data))
    rule = OutputParity(1e-6, 0.0, mutant=mutant)
    model = replace(
        model,
        variants={"fp32": variant},
        golden=replace(model.golden, sha256=digest["scale.golden.npz"], cases=1),
        parity=replace(model.parity, outputs={"y": rule}),
    )
    return write_bundle(path, replace(whole.manifest, models={"scale": model}), files)


def test_the_probes_find_what_is_estimated_and_nothing_else():
    assert probe(Estimating()) == {"Div": pytest.approx(OFF, rel=0.05)}


def test_a_target_that_divides_exactly_has_no_term():
    exact = Estimating()
    exact.session = Local  # type: ignore[method-assign,assignment]
    assert probe(exact) == {}


def test_the_term_is_twice_what_the_operators_error_does(tmp_path):
    bundle = division_bundle(tmp_path / "division.edge")
    spec = bundle.model("scale")
    (term,) = terms(bundle.graph("scale"), spec, "fp32", bundle.golden("scale"), {"Div": OFF})
    largest = max(case.outputs["y"].max() for case in bundle.golden("scale"))
    assert term.size == pytest.approx(SAFETY * OFF * largest, rel=0.02)
    assert with_terms(spec, "fp32", [term]).parity_of("fp32").outputs["y"].atol == pytest.approx(1e-6 + term.size)


@pytest.mark.parametrize("way", ["up", "down", 3])
def test_a_target_that_divides_worse_is_proven_with_its_term(tmp_path, way):
    report = prove(division_bundle(tmp_path / "division.edge"), Estimating(way))
    assert report
    assert report.estimated["Div"] == pytest.approx(OFF, rel=0.3)
    assert 0.9 < report.proofs[0].arithmetic < 1


def test_no_term_hides_the_weakest_mutant(tmp_path):
    report = prove(division_bundle(tmp_path / "division.edge", mutant=1e-5), Estimating())
    assert not report
    assert "too near to the weakest mutant (1.00e-05) to be allowed" in report.notes[0]
    assert report.proofs[0].arithmetic is None


def test_an_error_that_the_operators_do_not_explain_fails(tmp_path):
    """The term comes from the probes: a graph that is wrong in another way is not excused."""
    target = Estimating()
    wrong = target.session

    def session(graph: bytes) -> RemoteSession:
        model = onnx.load_from_string(graph)
        for tensor in model.graph.initializer:
            if tensor.name == "one":
                tensor.CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [], [1.0001]))
        return wrong(model.SerializeToString())

    target.session = session  # type: ignore[method-assign]
    assert not prove(division_bundle(tmp_path / "division.edge"), target)


def test_where_the_limit_lies():
    assert Term("y", 8e-6, 1e-6, 1e-5).holds
    assert not Term("y", 9.1e-6, 1e-6, 1e-5).holds
    assert Term("y", 1.0, 1e-6, None).holds
