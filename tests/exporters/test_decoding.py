"""The search in torch and in ONNX against a plain search in numpy, against all sequences, and at its edges."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporters.convert import convert
from exporters.decoding import beam_search, largest
from exporters.execute import LEVELS, open_graph
from exporters.spec import Input, Signature
from tests.exporters.searches import LSTMSearch, Rule, Searching, TableSearch, as_arrays, every_sequence

BATCHES = (1, 3, 8)


def draw(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, 5)).astype(np.float32)


def in_torch(module: Searching, x: NDArray[Any]) -> list[NDArray[Any]]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in module(torch.from_numpy(x.astype(np.float64)))]


def graph_of(module: Searching, tensor: Input, example: NDArray[Any]) -> bytes:
    model = convert(module, {"x": example}, Signature([tensor], module.outputs()), 18).model
    data: bytes = model.SerializeToString()
    return data


def assert_same(found: list[NDArray[Any]], expected: tuple[NDArray[Any], ...], tolerance: float) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[2], expected[2], rtol=0, atol=tolerance)


@pytest.fixture(scope="module", params=[1, 3, 5], ids=["greedy", "width 3", "width 5"])
def lstm(request: pytest.FixtureRequest) -> LSTMSearch:
    return LSTMSearch(Rule(width=request.param))


@pytest.fixture(scope="module")
def lstm_graph(lstm: LSTMSearch) -> bytes:
    return graph_of(lstm, lstm.VECTOR, draw(4))


@pytest.fixture(scope="module")
def table_graph() -> bytes:
    module = TableSearch(Rule(width=3, max_length=6), vocabulary=5)
    return graph_of(module, module.table, np.zeros((2, 5, 5), np.float32))


@pytest.mark.parametrize("batch", BATCHES)
def test_torch_finds_what_the_plain_search_finds(lstm: LSTMSearch, batch: int) -> None:
    x = draw(batch, seed=batch)
    module = LSTMSearch(lstm.rule).double()
    assert_same(in_torch(module, x), module.reference(x), 1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("batch", BATCHES)
def test_the_graph_finds_what_the_plain_search_finds(
    lstm: LSTMSearch, lstm_graph: bytes, batch: int, level: str
) -> None:
    x = draw(batch, seed=batch)
    with torch.no_grad():
        margins = LSTMSearch(lstm.rule).double().margins(torch.from_numpy(x).double())
    assert float(margins.min()) > 1e-5, "not decided"
    answers = open_graph(lstm_graph, level).run(None, {"x": x})
    assert_same(answers, lstm.reference(x), 1e-5)


def test_sequences_are_of_many_lengths(lstm: LSTMSearch) -> None:
    """Otherwise the cases above would show nothing about ends."""
    _, lengths, _ = in_torch(LSTMSearch(lstm.rule).double(), draw(8, seed=8))
    assert len(np.unique(lengths)) >= 3
    assert lengths.max() == lstm.rule.max_length


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_search_that_is_wide_enough_is_exhaustive(penalty: float) -> None:
    rule = Rule(width=4**3, max_length=3, length_penalty=penalty)
    module = LSTMSearch(rule, vocabulary=4, scale=2.0).double()
    x = draw(3, seed=5)
    every = [every_sequence(module.follow(item), rule, 4) for item in x]
    assert [len(sentences) for sentences in every] == [1 + 2 + 4 + 8] * 3
    assert_same(in_torch(module, x), as_arrays(every, rule), 1e-12)


def test_more_hypotheses_than_sequences_leave_empty_ones(table_graph: bytes) -> None:
    rule = Rule(width=3, max_length=6)
    module = TableSearch(rule, 5)
    table = np.full((1, 5, 5), -np.inf, np.float32)
    table[:, :, 0] = 0  # nothing can be said but the end
    expected = (np.zeros((1, 3, 6)), np.zeros((1, 3)), np.array([[0, -np.inf, -np.inf]]))
    assert_same(in_torch(module, table), expected, 0)
    assert_same(open_graph(table_graph, LEVELS[1]).run(None, {"x": table}), expected, 0)


@settings(max_examples=60, deadline=None)
@example(seed=248, width=4, length=4, penalty=1.0, suppressed=(1, 3), end=2)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 6),
    length=st.integers(1, 6),
    penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    suppressed=st.sampled_from([(), (1,), (1, 3)]),
    end=st.sampled_from([0, 2]),
)
def test_any_rule(seed: int, width: int, length: int, penalty: float, suppressed: tuple[int, ...], end: int) -> None:
    rule = Rule(width, length, penalty, end, suppressed)
    module = TableSearch(rule, 5)
    table = 2 * np.random.default_rng(seed).standard_normal((2, 5, 5))
    # 4 0 0 4 0 and 4 0 4 0 0 make the same steps in another order: only rounding tells their sums apart.
    decided = module.margins(torch.from_numpy(table)).numpy() > 1e-9
    answers, expected = in_torch(module, table), module.reference(table)
    assert_same([answer[decided] for answer in answers], tuple(e[decided] for e in expected), 1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 4))
def test_any_table_in_the_graph(table_graph: bytes, seed: int, batch: int) -> None:
    module = TableSearch(Rule(width=3, max_length=6), 5)
    table = (2 * np.random.default_rng(seed).standard_normal((batch, 5, 5))).astype(np.float32)
    decided = module.margins(torch.from_numpy(table).double()).numpy() > 1e-5
    answers = open_graph(table_graph, LEVELS[1]).run(None, {"x": table})
    expected = module.reference(table)
    assert_same([answer[decided] for answer in answers], tuple(e[decided] for e in expected), 1e-5)


def test_of_equal_continuations_the_lower_comes_first(table_graph: bytes) -> None:
    """All words equally likely: every hypothesis ties with every other of its length, in each step."""
    module = TableSearch(Rule(width=3, max_length=6, suppressed=(1,)), 5)
    table = np.zeros((1, 5, 5), np.float32)
    table[:, :, 0] = -50
    expected = np.array([[[2] * 6, [2] * 5 + [3], [2] * 5 + [4]]])
    for answers in (
        in_torch(module, table),
        module.reference(table),
        *(open_graph(table_graph, level).run(None, {"x": table}) for level in LEVELS),
    ):
        np.testing.assert_array_equal(answers[0], expected)


def test_of_equal_continuations_the_earlier_hypothesis_goes_first(table_graph: bytes) -> None:
    """2 and 3 begin alike and both go on with 4 or the end alike."""
    table = np.full((1, 5, 5), -50, np.float32)
    table[0, 0, [2, 3]] = 0
    table[0, [[2], [3]], [0, 4]] = 0
    table[0, 4, 0] = 0
    rule = Rule(width=3, max_length=6)
    module = TableSearch(rule, 5)
    found = in_torch(module, table)
    assert_same(found, module.reference(table), 1e-12)
    # In the second step "2 end", "2 4", "3 end" and "3 4" are equal and the last is dropped; then the longer leads.
    np.testing.assert_array_equal(found[0][0, :, :3], [[2, 4, 0], [2, 0, 0], [3, 0, 0]])
    for level in LEVELS:
        assert_same(open_graph(table_graph, level).run(None, {"x": table}), module.reference(table), 1e-6)


def profile(graph: bytes, x: NDArray[Any], folder: Path) -> Counter[str]:
    """How often each operator ran for one input."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(event["args"]["op_name"] for event in events if event.get("name", "").endswith("_kernel_time"))


def table_that_ends_after(words: int, vocabulary: int = 5) -> NDArray[np.float32]:
    """The best sentences have so many words or fewer (0, 1, 2 or 6, which is as many as there may be)."""
    table = np.full((1, vocabulary, vocabulary), -9, np.float32)
    table[0, :, 0] = -30
    if words == 6:
        table[0, :, [2, 3, 4]] = 0
        return table
    if words == 0:
        table[0, :, 0] = 0
        return table
    table[0, 0, [2, 3, 4]] = [0, -0.1, -0.2]
    if words == 1:
        table[0, [2, 3, 4], 0] = 0
    else:
        table[0, [2, 3, 4], 4], table[0, 4, 0] = -1, 0
    return table


@pytest.mark.parametrize(("words", "steps"), [(0, 2), (1, 2), (6, 6)])
def test_the_loop_stops_when_all_hypotheses_have_ended(
    table_graph: bytes, tmp_path: Path, words: int, steps: int
) -> None:
    table = table_that_ends_after(words)
    assert profile(table_graph, table, tmp_path)["LogSoftmax"] == steps
    module = TableSearch(Rule(width=3, max_length=6), 5)
    calls = []
    step = module.stepping(torch.from_numpy(table))

    def counted(tokens: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        calls.append(tokens)
        return step(tokens, state)

    beam_search(counted, module.begin(torch.from_numpy(table)), **module._named(torch.from_numpy(table)))
    assert len(calls) == steps


def test_an_item_that_has_ended_waits_for_the_others(table_graph: bytes, tmp_path: Path) -> None:
    tables = np.concatenate([table_that_ends_after(words) for words in (1, 6, 0)])
    together = open_graph(table_graph, LEVELS[1]).run(None, {"x": tables})
    assert profile(table_graph, tables, tmp_path)["LogSoftmax"] == 6
    for item in range(3):
        alone = open_graph(table_graph, LEVELS[1]).run(None, {"x": tables[item : item + 1]})
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[item])
    assert together[1][:, 0].tolist() == [1, 6, 0]
    assert together[1][1].tolist() == [6, 6, 6], "none of these has ended"


def test_suppressed_tokens_are_never_said(table_graph: bytes) -> None:
    table = np.zeros((2, 5, 5), np.float32)
    table[:, :, 1] = 20  # by far the likeliest
    module = TableSearch(Rule(width=3, max_length=6), 5)
    for answers in (in_torch(module, table), open_graph(table_graph, LEVELS[1]).run(None, {"x": table})):
        assert not (answers[0] == 1).any()
        assert np.isfinite(answers[2]).all()
        # Its share goes to the others: log(1/4) a token, at any length the same mean but for the exponent.
        np.testing.assert_allclose(answers[2][:, 0], np.log(1 / 4), rtol=1e-6)


def test_logits_of_minus_infinity_give_no_nan(table_graph: bytes) -> None:
    table = np.full((1, 5, 5), -np.inf, np.float32)
    table[0, 0, [2, 3]] = [0, -1]
    table[0, [2, 3], 0] = 0
    module = TableSearch(Rule(width=3, max_length=6), 5)
    for answers in (in_torch(module, table), open_graph(table_graph, LEVELS[1]).run(None, {"x": table})):
        np.testing.assert_array_equal(answers[0][0, :, :2], [[2, 0], [3, 0], [0, 0]])
        assert not np.isnan(answers[2]).any()
        assert answers[2][0, 2] == -np.inf
        assert np.isfinite(answers[2][0, :2]).all()


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_scores_are_sums_over_powers_of_the_length(penalty: float) -> None:
    module = TableSearch(Rule(width=1, max_length=4, length_penalty=penalty, suppressed=()), 3)
    table = np.array([[[-9.0, 2, 0], [3, 0, 0], [0, 0, 0]]])
    tokens, lengths, scores = in_torch(module, table)
    total = 2 - np.log(np.exp(-9) + np.exp(2) + 1) + 3 - np.log(np.exp(3) + 2)
    assert tokens[0, 0].tolist() == [1, 0, 0, 0]
    assert lengths[0, 0] == 1
    assert scores[0, 0] == pytest.approx(total / 2**penalty, abs=1e-12)


def test_the_margin_is_the_gap_that_decides() -> None:
    module = TableSearch(Rule(width=2, max_length=1, length_penalty=0), 5)
    table = np.zeros((1, 5, 5))
    table[0, 0] = [3.0, 9, 2.5, 2.2, 0]
    margin = module.margins(torch.from_numpy(table))
    assert float(margin) == pytest.approx(0.3, abs=1e-12), "kept are 0 and 2, the first to be dropped is 3"
    table[0, 0] = [2.6, 9, 2.5, 2.0, 0]
    assert float(module.margins(torch.from_numpy(table))) == pytest.approx(0.1, abs=1e-12), "the order of 0 and 2"
    table[0, 0] = 0
    assert float(module.margins(torch.from_numpy(table))) == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), margin=st.floats(1e-3, 0.3))
def test_what_is_off_by_less_than_half_the_margin_changes_no_token(seed: int, margin: float) -> None:
    """Each step's noise moves a sum by at most 2ε; so no score moves by more than 2εL."""
    chance = np.random.default_rng(seed)
    module = TableSearch(Rule(width=3, max_length=4, length_penalty=0), 5)
    table = chance.standard_normal((8, 5, 5))
    margins = module.margins(torch.from_numpy(table)).numpy()
    # Below lies only the rounding of sums that are equal on paper, such as those of a circle begun at another word.
    apart = margins > 1e-9
    table, margins = table[apart], margins[apart]
    noise = margins[:, None, None] / (2 * 4) / 2 * 0.99 * chance.uniform(-1, 1, table.shape)
    np.testing.assert_array_equal(in_torch(module, table + noise)[0], in_torch(module, table)[0])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_largest_is_a_stable_sort(count: int) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (50, 7)).astype(np.float64))
    values[3] = -torch.inf
    top, index = largest(values, count)
    order = np.argsort(-values.numpy(), axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(index.numpy(), order)
    np.testing.assert_array_equal(top.numpy(), np.take_along_axis(values.numpy(), order, 1))


def test_impossible_rules_are_refused() -> None:
    step = TableSearch(Rule(), 3).stepping(torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="width is 0 and max_length 5; both must be at least 1"):
        beam_search(step, (), batch=1, width=0, max_length=5, length_penalty=0)
    with pytest.raises(ValueError, match="the token 1 ends a sequence and is suppressed"):
        beam_search(step, (), batch=1, width=1, max_length=5, length_penalty=0, end=1)
