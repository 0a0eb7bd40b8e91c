"""What torch.onnx does to a graph after it was written, without the steps that change answers.

Its own optimiser (onnxscript) takes a constant within 1e-8 of 0 for 0 and one within 1e-5 of 1 for 1. So it drops the
1e-8 of ``x / (x.norm() + 1e-8)``, without which zeros become NaN, and the 1e-5 of ``x * 1.00001``.
"""

from __future__ import annotations

import copy
from typing import Any

import onnx_ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer
from onnxscript.rewriter import RewritePass, RewriteRule, pattern
from onnxscript.rewriter.rules import common as rules


def simplify(model: onnx_ir.Model) -> None:
    """Folds constants, drops what does nothing and gives the weights their place, in place."""
    passes.InlinePass()(model)
    rewrite = RewritePass([_at_its_operator(rule) for rule in _rules()])
    for _ in range(2):
        optimizer.fold_constants(model, onnx_shape_inference=True)
        changed = rewrite(model).modified
        for sweep in (passes.RemoveUnusedNodesPass, passes.RemoveUnusedFunctionsPass, passes.RemoveUnusedOpsetsPass):
            sweep()(model)
        if not changed:
            break
    for finish in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        finish(model)


def _rules() -> list[RewriteRule]:
    zero, one = (pattern.Constant(value, rel_tol=0.0, abs_tol=0.0) for value in (0, 1))

    def identity(op: Any, x: Any, **_: Any) -> Any:
        return op.Identity(x)

    idle = (
        lambda op, x: op.Add(x, zero),
        lambda op, x: op.Add(zero, x),
        lambda op, x: op.Sub(x, zero),
        lambda op, x: op.Mul(x, one),
        lambda op, x: op.Mul(one, x),
        lambda op, x: op.Div(x, one),
    )
    return [
        *(RewriteRule(form, identity) for form in idle),
        rules.dropout_inference_rule,
        rules.dropout_zero_rule,
        rules.one_reshape_matmul_reshape_rule,
        rules.two_reshapes_matmul_reshape_rule,
        rules.cast_constant_of_shape_rule,
        rules.cast_constant_of_shape_without_value_rule,
        rules.collapse_slice_rule,
        rules.collapse_slice2_rule,
        rules.materialize_reshape_shape_rule,
        rules.successive_relu_rule,
        rules.cast_cast_rule,
        rules.no_op_cast_rule,
        rules.no_op_expand_rule,
        rules.no_op_transpose_rule,
        rules.reshape_reshape_rule,
        rules.slice_split_rule,
        rules.squeeze_reshape_1d_rule,
        rules.transpose_transpose_rule,
        rules.unsqueeze_unsqueeze_rule,
        rules.flatten_to_reshape_rule,
        rules.no_op_dynamic_scatter_nd_rule,
        rules.no_op_static_scatter_nd_rule,
        rules.normalize_pad_format_conv_rule,
        rules.fuse_pad_into_conv_rule,
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.fuse_batchnorm_into_gemm_rule,
        rules.remove_optional_bias_from_conv_rule,
        rules.remove_optional_bias_from_conv_transpose_rule,
        rules.remove_optional_bias_from_gemm_rule,
    ]


def _at_its_operator(rule: RewriteRule) -> RewriteRule:
    """A rule that is tried at nodes of its operator only.

    A rule of several results sorts all nodes of the graph whenever it is tried. Tried at every node, that took half the
    time of the export of a large graph.
    """
    operator = rule._target_pattern.output_nodes[0].op_identifier()
    if operator is None:
        return rule

    def try_rewrite(model: onnx_ir.Model, graph: Any, node: onnx_ir.Node, **options: Any) -> Any:
        return rule.try_rewrite(model, graph, node, **options) if node.op_identifier() == operator else None

    quick = copy.copy(rule)
    vars(quick).update(try_rewrite=try_rewrite)
    return quick
