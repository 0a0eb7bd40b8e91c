"""Cases, the example that is traced, and what is recorded."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.errors import GuardError
from exporters.spec import Case, Input, bind_sizes
from exporters.sweep import choose_example, choose_golden, default_sizes, generate_cases

IMAGES = Input("face", "uint8", ("N", "H", "W", 3))
TOKENS = Input("tokens", "int64", ("N", "T"), limits=(0, 11))


def sizes_of(case: Case, *inputs: Input) -> dict[str, int]:
    return bind_sizes({tensor.name: tensor.shape for tensor in inputs}, case.inputs)


def test_the_default_sweep_has_every_batch_and_no_two_equal_dimensions() -> None:
    sizes = default_sizes([IMAGES], {})
    assert sizes["N"] == (1, 2, 7, 32)
    assert sizes["H"][0] == sizes["W"][0] == 1
    assert not set(sizes["H"][1:]) & set(sizes["W"][1:])
    seen = [sizes_of(case, IMAGES) for case in generate_cases([IMAGES], sizes)]
    for name, values in sizes.items():
        assert {bound[name] for bound in seen} == set(values)


def test_generated_cases_are_the_same_every_time_and_have_edges() -> None:
    first, second = (generate_cases([IMAGES, TOKENS], default_sizes([IMAGES, TOKENS], {})) for _ in range(2))
    assert [case.name for case in first] == [case.name for case in second]
    for one, other in zip(first, second, strict=True):
        for name in one.inputs:
            np.testing.assert_array_equal(one.inputs[name], other.inputs[name])
    by_name = {case.name: case for case in first}
    assert by_name["low"].inputs["face"].max() == 0
    assert by_name["high"].inputs["face"].min() == 255
    assert by_name["high"].inputs["tokens"].max() == 11
    drawn = np.concatenate([case.inputs["tokens"].ravel() for case in first])
    assert set(drawn.tolist()) == set(range(12))


def test_fixed_shapes_still_give_enough_cases_to_record() -> None:
    fixed = [Input("x", "float32", (2, 3))]
    cases = generate_cases(fixed, {})
    assert len(choose_golden(fixed, cases, [{}] * len(cases), None)) >= 8


def test_given_sizes_are_used_and_strange_ones_refused() -> None:
    assert default_sizes([IMAGES], {"H": [64, 65]})["H"] == (64, 65)
    with pytest.raises(GuardError, match="sizes are given for T; the inputs' dimensions are N, H, W"):
        default_sizes([IMAGES], {"T": [3]})


def test_the_example_has_no_size_of_one_and_no_two_equal() -> None:
    def square(n: int, side: int) -> Case:
        return Case(f"{n} of {side}", {"face": np.full((n, side, side, 3), side, np.uint8)})

    example = choose_example([IMAGES], [square(1, 1), square(1, 40), square(2, 64), square(7, 40)])
    n, h, w, _ = example["face"].shape
    assert len({n, h, w, 3, 1}) == 5
    assert (n in (2, 7), {h, w}) == (True, {40, 64})
    assert set(example["face"].ravel().tolist()) <= {1, 40, 64}, "values come from the cases"
    with pytest.raises(GuardError, match="N is never larger than 1"):
        choose_example([IMAGES], [square(1, 40), square(1, 64)])
    with pytest.raises(GuardError, match="no example with all sizes different"):
        choose_example([IMAGES], [square(2, 40)])


def test_a_real_case_is_traced_where_one_will_do() -> None:
    real = Case("real", {"tokens": np.arange(10).reshape(2, 5)})
    ones = Case("short", {"tokens": np.array([[3]])})
    np.testing.assert_array_equal(choose_example([TOKENS], [ones, real])["tokens"], real.inputs["tokens"])


def test_golden_cases_cover_sizes_edges_and_answers() -> None:
    cases = generate_cases([IMAGES], default_sizes([IMAGES], {}))
    answers = [{"boxes": np.zeros((index % 3, 4))} for index in range(len(cases))]
    chosen = choose_golden([IMAGES], cases, answers, 12)
    assert len(chosen) == 12
    assert {cases[i].name for i in chosen} >= {"low", "high"}
    assert {sizes_of(cases[i], IMAGES)["N"] for i in chosen} == {1, 2, 7, 32}
    assert {len(answers[i]["boxes"]) for i in chosen} == {0, 1, 2}
    with pytest.raises(GuardError, match="at least 8"):
        choose_golden([IMAGES], cases, answers, 5)
    with pytest.raises(GuardError, match="the sweep has 3"):
        choose_golden([IMAGES], cases[:3], answers[:3], None)


def test_the_example_repeats_a_case_and_cuts_none() -> None:
    """A length of 9 is no length of a sequence that was cut to 4 steps."""
    inputs = [Input("x", "float32", ("B", "T")), Input("lengths", "int64", ("B",))]
    cases = [
        Case(f"{rows} of {steps}", {"x": np.zeros((rows, steps), np.float32), "lengths": np.full(rows, steps)})
        for rows, steps in ((9, 9), (2, 2), (1, 4), (4, 1))
    ]
    example = choose_example(inputs, cases)
    rows, steps = example["x"].shape
    assert rows != steps
    assert example["lengths"].shape == (rows,)
    assert example["lengths"].max() <= steps
