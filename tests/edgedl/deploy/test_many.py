"""Many files: each is answered exactly once, whatever is damaged, killed or called again."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from edgedl.cli import main
from edgedl.deploy.many import answering, processes
from edgedl.deploy.many.answering import Answerer, Setting
from edgedl.deploy.many.inputs import list_inputs
from edgedl.deploy.many.results import Results, Run
from edgedl.deploy.many.tables import Row
from runtime.errors import InputError
from runtime.media.pictures import read_image
from runtime.pipelines import load

PICTURES = 9


@pytest.fixture
def folder(tmp_path: Path, portrait_path: Path) -> Path:
    """Nine portraits of different brightness, two files that are no pictures, and a text."""
    where = tmp_path / "in"
    (where / "below").mkdir(parents=True)
    portrait = cv2.imread(str(portrait_path))[:280]
    for number in range(PICTURES):
        picture = (portrait * (1 - number / 20)).astype(np.uint8)
        cv2.imwrite(str(where / ("below" if number % 2 else "") / f"{number}.jpg"), picture)
    (where / "damaged.jpg").write_bytes((where / "0.jpg").read_bytes()[:3000])
    (where / "empty.png").write_bytes(b"")
    (where / "notes.txt").write_text("no picture")
    return where


def rows(out: Path) -> list[dict[str, str]]:
    return parquet.read_table(out).to_pylist()


def predict(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict]:
    status = main(["predict", *map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_each_file_is_answered_as_predict_does_and_each_bad_one_is_listed(
    age_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedl.deploy.many.results.PART", 4)
    status, document = predict(capsys, age_bundle, folder, "-o", tmp_path / "out", "--workers", "2")
    assert (status, document["n"], document["errors"], document["kept"]) == (2, PICTURES + 2, 2, 0)
    found = rows(tmp_path / "out")
    assert [row["name"] for row in found] == sorted(str(path) for path in folder.rglob("*.[jp][pn]g"))
    with load(age_bundle, threads=1) as pipeline:
        assert {row["bundle"] for row in found} == {pipeline.bundle.digest}
        for row in found:
            if row["error"]:
                assert Path(row["name"]).stem in ("damaged", "empty")
                assert not row["answer"]
            else:
                assert json.loads(row["answer"]) == pipeline.predict(row["name"])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert predict(capsys, age_bundle, folder, "-o", tmp_path / "out")[1]["kept"] == PICTURES + 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == written


@pytest.fixture
def made(age_bundle: Path, folder: Path, tmp_path: Path) -> tuple[list, Results, Setting]:
    """The inputs, a folder for parts of two answers each, and how the bundle is opened."""
    items = list_inputs([str(folder)])
    with load(age_bundle, threads=1) as pipeline:
        digest = pipeline.bundle.digest
    run = Run(digest, "fp32", {}, "x", len(items), part=2)
    return items, Results(tmp_path / "out", run), Setting(str(age_bundle), digest)


def test_only_the_parts_that_are_missing_are_made_again(made: tuple[list, Results, Setting]) -> None:
    items, results, setting = made
    told: list[int] = []
    processes.answer_on_cores(items, results, setting, 2, told.append)
    assert (sum(told), results.open_parts()) == (len(items), [])
    before = rows(results.folder)
    kept = results.path(1).stat().st_mtime_ns
    results.path(0).unlink()
    results.path(3).unlink()
    told.clear()
    processes.answer_on_cores(items, results, setting, 2, told.append)
    assert told == [2, 2]
    assert rows(results.folder) == before
    assert results.path(1).stat().st_mtime_ns == kept


class Deadly(Answerer):
    """Ends its process at one file, as a decoder that crashes would."""

    def _together(self, items):
        if any(item.name.endswith("3.jpg") for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._together(items)


def test_a_file_that_ends_its_process_is_a_row_with_an_error(
    made: tuple[list, Results, Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    items, results, setting = made
    monkeypatch.setattr(processes, "Answerer", Deadly)
    told: list[int] = []
    processes.answer_on_cores(items, results, setting, 2, told.append)
    found = rows(results.folder)
    assert [row["name"] for row in found] == [item.name for item in items]
    assert sum(told) == len(items)
    ended = [Path(row["name"]).name for row in found if "ended without an answer" in row["error"]]
    assert ended == ["3.jpg"]
    assert sum(bool(row["answer"]) for row in found) == PICTURES - 1


def test_a_bundle_that_was_replaced_meanwhile_is_an_error_and_no_row(made: tuple[list, Results, Setting]) -> None:
    items, results, setting = made
    with pytest.raises(InputError, match="was replaced"):
        processes.answer_on_cores(items, results, Setting(setting.bundle, "0" * 64), 1, print)
    assert results.open_parts() == list(range(results.parts))


def test_a_driver_that_is_killed_goes_on_where_it_stood(
    age_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes end with it: `run` waits until nobody holds their standard output any more."""
    code = (
        "import os, signal, sys\n"
        "from edgedl.cli import main\n"
        "from edgedl.deploy.many import processes, results\n"
        "results.PART = 3\n"
        "real = processes._collected\n"
        "def collected(running, left):\n"
        "    yield from real(running, left)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "processes._collected = collected\n"
        "main(sys.argv[1:])\n"
    )
    words = ["predict", str(age_bundle), str(folder), "-o", str(tmp_path / "out"), "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    kept = sorted((tmp_path / "out").glob("*.parquet"))
    assert 1 <= len(kept) < 4
    times = [path.stat().st_mtime_ns for path in kept]
    monkeypatch.setattr("edgedl.deploy.many.results.PART", 3)
    assert main(words) == 2
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert len({row["name"] for row in rows(tmp_path / "out")}) == len(rows(tmp_path / "out")) == PICTURES + 2


def test_results_of_another_run_are_not_mixed(
    age_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(age_bundle), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main([*words, str(folder / "0.jpg")]) == 0
    for other in ([str(folder / "2.jpg")], [str(folder / "0.jpg"), "--smallest", "0"]):
        capsys.readouterr()
        assert main([*words, *other]) == 2
        assert "results of another run" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert main([*words[:3], str(tmp_path / "full"), str(folder)]) == 2
    assert "holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x.jpg", "--workers", "2"], "name a folder for the answers"),
        (["x.jpg", "--ray"], "name a folder for the answers"),
        (["nowhere.jpg", "-o", "out"], "nowhere.jpg does not exist"),
        (["-o", "out"], "nothing to predict"),
        (["x.jpg", "-o", "out", "--save", "d"], "takes no --save"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(
    age_bundle: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(age_bundle), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_what_can_be_named(folder: Path, tmp_path: Path) -> None:
    names = [str(path) for path in sorted(folder.rglob("*.jpg"))]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.write(names[0], "a/0.jpg")
        archive.writestr("readme.txt", "no picture")
    (tmp_path / "list.txt").write_text(f"{names[1]}\n\n{names[2]}\n")
    content = Path(names[3]).read_bytes()
    parquet.write_table(pa.table({"path": names[4:6]}), tmp_path / "paths.parquet")
    parquet.write_table(pa.table({"name": ["three"], "bytes": [content]}), tmp_path / "bytes.parquet")
    sources = [str(tmp_path / "some.zip"), f"@{tmp_path / 'list.txt'}", str(tmp_path / "paths.parquet"),
               str(tmp_path / "bytes.parquet"), str(folder / "below" / "7*")]  # fmt: skip
    items = {item.name: item for item in list_inputs(sources)}
    assert sorted(items) == sorted(
        [f"{tmp_path}/some.zip/a/0.jpg", "three", str(folder / "below" / "7.jpg"), *names[1:3], *names[4:6]]
    )
    assert items[f"{tmp_path}/some.zip/a/0.jpg"].read() == Path(names[0]).read_bytes()
    assert items["three"].read() == content
    assert items[names[4]].read() == Path(names[4]).read_bytes()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"file": ["a"]}, "expected path, or bytes"),
        ({"path": ["a", None]}, "row 1 has no text"),
        ({"path": [1]}, "row 0 has no text"),
    ],
    ids=["columns", "none", "number"],
)
def test_tables_that_are_none(table: dict, says: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=says):
        list_inputs([str(tmp_path / "t.parquet")])


def test_a_damaged_table_and_a_name_that_two_have(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(InputError, match="no Parquet table"):
        list_inputs([str(tmp_path / "t.parquet")])
    stream = io.BytesIO()
    parquet.write_table(pa.table({"name": ["a", "a"], "bytes": [b"1", b"2"]}), stream)
    (tmp_path / "u.parquet").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="two inputs are called a"):
        list_inputs([str(tmp_path / "u.parquet")])


def test_a_part_that_is_damaged_is_named(made: tuple[list, Results, Setting]) -> None:
    _, results, _ = made
    results.path(0).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"part-0000000\.parquet is no part of results"):
        results.count()


def test_a_picture_that_the_pipeline_refuses_leaves_the_others_their_answers(
    made: tuple[list, Results, Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline refuses a batch as a whole."""
    items, _, setting = made
    answerer = Answerer(setting)
    real = answerer.pipeline.batch
    dark = 0.8 * read_image(next(item.name for item in items if item.name.endswith("0.jpg"))).mean()

    def refusing(source, **options):
        if source.pixels.mean() < dark:
            raise InputError("too dark")
        return real([source], **options)[0]

    def batch(sources, **options):
        return [refusing(source, **options) for source in sources]

    monkeypatch.setattr(answerer.pipeline, "batch", batch)
    monkeypatch.setattr(answerer.pipeline, "predict", refusing)
    found = answerer.answer(items)
    refused = [row.name for row in found if row.error == "too dark"]
    assert 0 < len(refused) < PICTURES
    assert sum(bool(row.answer) for row in found) == PICTURES - len(refused)
    assert all(isinstance(row, Row) for row in found)
    assert len(items) > answering.TOGETHER, "the batch of some is answered as a whole"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray uses what it has deprecated itself
def test_ray_answers_as_one_process_does(made: tuple[list, Results, Setting], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'edgedl[ray]'")
    from edgedl.deploy.many.cluster import LOCAL, answer_on_ray

    items, results, setting = made
    processes.answer_on_cores(items, results, setting, 1, print)
    other = Results(tmp_path / "ray", results.run)
    told: list[int] = []
    answer_on_ray(items, other, setting, LOCAL, 1, told.append)
    assert sum(told) == len(items)
    assert rows(other.folder) == rows(results.folder)
