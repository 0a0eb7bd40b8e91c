"""Files that cannot be read: counted, named, left out up to a share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.unreadable import COUNTED, NAMED, Unreadable
from runtime.errors import InputError, MediaError, MissingExtraError


def broken(reason: str = "the JPEG is damaged; copy it here again") -> Callable[[], int]:
    def read() -> int:
        raise MediaError(reason)

    return read


def test_what_can_be_read_is_given_back_and_what_cannot_is_named() -> None:
    unreadable = Unreadable("faces", 100, 0.02)
    assert unreadable.attempt("a.jpg", lambda: 7) == 7
    assert unreadable.attempt("c.jpg", broken()) is None
    assert unreadable.attempt("b.jpg", broken()) is None
    assert unreadable.attempt("c.jpg", broken()) is None, "a file counts once"
    assert (unreadable.count, unreadable.names) == (2, ("b.jpg", "c.jpg"))
    assert unreadable.to_json() == {"count": 2, "names": ["b.jpg", "c.jpg"]}


def test_a_share_that_may_be_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = Unreadable("faces", 100, 0.02)
    for name in ("a.jpg", "b.jpg"):
        unreadable.attempt(name, broken())
    with caplog.at_level(logging.WARNING):
        unreadable.check({"faces": 98})
    assert caplog.messages == [
        "left out 2 of 100 files of faces that cannot be read: a.jpg (the JPEG is damaged), b.jpg (the JPEG is damaged)"
    ]


def test_nothing_is_told_where_everything_can_be_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Unreadable("faces", 3).check({"faces": 3})
    assert not caplog.messages


def test_of_a_small_set_all_are_named_and_the_share_that_would_do() -> None:
    unreadable = Unreadable("faces", 12)
    for name in "abcd":
        assert unreadable.attempt(f"{name}.jpg", broken()) is None
    with pytest.raises(InputError) as caught:
        unreadable.check({"faces": 8})
    assert str(caught.value) == (
        "4 of 12 files of faces cannot be read, more than the share of 0.01 that may be left out: a.jpg (the JPEG is"
        " damaged), b.jpg (the JPEG is damaged), c.jpg (the JPEG is damaged) and 1 more; mend or delete them, or allow"
        " more with --max-unreadable 0.34"
    )


@given(st.integers(1, 60), st.data())
def test_the_share_that_is_named_is_enough_and_a_hundredth_less_is_not(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, min(total, COUNTED)))

    def tried(share: float) -> Unreadable:
        unreadable = Unreadable("faces", total, share)
        for number in range(count):
            unreadable.attempt(f"{number}", broken())
        return unreadable

    with pytest.raises(InputError) as caught:
        tried(1e-9).check({"faces": 1})
    named = float(str(caught.value).split()[-1])
    tried(named).check({"faces": 1})
    if named > 0.01:
        with pytest.raises(InputError):
            tried(named - 0.01).check({"faces": 1})


def test_a_large_set_is_given_up_as_soon_as_too_many_are_known() -> None:
    unreadable = Unreadable("faces", 10_000, 0.01)
    for number in range(100):
        unreadable.attempt(f"{number:04d}", broken())
    with pytest.raises(InputError, match=r"at least 101 of 10,000 files of faces .* and 98 more"):
        unreadable.attempt("0100", broken())


def test_without_a_share_the_first_is_an_error() -> None:
    with pytest.raises(InputError, match=r"at least 1 of 9 files of faces .*: a\.jpg \(the JPEG is damaged\)"):
        Unreadable("faces", 9, 0).attempt("a.jpg", broken())


def test_of_a_long_list_the_first_names_are_reported() -> None:
    unreadable = Unreadable("faces", 100, 1)
    for number in range(90):
        unreadable.attempt(f"{number:02d}", broken())
    report = unreadable.to_json()
    assert report["count"] == 90
    assert report["names"] == [f"{number:02d}" for number in range(NAMED)]


@pytest.mark.parametrize(
    ("readable", "message"),
    [
        ({"faces": 0}, r"none of the faces can be read: a\.jpg \(the JPEG is damaged\); copy the data set here again"),
        ({"faces in split train": 11, "faces in split val": 0}, "none of the faces in split val can be read"),
    ],
    ids=["nothing", "a part"],
)
def test_nothing_left_is_an_error_whatever_the_share(readable: dict[str, int], message: str) -> None:
    unreadable = Unreadable("faces", 12, 1)
    unreadable.attempt("a.jpg", broken())
    with pytest.raises(InputError, match=message):
        unreadable.check(readable)


def test_an_empty_part_is_said_to_be_empty() -> None:
    with pytest.raises(InputError, match="there are no clips of flickr8k"):
        Unreadable("flickr8k", 0).check({"clips of flickr8k": 0})


@pytest.mark.parametrize("share", [-0.1, 1.1, 5, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="--max-unreadable is a share from 0 to 1, not"):
        Unreadable("faces", 9, share)


@pytest.mark.parametrize("error", [MissingExtraError("opencv-python-headless", "media"), KeyError("x")], ids=repr)
def test_other_errors_are_nobodys_damaged_file(error: Exception) -> None:
    def read() -> int:
        raise error

    unreadable = Unreadable("faces", 9, 1)
    with pytest.raises(type(error)):
        unreadable.attempt("a.jpg", read)
    assert unreadable.count == 0


def test_threads_count_together() -> None:
    unreadable = Unreadable("faces", 400, 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: unreadable.attempt(f"{number // 2}", broken()), range(400)))
    assert unreadable.count == 200


def test_a_runs_configuration_keeps_the_names_apart_from_what_a_bundle_says() -> None:
    unreadable = Unreadable("faces", 9, 1)
    unreadable.attempt("a.jpg", broken())
    assert unreadable.in_config({"data": {"name": "faces", "n": 9}, "seed": 0}) == {
        "data": {"name": "faces", "n": 9, "unreadable": 1},
        "unreadable": ["a.jpg"],
    }
