"""Text goes on: a prompt in, characters out as they come, each drawn from what the graph expects to follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.characters import UNKNOWN, Characters
from runtime.errors import BundleError, InputError, TooLargeError
from runtime.example import longest_row
from runtime.pipelines.answer import Answer
from runtime.pipelines.base import Source, TextPipeline
from runtime.pipelines.results import TEXT
from runtime.sampling import check_sampling, draw_token, sampling_weights, uniform_numbers
from runtime.stream import Stream

MODEL = "chars"
TOKENS, ANSWER = "tokens", "log_probabilities"

LENGTH = 300
TEMPERATURE = 0.8
MOST_LENGTH = 1_000_000
MOST_PROMPT = 1_000_000
"""Characters."""

BEGINNING = 32
"""Characters of the beginning that serves as the example, at most."""

PIECE = 512
"""Steps of the graph in one call: all their answers lie in memory at once."""


@dataclass(frozen=True, slots=True)
class CharsSettings:
    """What the bundle fixes outside its graph, from the manifest's `pipeline`.

    Attributes:
        beginning: the character that a text is taken to follow on where nothing stands before it.
    """

    beginning: str = "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CharsSettings:
        """Reads {"beginning": "…"}.

        Raises:
            BundleError: a key is missing or unknown, or a value does not fit.
        """
        if set(data) != {"beginning"}:
            raise BundleError(
                f"the pipeline settings of this bundle are {', '.join(sorted(map(str, data))) or 'empty'}; "
                "a chars bundle has beginning"
            )
        beginning = data["beginning"]
        if not isinstance(beginning, str) or len(beginning) != 1:
            raise BundleError(f"the pipeline setting beginning is {beginning!r}, expected one character")
        return cls(beginning)

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads."""
        return {"beginning": self.beginning}


class CharsPipeline(TextPipeline):
    """A prompt in, its continuation out; each text has a state of its own. See `runtime.pipelines.base.Pipeline`."""

    options = {"length": int, "temperature": float, "top_k": int, "seed": int}  # noqa: RUF012 - nobody changes it
    result = TEXT
    models = (MODEL,)

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None, variant: str | None = None
    ) -> None:
        self.settings = CharsSettings.from_json(bundle.manifest.pipeline)
        if "characters" not in bundle.manifest.files:
            raise BundleError(f"{bundle.path}: a chars bundle has a file called characters, this one has none")
        self.characters = Characters.from_bytes(bundle.read(bundle.manifest.files["characters"].file))
        # A step is far too small to be shared among threads.
        super().__init__(bundle, device=device, threads=threads or 1, variant=variant)
        self.engine = self.engines[MODEL]
        carried = {spec.input for spec in self.engine.spec.state}
        inputs = {tensor.name for tensor in self.engine.spec.inputs} - carried
        shapes = {tensor.name: tensor.shape for tensor in self.engine.spec.outputs}
        if inputs != {TOKENS} or not carried or shapes.get(ANSWER, (0,))[-1] != len(self.characters):
            self.close()
            raise BundleError(
                f"{bundle.path}: expected a graph that takes {TOKENS}, carries a state and gives {ANSWER} of "
                f"{len(self.characters)} characters; it takes {', '.join(sorted(inputs)) or 'nothing'}, carries "
                f"{', '.join(sorted(carried)) or 'nothing'} and gives {shapes}"
            )

    def generate(
        self,
        prompt: str = "",
        *,
        length: int = LENGTH,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        seed: int = 0,
        **options: Any,
    ) -> Iterator[str]:
        """Goes on with a text.

        The same arguments give the same text, on one machine always. Other processors round otherwise: there a draw
        that falls within the rounding of a boundary, about one in 100,000, may give another character.

        Args:
            prompt: what stands before; characters that the model does not know count as one unknown one, which is
                never drawn. Empty: the text begins.
            length: how many characters.
            temperature: 0 takes the likeliest character each time, 1 draws as the model expects.
            top_k: draws from so many of the likeliest only; 0: from all.
            seed: of the draws.
            **options: none; they are named in the error.

        Returns:
            The characters as they come, without the prompt.

        Raises:
            InputError: an argument is out of range, at once and not at the first character.
            TooLargeError: the prompt is longer than `MOST_PROMPT`.
            BundleError: while it runs: the graph gives what is no distribution.
        """
        self.refuse(options)
        if not isinstance(prompt, str):
            raise InputError(f"the prompt is {type(prompt).__name__}; expected text")
        if len(prompt) > MOST_PROMPT:
            raise TooLargeError(f"a prompt of {len(prompt)} characters; expected at most {MOST_PROMPT}")
        if type(length) is not int or not 1 <= length <= MOST_LENGTH:
            raise InputError(f"the length is {length!r}; expected a whole number of characters, 1 to {MOST_LENGTH}")
        check_sampling(temperature, top_k, seed)
        return self._characters(prompt, length, temperature, top_k, seed)

    def predict(
        self,
        source: Source,
        *,
        length: int = LENGTH,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        seed: int = 0,
        **options: Any,
    ) -> Answer:
        """Answers a prompt with all of its continuation.

        Args:
            source: a UTF-8 text file, or its bytes.
            length: see `generate`, as for the rest.
            temperature: see `generate`.
            top_k: see `generate`.
            seed: see `generate`.
            **options: see `generate`.

        Returns:
            {"text", "unknown", "length", "temperature", "top_k", "seed"}: the continuation, the characters of the
            prompt that the model does not know, and what the text can be had with again.

        Raises:
            InputError: the source is no text, or as `generate` does.
        """
        return self.answer(self.read(source), length=length, temperature=temperature, top_k=top_k, seed=seed, **options)

    def answer(self, prompt: str, **options: Any) -> Answer:
        """As `predict`, of a prompt that was read before."""
        text = "".join(self.generate(prompt, **options))
        return Answer({"text": text} | self.report(prompt, **options))

    def report(
        self,
        prompt: str,
        *,
        length: int = LENGTH,
        temperature: float = TEMPERATURE,
        top_k: int = 0,
        seed: int = 0,
        **options: Any,
    ) -> dict[str, Any]:
        """What is to be said of a text beside the text, see `predict`."""
        self.refuse(options)
        return {
            "unknown": list(self.characters.unknown(prompt)),
            "length": length,
            "temperature": temperature,
            "top_k": top_k,
            "seed": seed,
        }

    def example(self) -> str | None:
        """The first words of a line of the text that the network was recorded on."""
        inputs = longest_row(self.bundle, MODEL)
        if inputs is None:
            return None
        text = self.characters.decode(token for token in inputs[TOKENS][0] if token != UNKNOWN)
        line = text.partition("\n")[2] or text  # the recorded text begins in the middle of one
        return line if len(line) <= BEGINNING else line[:BEGINNING].rpartition(" ")[0] or line[:BEGINNING]

    def read(self, source: Source) -> str:
        """The text of a file or of bytes; CR LF becomes LF, a byte order mark is dropped.

        Raises:
            InputError: it cannot be read, or is not UTF-8.
            TooLargeError: it is longer than a prompt may be.
        """
        if not isinstance(source, str | PathLike | bytes):
            raise InputError(f"{type(source).__name__} is no text; a chars bundle goes on with a file or its bytes")
        name = "the text" if isinstance(source, bytes) else str(source)
        try:
            if isinstance(source, bytes):
                data = source
            else:
                with Path(source).open("rb") as file:
                    data = file.read(4 * MOST_PROMPT + 4)
        except (OSError, ValueError) as error:
            raise InputError(f"{name} cannot be read: {error}") from error
        if len(data) > 4 * MOST_PROMPT + 3:  # of UTF-8, which has at most four bytes a character, and its mark
            raise TooLargeError(f"{name} has more than {MOST_PROMPT} characters; give the last of them")
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is no UTF-8 text: byte {error.start} is {data[error.start]:#04x}") from error

    def _characters(self, prompt: str, length: int, temperature: float, top_k: int, seed: int) -> Iterator[str]:
        stream = self.engine.stream()
        waiting = self.characters.encode(prompt or self.settings.beginning)
        while len(waiting) > PIECE:
            stream.step(waiting[None, :PIECE])
            waiting = waiting[PIECE:]
        for number in islice(uniform_numbers(seed), length):
            token = draw_token(sampling_weights(self._step(stream, waiting), temperature, top_k), number)
            yield self.characters.known[token - 1]
            waiting = np.array([token], np.int64)

    def _step(self, stream: Stream, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is expected after some more tokens (T,): log-probabilities (V,), of the unknown one −inf."""
        expected: NDArray[np.float64] = stream.step(tokens[None])[ANSWER][0, -1].astype(np.float64)
        expected[UNKNOWN] = -np.inf
        if np.isnan(expected).any() or not np.isfinite(expected.max()):
            raise BundleError(f"{self.bundle.path}: the graph gives what is no distribution; verify the bundle")
        return expected
