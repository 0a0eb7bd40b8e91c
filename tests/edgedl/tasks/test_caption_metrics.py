"""Caption metrics, with the figures that others publish for the same sentences."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgedl.tasks.caption import metrics as metrics
from edgedl.tasks.caption.metrics import caption_metrics, exact_sentences
from runtime.errors import InputError, MissingExtraError

# The example of the README of aac-metrics.
CANDIDATES = ["a man is speaking", "rain falls"]
REFERENCES = [
    ["a man speaks.", "someone speaks.", "a man is speaking while a bird is chirping in the background"],
    ["rain is falling hard on a surface"],
]

STAND_IN = """#!{python}
import sys
for line in sys.stdin:
    kind, *parts = line.rstrip("\\n").split(" ||| ")
    if kind == "SCORE":
        {score}
    else:
        print(*[0.25] * len(parts), 0.75, sep="\\n", flush=True)
"""


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.shutil, "which", lambda name: None)


@pytest.fixture
def evaluator() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed, the extra eval")


def java(folder: Path, monkeypatch: pytest.MonkeyPatch, score: str) -> None:
    """Puts a program called java on PATH that speaks METEOR's protocol."""
    program = folder / "java"
    program.write_text(STAND_IN.format(python=sys.executable, score=score))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_example_of_aac_metrics(evaluator, no_java) -> None:
    found = caption_metrics(CANDIDATES, REFERENCES)
    assert found.values == pytest.approx(
        {
            "BLEU-1": 0.42785,
            "BLEU-2": 0.40589,
            "BLEU-3": 0.43897,
            "BLEU-4": 0.45650,
            "ROUGE-L": 0.48707,
            "CIDEr-D": 0.96135,
            "accuracy": 0.0,
        },
        abs=6e-6,
    )
    assert found.not_computed == {"METEOR": "java is not on PATH"}


def test_captions_that_equal_their_references(evaluator, no_java) -> None:
    found = caption_metrics(
        ["Two dogs play in snow.", "a man rides a red bike"],
        [["two dogs play in snow"], ["A man rides a red bike .", "?"]],
    )
    ones = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "accuracy")
    assert found.values == pytest.approx({**dict.fromkeys(ones, 1.0), "CIDEr-D": 10.0}, abs=1e-8)


def test_captions_of_other_words_and_empty_ones(evaluator, no_java) -> None:
    found = caption_metrics(["zebras", ""], [["two dogs play in snow"], ["a man rides a bike"]])
    assert found.values == pytest.approx(dict.fromkeys(found.values, 0.0), abs=1e-6)


def test_nothing_is_printed(evaluator, no_java, capfd: pytest.CaptureFixture[str]) -> None:
    caption_metrics(CANDIDATES, REFERENCES)
    assert capfd.readouterr() == ("", "")


def test_meteor_is_asked_where_java_is(evaluator, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(tmp_path, monkeypatch, 'print("3.0 1.0", flush=True)')
    found = caption_metrics(CANDIDATES, REFERENCES)
    assert found.values["METEOR"] == 0.75  # what the stand-in says of all together, not of one caption
    assert found.not_computed == {}


@pytest.mark.parametrize(
    ("score", "seconds", "reason"),
    [
        ("sys.exit('no Java here')", 30.0, "java ended without an answer: no Java here"),
        ("sys.exit()", 30.0, "java ended without an answer"),
        ("import time; time.sleep(30)", 0.5, "java gave no answer within 0.5 s"),
    ],
    ids=["no runtime", "gone", "hanging"],
)
def test_a_java_that_fails_takes_nothing_else_with_it(
    evaluator, tmp_path, monkeypatch: pytest.MonkeyPatch, score: str, seconds: float, reason: str
) -> None:
    java(tmp_path, monkeypatch, score)
    monkeypatch.setattr(metrics, "METEOR_SECONDS", seconds)
    found = caption_metrics(CANDIDATES, REFERENCES)
    assert found.not_computed == {"METEOR": reason}
    assert "METEOR" not in found.values
    assert found.values["CIDEr-D"] == pytest.approx(0.96135, abs=6e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program and java is not on PATH")
def test_meteor_itself(evaluator) -> None:
    # Of METEOR's own definition: 1 for the same words in the same order, 0 where not even synonyms are shared.
    assert caption_metrics(["two dogs play in snow"], [["Two dogs play in snow."]]).values["METEOR"] == 1.0
    assert caption_metrics(["zebras"], [["two dogs play in snow"]]).values["METEOR"] == 0.0


def test_exact_sentences() -> None:
    references = [["The digits 3 is moving up and down .", "other"], ["digit 3 is up"], ["a dog"], ["a dog"]]
    assert exact_sentences(["the digits 3 is moving up and down", "digit 3 is down", "A dog!", ""], references) == 0.5


def test_what_cannot_be_judged_is_refused(evaluator) -> None:
    for judge in (caption_metrics, exact_sentences):
        with pytest.raises(InputError, match="1 captions for 2 clips; expected one for each"):
            judge(["a dog"], REFERENCES)
        with pytest.raises(InputError, match="0 captions for 0 clips"):
            judge([], [])
        with pytest.raises(InputError, match="clip 1 has 2 references with no word; expected at least one"):
            judge(CANDIDATES, [["a man"], [".", ""]])


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgedl\[eval\]'"):
        caption_metrics(CANDIDATES, REFERENCES)
    assert exact_sentences(["a dog"], [["A dog."]]) == 1.0
