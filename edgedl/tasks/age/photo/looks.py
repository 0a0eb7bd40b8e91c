"""The looks at a photo inside a graph, as `runtime.detection` and `runtime.crowds` have them.

The detector stands in the graph once, in a loop. Each turn shows it one picture: the whole photo, the photo in a frame,
a sheet of close-ups, the crowd, a sheet of candidates, or one candidate alone. What it sees there decides which picture
comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from edgedl.tasks.age.photo.detector import Detector, bordered, letterboxed
from edgedl.tasks.age.photo.pixels import fitted, framed, rounded, sides, to_double, to_float, to_whole
from edgedl.tasks.age.photo.rows import (
    boxes_of,
    column,
    count,
    kept,
    middle_of,
    moved,
    no_rows,
    overlaps,
    scalar,
    scores_of,
    side_of,
    with_nothing,
)
from edgedl.tasks.age.photo.sheet import Sheet
from exporters.errors import GuardError
from exporters.writer import Value, Writer
from runtime.crowds import ALONE as ALONE_SHEET
from runtime.crowds import POSSIBLE, Crowd
from runtime.crowds import SAME_FACE as SAME_IN_CROWD
from runtime.detection import MOST_BEYOND, SAME_FACE, STEP, Looks

WHOLE, FRAMED, AGAIN, CROWD, SHEET, ALONE, DONE = range(7)


class State(NamedTuple):
    """What is carried from one picture to the next.

    Attributes:
        look: (1,) which picture comes next.
        faces: rows of the faces that count, in pixels of the photo.
        shown: rows of what is shown on sheets: the faces themselves, later the candidates.
        waiting: (Q,) which of them are still to be shown.
        alone: rows of the candidates that are to be shown alone.
        added: rows of the faces that the crowd's look adds.
        sure: (1,) how many faces the last sheet of candidates has shown.
    """

    look: Value
    faces: Value
    shown: Value
    waiting: Value
    alone: Value
    added: Value
    sure: Value


def check_looks(looks: Looks) -> Crowd:
    """Refuses a bundle that looks at photos in a way that is written nowhere here, and gives its crowd's look.

    Raises:
        GuardError: one of its settings is left out, which only older bundles do.
    """
    without = [name for name in ("look_again", "overview", "close_up", "sheet", "fitted") if not getattr(looks, name)]
    if without or looks.crowd is None:
        raise GuardError(
            f"the settings of this bundle leave out {', '.join(without) or 'crowd'}; one graph is made of bundles "
            "that this version of edgedl makes"
        )
    return looks.crowd


class Looker:
    """Writes the looks at one photo.

    Args:
        image: uint8 (H, W, 3).
        looks: the bundle's settings.
        detector: the bundle's network.
    """

    def __init__(self, image: Value, looks: Looks, detector: Detector) -> None:
        self.crowd = check_looks(looks)
        self.image, self.looks, self.detector = image, looks, detector
        self.writer: Writer = image.writer
        self.height, self.width = sides(image)
        self.longest, self.shortest = self.height.most(self.width), self.height.least(self.width)
        first = self._first_side()
        self.overview = fitted(image, first)
        self.factor = column(to_double(self.longest) / to_double(first))
        self.wanted = self._crowd_side()
        self.sheets = self._sheets()

    def found(self) -> Value:
        """The faces, the surest first, in pixels of the photo."""
        writer = self.writer
        none, empty = no_rows(writer), writer.constant(np.zeros(0, np.int64))
        begin = State(writer.whole(WHOLE), none, none, empty, none, none, writer.whole(0))

        def body(_: Value, carried: Sequence[Value]) -> tuple[Value, Sequence[Value], Sequence[Value]]:
            state = self._turn(State(*carried))
            return state.look < DONE, state, []

        end = State(*writer.repeat(None, None, begin, body, ranks=(1, 2, 2, 1, 2, 2, 1)))
        with writer.step("added"):
            (faces,) = writer.choose(count(end.added) > 0, lambda: [self._with_added(end)], lambda: [end.faces])
        return faces

    def _sheets(self) -> Sheet:
        """How the pictures of each look are laid out and read."""
        crowd, faces = self.detector.crowd, self.detector.faces
        first = self.looks.sheet // self.looks.close_up
        close_ups = (self.looks.look_again, self.looks.close_up, first, SAME_FACE)
        layouts = {AGAIN: close_ups} | {
            look: (sheet.share, sheet.side, sheet.across, sheet.agreed)
            for look, sheet in ((SHEET, self.crowd.sheet), (ALONE, ALONE_SHEET))
        }
        bounds = {look: crowd if look in (CROWD, SHEET, ALONE) else faces for look in range(DONE)}
        return Sheet(self.image, layouts, bounds, centred=(WHOLE, FRAMED, AGAIN))

    def _first_side(self) -> Value:
        """See `Looks.first_side`."""
        side = self.writer.whole(self.looks.overview)
        short = rounded(to_double(side * self.shortest) / to_double(self.longest))
        beyond = short - short / STEP * STEP
        trimmed = (beyond > 0) & (beyond * MOST_BEYOND <= short)
        return self.writer.where(trimmed, side * (short - beyond) / short.most(1), side)

    def _crowd_side(self) -> Value:
        """See `Crowd.share` and `Crowd.side`."""
        crowd = self.crowd
        share = (1 / to_double(self.longest) * crowd.least).most(crowd.smallest)
        return self.longest.least(rounded(1 / share * crowd.shown))

    def _turn(self, state: State) -> State:
        """Shows one picture and says what comes next."""
        writer, look = self.writer, state.look
        (asked,) = writer.choose(
            look.equals(ALONE),
            lambda: [state.alone.cut(0, 1)],
            lambda: [state.shown.take(state.waiting.cut(0, self.sheets.most(look)))],
        )
        squares = self.sheets.squares(asked, look)
        picture, placement = writer.choose(
            look <= FRAMED,
            lambda: writer.choose(
                look.equals(WHOLE),
                lambda: bordered(self.overview, writer.whole(1)),
                lambda: letterboxed(self._frame()[0]),
            ),
            lambda: writer.choose(
                look.equals(CROWD),
                lambda: bordered(fitted(self.image, self.wanted), writer.whole(0)),
                lambda: bordered(self.sheets.picture(squares), self.sheets.centred(look)),
            ),
        )
        seen = self.detector.rows(picture, placement, *self.sheets.bounds(look))

        def on_sheet() -> Sequence[Value]:
            shows, found = self.sheets.shown(squares, seen)
            return writer.choose(
                look.equals(AGAIN),
                lambda: self._after_close_ups(state, asked, shows, found),
                lambda: writer.choose(
                    look.equals(SHEET),
                    lambda: self._after_sheet(state, shows, found),
                    lambda: self._after_alone(state, shows, found),
                ),
            )

        after = writer.choose(
            look <= FRAMED,
            lambda: self._after_first(state, seen),
            lambda: writer.choose(look.equals(CROWD), lambda: self._after_crowd(state, seen), on_sheet),
        )
        return State(*after)

    def _frame(self) -> tuple[Value, Value, Value]:
        return framed(self.overview, self.looks.frame)

    def _after_first(self, state: State, seen: Value) -> State:
        """The faces of the whole photo, or of the photo in its frame."""
        writer, looks = self.writer, self.looks
        in_frame = to_whole(state.look.equals(FRAMED))
        size = [writer.op("Shape", self.overview, start=axis, end=axis + 1, dtype=TensorProto.INT64) for axis in (3, 2)]
        around = [rounded(to_double(side) * looks.frame) * in_frame for side in size]
        seen = moved(seen, to_float(-writer.joined(around)).reshaped(1, 2), scalar(writer, 1))
        middle = middle_of(seen)
        within = (middle >= 0) & (middle < to_float(writer.joined(size)).reshaped(1, 2))
        # Only the frame shows what lies outside of the photo.
        inside = to_whole(within).over("ReduceMin", 1) + (1 - in_frame) > 0
        first = kept(seen, inside)
        faces = moved(first, None, self.factor)
        widest = (size[0] + 2 * around[0]).most(size[1] + 2 * around[1]).most(looks.overview)
        large = side_of(first) >= to_float(widest) * looks.close_enough
        small = side_of(faces) <= to_float(2 * self.shortest)
        if looks.close_enough > 0:
            small = small & ~large
        waiting = writer.op("NonZero", small).reshaped(-1)
        again = (count(first).equals(0)) & state.look.equals(WHOLE) if looks.frame > 0 else None
        then = writer.where(count(waiting) > 0, writer.whole(AGAIN), self._crowd_or_done(faces))
        if again is not None:
            then = writer.where(again, writer.whole(FRAMED), then)
        return state._replace(look=then, faces=faces, shown=faces, waiting=waiting)

    def _crowd_or_done(self, faces: Value) -> Value:
        """See `Crowd.missed`."""
        writer, crowd, number = self.writer, self.crowd, count(faces)

        def missed() -> list[Value]:
            ordered, _ = writer.ops("TopK", [None, TensorProto.INT64], side_of(faces), number)
            two = ordered.take(writer.joined([(number - 1) / 2, number / 2]))
            low = two.over("ReduceMean", 0, keep=True) < to_float(self.longest) * crowd.below
            return [low | (scores_of(faces).over("ReduceMin", 0, keep=True) < crowd.doubt)]

        (due,) = writer.choose(number > 0, missed, lambda: [number.equals(0)])
        return writer.where(due & (self.wanted > self.looks.overview), writer.whole(CROWD), writer.whole(DONE))

    def _after_close_ups(self, state: State, asked: Value, shows: Value, found: Value) -> State:
        """The faces of one sheet, measured anew; as they were where the sheet does not show them."""
        writer, most = self.writer, self.sheets.most(state.look)
        scored = writer.joined([boxes_of(shows), asked.cut(4, 5, axis=1), shows.cut(5, 17, axis=1)], axis=1)
        rows = writer.where(found.reshaped(-1, 1), scored, asked)
        faces = writer.op("ScatterND", state.shown, state.waiting.cut(0, most).reshaped(-1, 1), rows)
        waiting = state.waiting.cut(most, 1 << 30)
        then = writer.where(count(waiting) > 0, writer.whole(AGAIN), self._crowd_or_done(faces))
        return state._replace(look=then, faces=faces, shown=faces, waiting=waiting)

    def _after_crowd(self, state: State, seen: Value) -> State:
        """What the crowd's look adds by itself, and what is to be shown again."""
        writer = self.writer
        candidates = moved(seen, None, column(to_double(self.longest) / to_double(self.wanted)))
        known = overlaps(candidates, with_nothing(state.faces)).over("ReduceMax", 1)
        fresh = (known < SAME_IN_CROWD) & (side_of(candidates) <= to_float(2 * self.shortest))
        enlarged = side_of(seen) * self.crowd.square < self.crowd.square_side
        doubted = kept(candidates, fresh & enlarged)
        added = kept(candidates, fresh & ~enlarged & (scores_of(candidates) >= self.crowd.sure))
        number = count(doubted)
        waiting = writer.op("NonZero", side_of(doubted) >= side_of(doubted)).reshaped(-1)
        then = writer.where(number > 0, writer.whole(SHEET), writer.whole(DONE))
        return state._replace(look=then, shown=doubted, waiting=waiting, added=added)

    def _after_sheet(self, state: State, shows: Value, found: Value) -> State:
        """The candidates of one sheet: faces, no faces, and those that are shown once more."""
        writer, score = self.writer, scores_of(shows)
        faces = kept(shows, found & (score >= self.crowd.certain))
        alone = kept(shows, found & (score >= POSSIBLE) & (score < self.crowd.certain))
        waiting = state.waiting.cut(self.sheets.most(state.look), 1 << 30)
        then = writer.where(count(alone) > 0, writer.whole(ALONE), self._next_sheet(count(faces), waiting))
        added = writer.joined([state.added, faces])
        return state._replace(look=then, waiting=waiting, alone=alone, added=added, sure=count(faces))

    def _after_alone(self, state: State, shows: Value, found: Value) -> State:
        """One candidate without its neighbours."""
        writer = self.writer
        faces = kept(shows, found & (scores_of(shows) >= self.crowd.sure))
        alone, sure = state.alone.cut(1, 1 << 30), state.sure + count(faces)
        then = writer.where(count(alone) > 0, writer.whole(ALONE), self._next_sheet(sure, state.waiting))
        return state._replace(look=then, alone=alone, added=writer.joined([state.added, faces]), sure=sure)

    def _next_sheet(self, sure: Value, waiting: Value) -> Value:
        more = (sure > 0) & (count(waiting) > 0)
        return self.writer.where(more, self.writer.whole(SHEET), self.writer.whole(DONE))

    def _with_added(self, end: State) -> Value:
        """The faces of the first look and those that the crowd's look adds, the surest first."""
        writer = self.writer
        fresh = kept(end.added, overlaps(end.added, with_nothing(end.faces)).over("ReduceMax", 1) < SAME_IN_CROWD)
        chosen = writer.op(
            "NonMaxSuppression",
            boxes_of(fresh).reshaped(1, -1, 4),
            scores_of(fresh).reshaped(1, 1, -1),
            writer.whole(1 << 20),
            writer.constant(np.array([SAME_IN_CROWD], np.float32)),
            dtype=TensorProto.INT64,
        )  # (D, 3)
        rows = writer.joined([end.faces, fresh.take(chosen.take(2, axis=1))])
        _, order = writer.ops("TopK", [None, TensorProto.INT64], scores_of(rows), count(rows))
        return rows.take(order)
