"""Which models of a bundle its page runs, and what a browser cannot do."""

from __future__ import annotations

from dataclasses import replace

from runtime.bundle import Bundle
from runtime.errors import InputError
from runtime.manifest import Manifest
from runtime.pipelines import pipeline_class
from runtime.pipelines.base import ArrayPipeline

PHOTO = "photo"
"""The model of an age bundle that does everything from a photo to its ages."""

MODELS = {"age": (PHOTO,), "caption": ("caption",), "chars": ("chars",), "digits": ("digits", "draw")}
"""The models that the page of a task runs."""


def page_manifest(bundle: Bundle) -> Manifest:
    """The manifest of a bundle with what its page needs of it: its models, and the form of them that runs.

    Raises:
        InputError: no page can be made of this bundle.
    """
    manifest = bundle.manifest
    wanted = MODELS.get(manifest.task)
    if wanted is None:
        if not issubclass(pipeline_class(manifest.task), ArrayPipeline) or len(manifest.models) != 1:
            raise InputError(
                f"{bundle.path}: there is no page for the task {manifest.task!r}; there are pages for "
                f"{', '.join(MODELS)} and for bundles with one model that takes arrays"
            )
        wanted = tuple(manifest.models)
    elif wanted[0] not in manifest.models:
        raise InputError(
            f"{bundle.path}: a page of the task {manifest.task!r} runs the model {wanted[0]!r}, and this bundle has "
            f"{', '.join(manifest.models)}" + (_photo_advice() if manifest.task == "age" else "")
        )
    models = {}
    for name in wanted:
        if name in manifest.models:
            model = manifest.models[name]
            form = model.form(None)
            models[name] = replace(model, variants={form: model.variants[form]}, trace=None)
    return replace(manifest, models=models)


def _photo_advice() -> str:
    return ": it finds the faces in Python. Make the bundle again with the option --one-graph"
