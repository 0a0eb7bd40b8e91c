"""The rules that simplify a graph."""

from __future__ import annotations

import onnx_ir
import pytest
from onnxscript.rewriter import RewriteRule
from onnxscript.rewriter.rules import common as rules

from exporters import simplify


def test_a_rule_is_tried_at_its_operator_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule of two slices sorts all nodes of the graph at each try."""
    tried: list[str] = []
    monkeypatch.setattr(RewriteRule, "try_rewrite", lambda self, model, graph, node, **_: tried.append(node.op_type))
    quick = simplify._at_its_operator(rules.slice_split_rule)
    for operator in ("Relu", "Slice", "Concat"):
        assert quick.try_rewrite(None, None, onnx_ir.node(operator, inputs=[])) is None
    assert tried == ["Slice"]
