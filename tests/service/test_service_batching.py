"""The queue of a bundle: what gathers runs together, in order, bounded, and nobody gets another's answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InputError
from runtime.pipelines import load
from service.bundles.batching import BatchingQueue, Call
from service.bundles.served import Served
from service.problems import Problem
from tests.bundles import write_scale_bundle


class Gate:
    """Answers calls with their source doubled, and waits to be let through."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.open = threading.Event()
        self.busy = threading.Event()

    def __call__(self, calls: Sequence[Call]) -> None:
        self.batches.append([call.source for call in calls])
        self.busy.set()
        assert self.open.wait(30)
        for call in calls:
            call.outcome = call.source * 2


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def queue(gate: Gate) -> Iterator[BatchingQueue]:
    made = BatchingQueue(gate, capacity=8, together=4)
    yield made
    gate.open.set()
    made.close()


def submit(queue: BatchingQueue, source: object, ended: list[Call], **options: object) -> Call:
    call = Call(source, deliver=ended.append, **options)
    queue.submit(call)
    return call


def occupy(queue: BatchingQueue, gate: Gate, ended: list[Call]) -> None:
    """The queue's thread is at work on the source 0 when this returns."""
    submit(queue, 0, ended)
    assert gate.busy.wait(30)


def test_what_has_gathered_is_taken_together_in_order(queue: BatchingQueue, gate: Gate) -> None:
    ended: list[Call] = []
    occupy(queue, gate, ended)
    calls = [submit(queue, source, ended) for source in range(1, 7)]
    gate.open.set()
    queue.close()
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [call.outcome for call in calls] == [2, 4, 6, 8, 10, 12]
    assert [call.together for call in ended] == [1, 4, 4, 4, 4, 2, 2]
    assert all(call.asked <= call.taken for call in ended)


def test_a_full_queue_refuses_and_says_when_to_come_back(queue: BatchingQueue, gate: Gate) -> None:
    ended: list[Call] = []
    occupy(queue, gate, ended)
    for source in range(8):
        submit(queue, source, ended)
    with pytest.raises(Problem, match="Too many requests wait") as refused:
        submit(queue, 99, ended)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    gate.open.set()
    queue.close()
    assert len(ended) == 9, "what was taken is answered"


def test_who_has_left_or_waited_too_long_costs_nothing(queue: BatchingQueue, gate: Gate) -> None:
    ended: list[Call] = []
    occupy(queue, gate, ended)
    late = submit(queue, 1, ended, deadline=time.monotonic() - 1)
    gone = submit(queue, 2, ended)
    kept = submit(queue, 3, ended)
    gone.gone = True
    gate.open.set()
    queue.close()
    assert gate.batches == [[0], [3]]
    assert kept.outcome == 6
    assert [call.error.status for call in (late, gone)] == [503, 503]
    assert len(ended) == 4


def test_an_idle_queue_answers_in_the_thread_that_asks() -> None:
    threads: list[threading.Thread] = []

    def run(calls: Sequence[Call]) -> None:
        threads.append(threading.current_thread())
        calls[0].outcome = "here"

    queue = BatchingQueue(run)
    assert queue.ask(Call(1)) == "here"
    assert threads == [threading.current_thread()]
    queue.close()


def test_who_asks_while_it_is_busy_waits_for_its_turn(queue: BatchingQueue, gate: Gate) -> None:
    ended: list[Call] = []
    occupy(queue, gate, ended)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(queue.ask(Call(21))))
    asking.start()
    while not len(queue):
        time.sleep(0.001)
    gate.open.set()
    asking.join(30)
    assert answers == [42]


def test_a_closed_queue_takes_nothing_and_forgets_nothing(queue: BatchingQueue, gate: Gate) -> None:
    ended: list[Call] = []
    occupy(queue, gate, ended)
    waiting = submit(queue, 5, ended)
    gate.open.set()
    queue.close()
    assert waiting.outcome == 10
    for ask in (queue.ask, queue.submit):
        with pytest.raises(Problem, match="being replaced"):
            ask(Call(1))


def test_a_fault_of_ours_reaches_everyone_who_asked() -> None:
    def broken(_calls: Sequence[Call]) -> None:
        raise ZeroDivisionError

    queue = BatchingQueue(broken)
    with pytest.raises(ZeroDivisionError):
        queue.ask(Call(1))
    ended: list[Call] = []
    submit(queue, 2, ended)
    queue.close()
    assert isinstance(ended[0].error, ZeroDivisionError)


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(load(write_scale_bundle(tmp_path_factory.mktemp("scale") / "scale.edge").path))
    yield served
    served.close()


def ask_together(served: Served, sources: Sequence[object], model: str | None) -> list[Call]:
    """Has the queue take all of them at once."""
    calls = [Call(source, model) for source in sources]
    served._answer(calls)
    return calls


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(-100, 100), st.sampled_from(["good", "wrong type", "wrong rank"])),
        min_size=1, max_size=12,
    ),
    as_model=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_each_gets_the_answer_to_its_own_question(
    scale: Served, rows: list[tuple[int, int, str]], as_model: bool
) -> None:
    """Arrays of other shapes and wrong ones among them: what a call is answered is what it is answered alone."""
    ((model, engine),) = scale.pipeline.engines.items()
    (spec,) = engine.spec.inputs
    sources = []
    for count, mark, kind in rows:
        array = np.full((count, 3), mark, spec.dtype)
        array = array.astype(np.int64) if kind == "wrong type" else array[..., None] if kind == "wrong rank" else array
        sources.append({spec.name: array})
    together = ask_together(scale, sources, model if as_model else None)
    for call, source in zip(together, sources, strict=True):
        (alone,) = ask_together(scale, [source], model if as_model else None)
        assert type(call.error) is type(alone.error)
        if call.error is None:
            np.testing.assert_equal(call.outcome, alone.outcome)
        else:
            assert isinstance(call.error, InputError)


def test_marked_requests_of_many_threads_are_never_mixed(scale: Served) -> None:
    ((model, engine),) = scale.pipeline.engines.items()
    (spec,), (answer, *_) = engine.spec.inputs, engine.spec.outputs
    faults: list[object] = []

    def ask(mark: int) -> None:
        for turn in range(25):
            value = mark * 100 + turn
            shape = [
                1 + (mark + turn) % 3 if size == "N" else size if isinstance(size, int) else 2 for size in spec.shape
            ]
            array = np.full(shape, value, spec.dtype)
            got = scale.ask(Call({spec.name: array}, model))[answer.name]
            expected = engine.run({spec.name: array})[answer.name]
            if not np.array_equal(got, expected):
                faults.append((value, got))

    threads = [threading.Thread(target=ask, args=(mark,)) for mark in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults


@pytest.mark.parametrize("apart", [True, False], ids=["rows that stand alone", "rows that may not"])
def test_requests_are_stacked_only_where_rows_stand_alone(
    scale: Served, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    ((model, engine),) = scale.pipeline.engines.items()
    monkeypatch.setitem(scale.health.door.stackable, model, apart)
    rows: list[int] = []
    session = engine.session

    class Counting:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            rows.append(len(feed["x"]))
            return session.run(names, feed)

    monkeypatch.setattr(engine, "_session", Counting())
    for target in (model, None):
        ask_together(scale, [{"x": np.ones((count, 3), np.float32)} for count in (1, 2)], target)
    assert rows == ([3, 3] if apart else [1, 2, 1, 2])
