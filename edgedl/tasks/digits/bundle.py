"""How digits are deployed: the reader, and of a deep belief net the way down as a second graph, through the gate."""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray

from edgedl.data.digits import CLASSES, embedded_digits
from edgedl.tasks.digits.config import DigitsConfig
from edgedl.tasks.digits.ink import SIDE
from edgedl.tasks.digits.network import PASSES, DeepBeliefNet, DigitPainter, DigitReader
from edgedl.tasks.digits.training import trained_network
from edgedl.training.run import Run
from exporters.export import assemble, export_model
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle

PIXELS_INPUT = Input(
    "pixels",
    "uint8",
    ("N", "H", "W", 3),
    layout="NHWC",
    meaning="RGB, one digit each, bright on dark or dark on bright",
)
READER_OUTPUTS = (
    Output("digit", "int64", ("N",), meaning="0..9"),
    Output("probabilities", "float32", ("N", CLASSES), meaning="of 0..9", decision="argmax"),
    Output("ink", "float32", ("N", SIDE, SIDE), meaning="0..1, what the network looked at"),
)
LABEL_INPUT = Input("label", "int64", ("N",), meaning="the digit to draw", limits=(0, CLASSES - 1))
PAINTER_OUTPUTS = (Output("ink", "float32", ("N", SIDE, SIDE), meaning="0..1, the drawing"),)

Pixels = NDArray[np.uint8]


def reader_cases() -> list[Case]:
    """Digits for the sweep: batches of 1, 2, 7, 32, sizes from one pixel to a sheet, both polarities, and the edges."""
    chance = np.random.default_rng(0)
    digits = embedded_digits("val").pixels
    sheet = on_paper(digits[:3], zoom=9, above=31, left=70, below=5, right=12)
    grey = (sheet * [0.4, 0.5, 0.45] + [30, 45, 60]).astype(np.uint8)  # ink in colour on coloured paper
    # A spot without an edge is framed by how much ink counts, and noise too faint to be stretched shows how far it is.
    away = np.hypot(*np.mgrid[-20:21, -30:31])
    spot = np.clip(255 - 9 * away, 0, 255).astype(np.uint8)[None, :, :, None].repeat(3, axis=3)
    return [
        Case("soft spot", {"pixels": spot}),
        Case("faint noise", {"pixels": chance.integers(200, 204, (1, 20, 23, 3), dtype=np.uint8)}),
        Case("one digit", {"pixels": digits[:1]}),
        Case("two digits", {"pixels": digits[1:3]}),
        Case("seven digits", {"pixels": digits[3:10]}),
        Case("32 digits", {"pixels": digits[10:42]}),
        Case("dark on bright", {"pixels": 255 - digits[42:47]}),
        Case("on a sheet", {"pixels": sheet}),
        Case("one on a sheet", {"pixels": sheet[1:2, :, 40:]}),
        Case("in colour", {"pixels": grey}),
        Case("wide", {"pixels": np.concatenate([sheet, sheet // 4], axis=2)[:2]}),
        Case("two cells, tall", {"pixels": digits[:2, :, 3:5]}),
        Case("one pixel", {"pixels": np.full((1, 1, 1, 3), 9, np.uint8)}),
        Case("noise", {"pixels": chance.integers(0, 256, (2, 21, 34, 3), dtype=np.uint8)}),
        Case("black", {"pixels": np.zeros((1, 8, 8, 3), np.uint8)}),
        Case("white", {"pixels": np.full((1, 40, 28, 3), 255, np.uint8)}),
    ]


def on_paper(digits: Pixels, *, zoom: int, above: int, left: int, below: int, right: int) -> Pixels:
    """Digits (N, 8, 8, 3) as dark ink on a white sheet, each pixel `zoom` times as large, with margins in pixels."""
    large = 255 - digits.repeat(zoom, axis=1).repeat(zoom, axis=2)
    return np.pad(large, ((0, 0), (above, below), (left, right), (0, 0)), constant_values=255)


def painter_cases(width: int) -> list[Case]:
    """Labels and first ideas for the way down: batches of 1, 2, 7, 32, every label, and the edges."""
    chance = np.random.default_rng(1)

    def case(name: str, labels: list[int], top: NDArray[np.float64], luck: float | None = None) -> Case:
        shape = (len(labels), PASSES, width)
        drawn = chance.random(shape) if luck is None else np.full(shape, luck)
        inputs = {"label": np.array(labels, np.int64), "top": top, "chance": drawn}
        return Case(
            name, {key: array.astype("int64" if key == "label" else "float32") for key, array in inputs.items()}
        )

    return [
        case("one", [3], chance.random((1, width))),
        case("two", [0, 9], chance.random((2, width))),
        case("seven", list(range(1, 8)), chance.random((7, width))),
        case("32", [index % CLASSES for index in range(32)], chance.random((32, width))),
        case("all off", list(range(CLASSES)), np.zeros((CLASSES, width))),
        case("all on", list(range(CLASSES)), np.ones((CLASSES, width))),
        case("without chance", list(range(CLASSES)), np.full((CLASSES, width), 0.5), 0.5),
        case("least chance", [2, 5], chance.random((2, width)), 0.0),
        case("most chance", [8, 1], chance.random((2, width)), 1.0),
        case("bits", [4] * 9, chance.integers(0, 2, (9, width)).astype(np.float64)),
    ]


def digits_bundle(
    run: Run, path: str | PathLike[str], *, name: str = "digits", untrained: bool = False, opset: int = 18
) -> Bundle:
    """Takes the best network of a run through the gate and writes it as a bundle.

    Args:
        run: of `edgedl train digits`.
        path: of the bundle.
        name: of the bundle.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        opset: of the graphs.

    Raises:
        ExportError: the gate said no; nothing is left behind.
        InputError: the run has no network yet.
    """
    config, classifier = DigitsConfig.of(run), trained_network(run)
    cases = reader_cases()
    models = {
        "digits": export_model(
            DigitReader(classifier).eval(), inputs=[PIXELS_INPUT], outputs=READER_OUTPUTS, cases=cases,
            golden=len(cases), untrained=untrained, opset=opset,
        )
    }  # fmt: skip
    if isinstance(classifier, DeepBeliefNet):
        width = classifier.layers[-1].weight.shape[1]
        top = Input("top", "float32", ("N", width), meaning="activity that the top layer starts from, 0..1")
        chance = Input("chance", "float32", ("N", PASSES, width), meaning="uniform, 0..1")
        models["draw"] = export_model(
            DigitPainter(classifier).eval(), inputs=[LABEL_INPUT, top, chance], outputs=PAINTER_OUTPUTS,
            cases=painter_cases(width), untrained=untrained, opset=opset,
        )  # fmt: skip
    told = {"softmax": "soft-max regression", "cnn": "a convolutional network", "dbn": "a deep belief net"}
    return assemble(
        path,
        name=name,
        task="digits",
        description=f"Which digit a picture shows; {told[config.model]} trained on {config.data['name']}",
        license=config.license,
        models=models,
        provenance={"data": config.data, "seed": config.seed, "run": run.created, "weights": []},
    )
