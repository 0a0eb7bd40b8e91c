"""A pipeline as a model of the protocol: an element of BYTES each is a question, its result as JSON the answer.

An element is what the body of ``/v1/NAME`` would be: an encoded picture, a video or a picture, a ``.npy`` or ``.npz``
file, or the prompt itself. The parameters of the request are the pipeline's options.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.pipelines.base import Options, TextPipeline
from service.bundles.batching import Call
from service.bundles.served import Served
from service.problems import bad_request, from_edgedl
from service.routes.inputs import json_type, too_many
from service.routes.text import Texts
from service.routes.v2.datatypes import object_array
from service.routes.v2.models import PIPELINE
from service.routes.v2.tensors import Inference
from service.settings import Settings

UNUSED = frozenset(("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "content_type"))
"""Parameters that clients send to any server, and that say nothing to a model here."""

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a finite number"}


@dataclass(slots=True)
class Answered:
    """The answers to a request.

    Attributes:
        outputs: By name.
        results: A pipeline's, one an element; none of a graph.
        queue_ns: Nanoseconds that it waited, as for the next two.
        input_ns: Decoding what a pipeline is asked about.
        infer_ns: Running the model.
        runs: Rows of each run that is counted with this request; none where another one of the same run counts it.
    """

    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    results: list[Mapping[str, Any]] = field(default_factory=list)
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    runs: list[int] = field(default_factory=list)

    def add(self, call: Call, rows: int = 1) -> None:
        """Adds the times of a call that was answered, and its run.

        Args:
            call: The call.
            rows: Of its batch.
        """
        self.queue_ns += round((call.taken - call.asked) * 1e9)
        self.infer_ns += round((call.ended - call.taken) * 1e9)
        if call.run != 0:
            self.runs.append(call.run or rows)


def ask_graph(one: Served, graph: str, inference: Inference) -> Answered:
    """The outputs of a graph.

    Raises:
        Problem: 400, it has no parameters; 503, the bundle is broken or its queue is full.
        InputError: a tensor does not fit.
    """
    read_options(inference.parameters, {})
    call = Call(inference.inputs, graph)
    done = Answered(one.ask(call))
    done.add(call, inference.rows)
    return done


def read_options(parameters: Mapping[str, Any], known: Options) -> dict[str, Any]:
    """The options among a request's parameters.

    Raises:
        Problem: 400, one is unknown or of another type.
    """
    options: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in UNUSED:
            continue
        if name not in known:
            raise bad_request(f"the parameter {name[:40]!r}", " or ".join(map(repr, sorted(known))) or "none")
        kind = known[name]
        whole = kind is float and type(value) is int
        if not (whole or type(value) is kind) or (kind is float and not math.isfinite(value)):
            found = repr(value)[:40] if isinstance(value, int | float) else json_type(value)
            raise bad_request(f"the parameter {name}={found}", _EXPECTED[kind])
        options[name] = value
    return options


def ask_pipeline(one: Served, inference: Inference, settings: Settings, texts: Texts) -> Answered:
    """The results of a pipeline, one an element.

    Raises:
        Problem: the request is wrong, or the bundle is broken.
        InputError: an element cannot be read or does not fit.
    """
    (elements,) = inference.inputs.values()
    if elements.ndim != 1:
        raise InputError(f"the input 'input' has the shape {list(elements.shape)}; expected [N], an element each")
    if len(elements) > settings.max_images:
        raise too_many(len(elements), "elements", settings)
    options = read_options(inference.parameters, one.pipeline.options)
    done = Answered()
    for index, element in enumerate(elements):
        try:
            _ask(one, element, options, settings, texts, done)
        except InputError as error:
            where = f"Element {index + 1} of {len(elements)}" if len(elements) > 1 else ""
            raise from_edgedl(error, where) from error
    start = time.perf_counter_ns()
    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    written = [orjson.dumps(result, option=option) for result in done.results]
    done.outputs = {PIPELINE.outputs[0].name: object_array(written, [len(written)])}
    done.infer_ns += time.perf_counter_ns() - start
    return done


def _ask(
    one: Served, element: bytes, options: dict[str, Any], settings: Settings, texts: Texts, done: Answered
) -> None:
    start = time.perf_counter_ns()
    pipeline = one.pipeline
    if isinstance(pipeline, TextPipeline):
        done.results.append(texts.write(one, pipeline, pipeline.read(element), options))
        done.infer_ns += time.perf_counter_ns() - start
        done.runs.append(1)
    else:
        call = Call(one.decode([element], settings), options=options)
        done.input_ns += time.perf_counter_ns() - start
        done.results.append(one.ask(call))
        done.add(call)
