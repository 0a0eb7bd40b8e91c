"""How a language model is deployed: one graph with its state as inputs and outputs, through the gate into a bundle."""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray

from edgedl.tasks.chars.config import CharsConfig
from edgedl.tasks.chars.data.stories import tell_stories
from edgedl.tasks.chars.network import STATES, CharacterNetwork
from edgedl.tasks.chars.training import trained_network
from edgedl.training.run import Run
from exporters.export import assemble, export_model
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.characters import Characters
from runtime.manifest import StateSpec
from runtime.pipelines.chars import ANSWER, MODEL, TOKENS, CharsSettings

BEGINNING = "\n"


def state_specs(network: CharacterNetwork) -> tuple[StateSpec, ...]:
    """What the graph carries: h0 to hn, of an LSTM c0 to cn as well."""
    layer = network.recurrent
    shape = (layer.num_layers, "B", layer.hidden_size)
    return tuple(StateSpec(f"{name}0", f"{name}n", shape, "float32") for name in "hc"[: STATES[network.cell]])


def text_cases(network: CharacterNetwork, characters: Characters) -> list[Case]:
    """Texts for the sweep: batches of 1, 2, 7 and 32, lengths of 1, 2, odd and long, states of zeros and others.

    Stories that are not among the embedded ones, and tokens by chance: golden cases travel with the bundle, training
    data must not.
    """
    chance = np.random.default_rng(0)
    story = characters.encode(tell_stories(8_000, seed=1).text)
    states = state_specs(network)

    def case(name: str, tokens: NDArray[np.int64], spread: float = 0.0) -> Case:
        inputs = {TOKENS: np.ascontiguousarray(tokens, np.int64)}
        for spec in states:
            shape = [len(tokens) if size == "B" else int(size) for size in spec.shape]
            inputs[spec.input] = np.clip(spread * chance.standard_normal(shape), -1, 1).astype(np.float32)
        return Case(name, inputs)

    def rows(batch: int, steps: int) -> NDArray[np.int64]:
        return np.stack([story[start : start + steps] for start in chance.integers(0, len(story) - steps, batch)])

    return [
        case("one character", rows(1, 1)),
        case("one more", rows(1, 1), 0.5),
        case("two characters", rows(1, 2)),
        case("a line", rows(1, 33)),
        case("a story", rows(1, 200)),
        case("a line that goes on", rows(1, 50), 0.5),
        case("two rows", rows(2, 17), 0.5),
        case("seven rows", rows(7, 9)),
        case("32 rows", rows(32, 5), 0.5),
        case("32 steps at once", rows(32, 1), 0.5),
        case("by chance", chance.integers(0, len(characters), (3, 41))),
        case("unknown ones", np.zeros((2, 11), np.int64)),
        case("every character", np.arange(len(characters))[None, :256]),
        case("the last one again and again", np.full((1, 70), len(characters) - 1)),
    ]


def chars_bundle(
    run: Run, path: str | PathLike[str], *, name: str = "chars", untrained: bool = False, opset: int = 18
) -> Bundle:
    """Takes the best network of a run through the gate and writes it as a bundle.

    Args:
        run: of `edgedl train chars`.
        path: of the bundle.
        name: of the bundle.
        untrained: accept a gate that cannot tell a wrong network from a right one.
        opset: of the graph.

    Raises:
        ExportError: the gate said no; nothing is left behind.
        InputError: the run has no network yet.
    """
    config = CharsConfig.of(run)
    network, characters = trained_network(run), config.vocabulary
    states = state_specs(network)
    inputs = [
        Input(TOKENS, "int64", ("B", "T"), meaning="characters, 0 unknown", limits=(0, len(characters) - 1)),
        *(Input(s.input, "float32", s.shape, meaning="state before the first, at first zeros") for s in states),
    ]
    outputs = [
        Output(ANSWER, "float32", ("B", "T", len(characters)), unit="nat", decision="argmax",
               meaning="of the character that follows each"),
        *(Output(s.output, "float32", s.shape, meaning="state after the last") for s in states),
    ]  # fmt: skip
    model = export_model(
        network,
        inputs=inputs,
        outputs=outputs,
        cases=text_cases(network, characters),
        state=states,
        untrained=untrained,
        opset=opset,
    )
    return assemble(
        path,
        name=name,
        task="chars",
        description=f"Goes on with a text, character by character; {config.cell.upper()} of "
        f"{config.layers} × {config.hidden} units trained on {config.data['name']}",
        license=config.license,
        models={MODEL: model},
        pipeline=CharsSettings(BEGINNING).to_json(),
        files={"characters": ("characters.json", characters.to_bytes())},
        provenance={"data": config.data, "seed": config.seed, "run": run.created, "weights": []},
    )
