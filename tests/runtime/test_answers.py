"""How pipelines and their answers look in a console and in a notebook, and that nothing is lost for it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import orjson
import pytest

from runtime.errors import InputError
from runtime.pipelines import load
from runtime.pipelines.answer import Answer
from tests.bundles import write_scale_bundle
from tests.frozen_bundles import unpack

FACE = {"box": [1.0, 2.0, 3.0, 4.0], "age": 31.5, "probabilities": [0.0125] * 80}


class Cells(HTMLParser):
    """The texts of a table, and whether its tags are balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_long_lists_are_shown_shortened_and_kept_whole() -> None:
    answer = Answer(faces=[FACE, FACE], note="ends <early>")
    assert repr(answer) == (
        "{'faces': [" + ", ".join(
            ["{'box': [1.0, 2.0, 3.0, 4.0], 'age': 31.5, "
             "'probabilities': [0.0125, 0.0125, 0.0125, 0.0125, 0.0125, … 80 in all]}"] * 2
        ) + "], 'note': 'ends <early>'}"
    )  # fmt: skip
    assert json.loads(json.dumps(answer)) == json.loads(orjson.dumps(answer)) == dict(answer)
    texts = Cells(answer._repr_html_()).texts
    assert texts[:4] == ["faces", "box", "age", "probabilities"]
    assert texts.count("[1.0, 2.0, 3.0, 4.0]") == 2
    assert texts[-2:] == ["note", "ends <early>"]


@pytest.mark.parametrize("value", [{}, [], [[1, 2], [3, 4]], [{}], {"a": None}, [{"a": 1}, {"b": 2}], "<b>", 1.5])
def test_whatever_the_answer_is_its_page_is_well_formed(value: object) -> None:
    Cells(Answer(found=value)._repr_html_())
    assert repr(Answer(found=value)) == repr({"found": value})


def test_a_pipeline_says_what_it_is_and_takes(tmp_path: Path) -> None:
    with load(write_scale_bundle(tmp_path / "scale.edge")) as pipeline:
        assert repr(pipeline) == "TensorPipeline('scale' 2.0.1, task 'scaling', takes arrays, on cpu)"
        texts = Cells(pipeline._repr_html_()).texts
        assert texts[:4] == ["bundle", "scale 2.0.1", "task", "scaling"]
        assert "takes" in texts
        assert texts[-2] == "scale"
        assert texts[-1].endswith("on cpu")


def test_several_at_once_are_answered_as_each_alone(tmp_path: Path) -> None:
    photos = [np.full((8 + i % 2, 8, 3), 40 * i, np.uint8) for i in range(5)]
    with load(unpack("digits-softmax", tmp_path)) as pipeline:
        assert pipeline.batch(photos) == [pipeline.predict(photo) for photo in photos]
        assert pipeline.batch([]) == []
        with pytest.raises(InputError, match="5 pictures; `predict` takes one, `batch` takes several"):
            pipeline.predict(photos)
        with pytest.raises(InputError, match="'digits' has no option width"):
            pipeline.batch(photos, width=3)
    with load(write_scale_bundle(tmp_path / "scale.edge")) as pipeline:
        rows = [np.float32([[1, 2, 3]]), np.float32([[4, 5, 6], [7, 8, 9]])]
        assert pipeline.batch(rows) == [pipeline.predict(row) for row in rows]
