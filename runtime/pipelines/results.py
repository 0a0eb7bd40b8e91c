"""What each pipeline answers, as JSON Schema. Their titles are the names that the service's OpenAPI document uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_NUMBERS = {"type": "array", "items": {"type": "number"}}
_NOTE = {"type": "string", "description": "what should be known of the image, e.g. that its file has no end"}
_FACE = {
    "type": "object",
    "required": ["box", "score", "age", "low", "high", "keypoints"],
    "properties": {
        "box": _NUMBERS
        | {"minItems": 4, "maxItems": 4, "description": "x1, y1, x2, y2 in pixels of the upright image"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "age": {"type": "number", "description": "expected age in years"},
        "low": {"type": "number", "description": "lower end of the range of years, see `interval`; at most the age"},
        "high": {"type": "number", "description": "upper end of the range of years, see `interval`; at least the age"},
        "keypoints": {"type": "array", "items": _NUMBERS, "description": "x, y in pixels: eyes, nose, mouth, ears"},
        "probabilities": _NUMBERS | {"description": "with ?distribution=1: one per entry of the bundle's `years`"},
    },
}
_SENTENCE = {
    "caption": {"type": "string"},
    "score": {"type": "number", "maximum": 0, "description": "log-probability over the sentence's length"},
}
CAPTION: Schema = {
    "title": "Caption",
    "type": "object",
    "required": ["caption", "score", "frames", "alternatives"],
    "properties": _SENTENCE
    | {
        "frames": {
            "type": "array",
            "description": "the frames that were looked at",
            "items": {
                "type": "object",
                "required": ["index", "seconds"],
                "properties": {
                    "index": {"type": "integer", "minimum": 0, "description": "number of the frame in the clip"},
                    "seconds": {"type": ["number", "null"], "description": "null where the clip has no times"},
                    "thumbnail": {"type": "string", "description": "with ?thumbnails=1: a JPEG as a data URL"},
                },
            },
        },
        "alternatives": {
            "type": "array",
            "description": "the other hypotheses of the search, the best first",
            "items": {"type": "object", "required": ["caption", "score"], "properties": _SENTENCE},
        },
        "note": {"type": "string", "description": "what should be known of the clip, e.g. that it breaks off"},
    },
}
FACES: Schema = {
    "title": "Faces",
    "type": "object",
    "required": ["faces", "interval"],
    "properties": {
        "faces": {"type": "array", "items": _FACE},
        "interval": {
            "type": "object",
            "description": "what `low` and `high` promise",
            "required": ["calibrated", "level", "note"],
            "properties": {
                "calibrated": {"type": "boolean"},
                "level": {"type": ["number", "null"], "description": "share of the true ages inside; null: not known"},
                "note": {"type": "string", "description": "the same in words"},
            },
        },
        "turned": {
            "type": "integer",
            "enum": [0, 90, 180, 270],
            "description": "with ?turned=1: degrees by which to turn the image to the right",
        },
        "note": _NOTE,
    },
}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
DIGIT: Schema = {
    "title": "Digit",
    "type": "object",
    "required": ["digit", "probability", "probabilities"],
    "properties": {
        "digit": {"type": "integer", "minimum": 0, "maximum": 9},
        "probability": _SHARE | {"description": "of that digit"},
        "probabilities": {"type": "array", "items": _SHARE, "minItems": 10, "maxItems": 10},
        "note": _NOTE,
        "drawn": {
            "type": "object",
            "description": "of a drawing: what was asked for, and 8 rows of 8 shares of ink",
            "required": ["label", "seed", "ink"],
            "properties": {
                "label": {"type": "integer"},
                "seed": {"type": "integer"},
                "ink": {"type": "array", "items": {"type": "array", "items": _SHARE}},
            },
        },
    },
}
_TEXT_OPTIONS = {
    "length": {"type": "integer", "minimum": 1, "description": "characters that were asked for"},
    "temperature": {"type": "number", "minimum": 0, "description": "0: always the likeliest"},
    "top_k": {"type": "integer", "minimum": 0, "description": "drawn from so many of the likeliest; 0: from all"},
    "seed": {"type": "integer", "minimum": 0, "description": "of the draws"},
}
TEXT: Schema = {
    "title": "Text",
    "type": "object",
    "required": ["text", "unknown", *_TEXT_OPTIONS],
    "properties": _TEXT_OPTIONS
    | {
        "text": {"type": "string", "description": "what follows the prompt"},
        "unknown": {
            "type": "array",
            "items": {"type": "string"},
            "description": "characters of the prompt that the model does not know",
        },
    },
}
OUTPUTS: Schema = {
    "title": "Outputs",
    "type": "object",
    "required": ["outputs"],
    "properties": {"outputs": {"type": "object", "description": "nested lists by the names of the graph's outputs"}},
}
