"""From an HTTP request to images, videos and options. Whatever arrives, the worst outcome is a problem document."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

import orjson
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from runtime.media.foreign import name_of
from runtime.media.headers import picture_type
from runtime.pipelines.base import Options
from service.media_types import WRAPPED_TYPES, is_taken, is_video, raw_types
from service.problems import Problem, bad_request
from service.settings import Settings

_CHUNK = 1 << 16
_TRUE, _FALSE = frozenset(("", "1", "true", "yes", "on")), frozenset(("0", "false", "no", "off"))


def read_files(request: Request, settings: Settings, *, clips: bool = False) -> list[bytes]:
    """The encoded images of a request: a raw body, multipart files, or base64 in JSON.

    Args:
        request: The request.
        settings: The limits.
        clips: Whether a single video is taken in place of the images.

    Raises:
        Problem: 400, 408, 413, 415 or 422, with what was found and what is expected.
    """
    kind = request.mimetype
    if not is_taken(kind, clips=clips):
        raise unsupported(kind, (*raw_types(clips=clips), *WRAPPED_TYPES))
    body = read_body(request, settings)
    if not body:
        raise bad_request("an empty body", "an image or a video" if clips else "an image")
    if kind == "multipart/form-data":
        images = _from_multipart(body, request.mimetype_params, settings)
    elif kind == "application/json":
        images = _from_json(body)
    else:
        images = [body]
    check_files(images, settings, clips=clips)
    return images


def check_files(images: Sequence[bytes], settings: Settings, *, clips: bool) -> None:
    """Looks at the first bytes of the files of a request: how many there are, and what they are.

    Raises:
        Problem: 400, 413 or 422.
    """
    if len(images) > settings.max_images:
        raise too_many(len(images), "images", settings)
    # What a file is, its first bytes say; the type that the sender gave it decides nothing.
    pictures = "a JPEG, PNG, WebP, GIF, BMP or NPY file"
    known = pictures + (", nor a video that is read here" if clips else "")
    for index, image in enumerate(images):
        if picture_type(image) is None and not (clips and is_video(image)):
            where = "The body" if len(images) == 1 else f"Image {index + 1} of {len(images)}"
            raise Problem(
                422,
                f"{where} is not {known}: {name_of(image)}.",
                found=f"bytes that start with {image[:8].hex(' ')}" if image else "an empty file",
                expected=pictures + (" or a video" if clips else ""),
            )
    if len(images) > 1 and any(picture_type(image) is None for image in images):
        raise bad_request(f"a video among {len(images)} files", "one video, or images that are the frames of one clip")


def read_body(request: Request, settings: Settings) -> bytes:
    """The whole body, never more than the limit. How long it may take, the server in front sees to.

    Read here and not by the framework, whose limit refuses a chunked body of exactly the limit.
    """
    length = request.content_length
    if length is not None and length > settings.max_bytes:
        raise too_large(f"a body of {length:,} bytes", settings)
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""  # without a length the server cannot tell where the body ends
    stream: IO[bytes] = request.environ["wsgi.input"]
    wanted = settings.max_bytes + 1 if length is None else length
    pieces, size = [], 0
    try:
        while size < wanted and (piece := stream.read(min(_CHUNK, wanted - size))):
            pieces.append(piece)
            size += len(piece)
    except Exception as error:
        # A server that parses chunks while we read raises types of its own; all of them mean that the sender erred.
        raise bad_request("a body that breaks off or is not framed as HTTP", "a whole body") from error
    if size > settings.max_bytes:
        raise too_large(f"a body of more than {settings.max_bytes:,} bytes", settings)
    if length is not None and size < length:
        raise bad_request(f"{size:,} of the {length:,} bytes that Content-Length names", "a whole body")
    return b"".join(pieces)


def read_options(query: Mapping[str, list[str]], known: Options) -> dict[str, Any]:
    """Typed options from a query string.

    Args:
        query: Values by name.
        known: The names that are taken, each with its type.
    """
    options: dict[str, Any] = {}
    for name, values in query.items():
        if name not in known:
            expected = " or ".join(repr(key) for key in sorted(known)) or "no options"
            raise bad_request(f"the option {name!r}", expected)
        if len(values) > 1:
            raise bad_request(f"the option {name!r} {len(values)} times", "it once")
        options[name] = _option(name, values[0], known[name])
    return options


def _option(name: str, text: str, kind: type) -> Any:
    lowered = text.strip().lower()
    try:
        if kind is bool and lowered in _TRUE | _FALSE:
            return lowered in _TRUE
        if kind is int:
            return int(lowered)
        if kind is float and math.isfinite(number := float(lowered)):
            return number
    except ValueError:
        pass
    expected = {bool: "1 or 0", int: "a whole number", float: "a finite number"}[kind]
    raise bad_request(f"{name}={text!r}", expected)


def _from_multipart(body: bytes, parameters: Mapping[str, str], settings: Settings) -> list[bytes]:
    parser = FormDataParser(
        stream_factory=lambda *_args, **_kwargs: io.BytesIO(),  # the body is in memory already; no temporary files
        max_form_memory_size=settings.max_bytes,
        max_form_parts=settings.max_images + 8,
        silent=False,
    )
    try:
        _, form, files = parser.parse(io.BytesIO(body), "multipart/form-data", len(body), dict(parameters))
    except RequestEntityTooLarge as error:
        raise Problem(
            413, f"The form has too many parts; this service takes at most {settings.max_images} images."
        ) from error
    except (ValueError, LookupError) as error:  # LookupError: a part that names an unknown charset
        raise bad_request("a multipart body that cannot be parsed", "multipart/form-data with its boundary") from error
    if form:
        raise bad_request(f"the text field {next(iter(form))!r}", "files only (curl: -F image=@photo.jpg)")
    images = [file.stream.read() for _, file in files.items(multi=True)]
    if not images:
        raise bad_request("a form without a file", "at least one file (curl: -F image=@photo.jpg)")
    return images


def _from_json(body: bytes) -> list[bytes]:
    expected = 'an object {"image": "<base64>"} or {"images": ["<base64>", …]}'
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"a body that is not JSON ({error})", expected) from error
    if not isinstance(document, dict):
        raise bad_request(f"JSON of type {json_type(document)}", expected)
    if len(document) != 1 or next(iter(document)) not in ("image", "images"):
        raise bad_request(f"an object with the keys {sorted(document)[:8]}", expected)
    ((key, value),) = document.items()
    encoded = value if key == "images" else [value]
    if not isinstance(encoded, list) or not encoded:
        raise bad_request(f'"images" of type {json_type(value)}{" without entries" if value == [] else ""}', expected)
    return [_from_base64(text, index) for index, text in enumerate(encoded)]


def _from_base64(text: object, index: int) -> bytes:
    expected = "base64 text (RFC 4648, section 4)"
    if not isinstance(text, str):
        raise bad_request(f"image {index + 1} of type {json_type(text)}", expected)
    if text.startswith("data:"):  # a canvas's toDataURL()
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"image {index + 1} that is not base64 ({error})", expected) from error


def json_type(value: object) -> str:
    """What JSON calls the type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def unsupported(kind: str, taken: tuple[str, ...]) -> Problem:
    """415: a content type that is not one of those taken."""
    hint = ""
    if kind == "application/x-www-form-urlencoded":
        hint = " (curl sends this unless told otherwise: add -H 'Content-Type: image/jpeg')"
    found = f"Content-Type {kind}" if kind else "no Content-Type"
    types = ", ".join(taken)
    return Problem(
        415,
        f"Found {found}{hint}; expected one of {types}.",
        found=found,
        expected=types,
        headers={"Accept": types, "Accept-Post": types},
    )


def too_large(found: str, settings: Settings) -> Problem:
    """413: the body is longer than this service takes."""
    expected = f"at most {settings.max_bytes:,} bytes"
    return Problem(413, f"Found {found}; expected {expected}.", found=found, expected=expected)


def too_many(count: int, what: str, settings: Settings) -> Problem:
    """413: the request asks about more images, or elements of a tensor, than this service takes."""
    most = settings.max_images
    return Problem(
        413,
        f"Found {count} {what} in one request; this service takes at most {most}.",
        found=f"{count} {what}",
        expected=f"at most {most}",
    )
