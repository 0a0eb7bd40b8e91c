"""Flickr8k as Kaggle has it, Flickr30k, and tables that people have saved otherwise."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.data.sources import open_source
from edgedl.data.splits import held_out
from edgedl.tasks.caption.data import flickr8k
from edgedl.tasks.caption.data.captions import open_captions
from runtime.errors import InputError
from tests.caption_sets import jpeg, of

NAMES = [f"10{i:02d}_ab.jpg" for i in range(12)]
PLACES = ("beach", "grass", "sand", "snow", "road")
SAID = {name: tuple(f'A dog , called "Rex" , runs on the {place} .' for place in PLACES) for name in NAMES}
PHOTOS = {f"Images/{name}": jpeg(number) for number, name in enumerate(NAMES)}


def table(said: dict[str, tuple[str, ...]], **how: str) -> str:
    """By Python's own writer of CSV."""
    text = io.StringIO()
    writer = csv.writer(text, **{"lineterminator": "\n", **how})
    writer.writerow(["image", "caption"])
    writer.writerows([name, caption] for name, captions in said.items() for caption in captions)
    return text.getvalue()


def captions_of(dataset) -> dict[str, tuple[str, ...]]:
    return {name: captions for name, (_, captions) in of(dataset).items()}


@pytest.mark.parametrize("prefix", ["", "archive/", "flickr8k/archive/"], ids=["flat", "nested", "deeper"])
@pytest.mark.parametrize("photos", ["Images", "images", "Flicker8k_Dataset"])
def test_flickr8k_as_kaggle_has_it(layout, prefix: str, photos: str) -> None:
    files = {name.replace("Images", prefix + photos): content for name, content in PHOTOS.items()}
    dataset = open_captions(layout([], files | {f"{prefix}captions.txt": table(SAID).encode()}))
    assert dataset.name == "flickr8k"
    assert captions_of(dataset) == SAID
    assert not dataset.skipped
    assert abs(int(dataset.frames(5).mean()) - 5) <= 1


def test_without_lists_the_split_is_by_the_photos_names(layout) -> None:
    """Whatever the order of the rows; no photo is on both sides."""
    names = [f"{i}.jpg" for i in range(60)]
    files = {f"Images/{name}": jpeg(0) for name in names}
    splits = []
    for order in (names, names[::-1]):
        said = dict.fromkeys(order, ("A dog .", "A cat ."))
        dataset = open_captions(layout([], files | {"captions.txt": table(said).encode()}, root=order[0]))
        train, val = ({clip.name for clip in dataset.split(part).clips} for part in ("train", "val"))
        assert not train & val
        splits.append((train, val))
    assert splits[0] == splits[1]
    assert splits[0][1] == held_out(names)
    assert len(splits[0][1]) == 6


def test_lists_beside_a_table_are_the_split(layout) -> None:
    lists = {"Flickr_8k.trainImages.txt": "\n".join(NAMES[:8]), "Flickr_8k.devImages.txt": "\r\n".join(NAMES[8:10]),
             "Flickr_8k.testImages.txt": NAMES[10]}  # fmt: skip
    files = PHOTOS | {"captions.txt": table(SAID).encode()} | {name: text.encode() for name, text in lists.items()}
    dataset = open_captions(layout([], files))
    assert [len(dataset.split(part)) for part in ("train", "val", "test")] == [8, 2, 1]
    assert "1 in no split" in dataset.summary()


WRITTEN = {
    "a mark at the beginning": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big-endian": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "empty lines": lambda text: text.replace("\n", "\n\n").encode(),
    "semicolons": lambda text: table(SAID, delimiter=";").encode(),
    "tabs": lambda text: table(SAID, delimiter="\t").encode(),
    "everything in quotes": lambda text: table(SAID, quotechar='"', quoting=csv.QUOTE_ALL).encode(),
    "capitals in the header": lambda text: text.replace("image,caption", "Image,Caption", 1).encode(),
    "blanks in the header": lambda text: text.replace("image,caption", "image, caption", 1).encode(),
    "other columns": lambda text: (
        "\n".join(f"7,{line}" for line in text.splitlines()).replace("7,i", "id,i", 1).encode()
    ),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_table_is_read_however_it_was_saved(layout, written) -> None:
    dataset = open_captions(layout([], PHOTOS | {"captions.txt": written(table(SAID))}))
    assert captions_of(dataset) == SAID
    assert not dataset.skipped


def test_accents_are_compared_composed(layout) -> None:
    photos = {f"Images/{unicodedata.normalize('NFD', 'café.jpg')}": jpeg(0), "Images/b.jpg": jpeg(1)}
    dataset = open_captions(
        layout([], photos | {"captions.txt": "image,caption\ncafé.jpg,A dog\nb.jpg,A cat\n".encode()})
    )
    assert captions_of(dataset) == {"café.jpg": ("A dog",), "b.jpg": ("A cat",)}


ROWS = {
    "no caption": (b"1000_ab.jpg,", {"the caption has no word": 1}, "line 62"),
    "no second column": (b"1000_ab.jpg", {"the row has too few columns": 1}, "line 62"),
    "no word": (b"1000_ab.jpg, .", {"the caption has no word": 1}, "line 62"),
    "Latin-1": (b"1000_ab.jpg,A caf\xe9", {"the caption is not UTF-8 text": 1}, "line 62"),
    "no photo": (b"2000.jpg,A dog", {"the captions name a clip that is not there": 1}, None),
    "no name": (b",A dog", {"the captions name a clip that is not there": 1}, None),
}


@pytest.mark.parametrize(("row", "skipped", "place"), ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_used_is_counted_with_its_line(layout, row: bytes, skipped, place: str | None) -> None:
    dataset = open_captions(layout([], PHOTOS | {"captions.txt": table(SAID).encode() + row + b"\n"}))
    assert captions_of(dataset) == SAID
    assert dataset.skipped == skipped
    assert (place is None) == (not any("captions.txt, line" in note for note in dataset.notes))
    assert place is None or f"{next(iter(skipped))}: the first is captions.txt, {place}" in dataset.notes


def test_a_caption_whose_commas_are_not_quoted_is_read_to_the_end_of_the_line(layout) -> None:
    files = PHOTOS | {"captions.txt": b"image,caption\n1000_ab.jpg,A dog , a cat , and more .\n1001_ab.jpg,One .\n"}
    assert captions_of(open_captions(layout([], files))) == {
        "1000_ab.jpg": ("A dog, a cat, and more .",),
        "1001_ab.jpg": ("One .",),
    }


QUOTES = {
    "not doubled": b'1000_ab.jpg,"A dog" runs , fast\n',
    "never closed": b'1000_ab.jpg,"A dog runs\n' + b"1001_ab.jpg,A cat\n" * 9,
    "closed far below": b'1000_ab.jpg,"A dog runs\n' + b"1001_ab.jpg,A cat\n" * 30 + b'1002_ab.jpg,A cat"\n',
    "endless": b'1000_ab.jpg,"A dog runs\n' + b"1001_ab.jpg,A cat\n" * 20_000,
}


@pytest.mark.parametrize("rows", QUOTES.values(), ids=QUOTES)
def test_quotes_that_do_not_match_are_an_error_with_the_line(layout, rows: bytes) -> None:
    path = layout([], PHOTOS | {"captions.txt": table(SAID).encode() + rows})
    with pytest.raises(InputError, match=r"captions\.txt in .*, line 62: .* the quote is doubled"):
        open_captions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,caption\n", "name no clip"),
        (b"1000_ab.jpg,A dog\n", "is no caption data set that edgedl knows; it holds 13 files"),
        (b"image,text\n1000_ab.jpg,A dog\n", "is no caption data set that edgedl knows"),
        (b"", "is no caption data set that edgedl knows"),
    ],
    ids=["header only", "no header", "another header", "empty"],
)
def test_a_table_without_its_parts_is_refused(layout, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_captions(layout([], PHOTOS | {"captions.txt": content}))


def test_photos_that_are_not_there_are_said_to_be_missing(layout) -> None:
    with pytest.raises(
        InputError, match=r"name 12 clips such as 1000_ab\.jpg, and no such file lies there; .*put them"
    ):
        open_captions(layout([], {"captions.txt": table(SAID).encode()}))


BARS = (
    "image_name| comment_number| comment\n"
    '1000_ab.jpg| 0| Two "young" , White males are outside .\n'
    "1000_ab.jpg| 1| a | b\n"
    "1001_ab.jpg| 0| A dog .\n"
    "1001_ab.jpg| 4   A dog runs across the grass .\n"  # the row of 2199200615.jpg lacks its second bar like this
    "1002_ab.jpg\n"
    "1002_ab.jpg| 0| \n"
)


def test_flickr30k_as_kaggle_has_it(layout) -> None:
    photos = {f"flickr30k_images/{name}": content for name, content in PHOTOS.items()}
    dataset = open_captions(layout([], photos | {"flickr30k_images/results.csv": BARS.encode()}))
    assert dataset.name == "flickr30k"
    assert captions_of(dataset) == {
        "1000_ab.jpg": ('Two "young" , White males are outside .', "a | b"),
        "1001_ab.jpg": ("A dog .", "A dog runs across the grass ."),
    }
    assert dataset.skipped == {"the row has too few columns": 1, "the caption has no word": 1}
    assert "the row has too few columns: the first is flickr30k_images/results.csv, line 6" in dataset.notes


def test_kaggles_flickr30k_may_hold_its_photos_twice(layout) -> None:
    photos = {f"flickr30k_images/{name}": content for name, content in PHOTOS.items()}
    twice = {f"flickr30k_images/{name}": content for name, content in photos.items()}
    files = {
        "flickr30k_images/results.csv": BARS.encode(),
        "flickr30k_images/flickr30k_images/results.csv": BARS.encode(),
    }
    dataset = open_captions(layout([], photos | twice | files))
    assert len(dataset) == 2
    assert "files that differ" not in dataset.summary()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results_20130124.token", b"1000_ab.jpg#0\tA dog .\n1001_ab.jpg#0\tA cat , black .\n"),
        (
            "captions.txt",
            b'image_name,comment_number,comment\n1000_ab.jpg,0,A dog .\n1001_ab.jpg,0,"A cat , black ."\n',
        ),
    ],
)
def test_flickr30k_in_other_forms(layout, name: str, content: bytes) -> None:
    dataset = open_captions(layout([], PHOTOS | {name: content}))
    assert dataset.name == "flickr30k"
    assert captions_of(dataset) == {"1000_ab.jpg": ("A dog .",), "1001_ab.jpg": ("A cat , black .",)}


def test_one_list_is_read_and_the_others_are_named(layout) -> None:
    files = PHOTOS | {"captions.txt": table(SAID).encode(), "Flickr8k.token.txt": b"1000_ab.jpg#0\tA dog .\n"}
    dataset = open_captions(layout([], files))
    assert captions_of(dataset) == {"1000_ab.jpg": ("A dog .",)}
    assert "captions of Flickr8k.token.txt, not of captions.txt" in dataset.notes


captions = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufffd"), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(NAMES[:3]), captions), min_size=1, max_size=8))
def test_whatever_pythons_writer_of_csv_writes_is_read(tmp_path_factory, rows: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    for name in NAMES[:3]:
        (folder / name).write_bytes(b"")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("image", "caption"), *((name, f"x {caption}") for name, caption in rows)])
    (folder / "captions.txt").write_bytes(text.getvalue().encode())
    found = captions_of(flickr8k.load(open_source(folder)))
    expected: dict[str, list[str]] = {}
    for name, caption in rows:
        expected.setdefault(name, []).append(" ".join(unicodedata.normalize("NFC", f"x {caption}").split()))
    assert {name: list(texts) for name, texts in found.items()} == expected
