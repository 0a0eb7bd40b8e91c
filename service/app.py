"""The application factory: bundles in, a Flask application out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from flask import Flask, redirect, request
from flask.typing import ResponseReturnValue

from runtime.errors import InputError, MissingExtraError
from runtime.media.pictures import MAX_PIXELS
from runtime.minisign import PublicKey
from runtime.signatures import check
from service import headers, problems
from service.bundles.batching import CAPACITY, TOGETHER
from service.bundles.folder import BundleFolder
from service.bundles.opening import Opening, admit_all
from service.bundles.opening import Source as Source
from service.bundles.repository import Repository
from service.bundles.served import Served
from service.bundles.streams import StreamLimits
from service.bundles.swaps import Swaps
from service.keys import Keys
from service.operations import hooks, probes
from service.operations.metrics import Metrics
from service.operations.recording import MOST, MOST_BYTES, Recorder, Recording
from service.routes import openapi, v1
from service.routes.text import Texts
from service.routes.v2 import routes as v2
from service.routes.v2.statistics import Statistics
from service.server.parts import Parts
from service.settings import Settings

MAX_BYTES = 32 * 2**20
MAX_IMAGES = 32


def create_app(
    bundles: Sequence[Source | tuple[str, Source]],
    *,
    device: str = "cpu",
    threads: int | None = None,
    variant: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_images: int = MAX_IMAGES,
    video_seconds: float = 20.0,
    body_seconds: float = 30.0,
    cors_origins: Sequence[str] = (),
    streams: StreamLimits | None = None,
    trust: Sequence[PublicKey] | None = None,
    watch: bool = False,
    repository: str | PathLike[str] | None = None,
    workers: int = 1,
    keys: Keys | None = None,
    queue: int = CAPACITY,
    together: int = TOGETHER,
    reprove: bool = False,
    record: str | PathLike[str] | None = None,
    record_most: int = MOST,
    record_bytes: int = MOST_BYTES,
) -> Flask:
    """The service for some bundles.

    When this returns, every pipeline is loaded, has answered a warm-up run, and has given the recorded answer to one
    case of each of its models.

    Call it in the process that serves: ONNX Runtime sessions do not survive a fork.

    Args:
        bundles: Paths, opened bundles or loaded pipelines, each under the name in its manifest; as a pair
            ``(name, bundle)`` under another name.
        device: Where paths and bundles run: ``cpu``, ``gpu``, ``auto`` …
        threads: Threads of each engine; None takes half of what the process may use, so that two runs go on at a time.
        variant: Which variant of the models; None takes the bundle's own choice.
        max_bytes: Largest request body, in bytes.
        max_pixels: Largest image, in pixels.
        max_images: Most images in one request.
        video_seconds: Longest time that decoding one video may take.
        body_seconds: Longest time a request body may take to arrive, in seconds (behind `service.server.front`).
        cors_origins: Origins of other sites whose pages may call the service.
        streams: How many streams a recurrent bundle may have open, and for how long.
        trust: Keys of which one must have signed each bundle (`runtime.signatures.read_keys`); None takes any bundle.
        watch: Replace a bundle by what takes the place of its files, once that is tried and warmed up.
        repository: A folder whose bundles are served as well, and may be loaded and unloaded by name.
        workers: Processes that answer the same requests. With several, no bundle may stream or be loaded by name.
        keys: Of which a request has to show one (`service.keys.read_keys`); None asks for none.
        queue: Requests that may wait for one bundle.
        together: Requests that a bundle answers in one run, at most.
        reprove: Where no proof beside a bundle was made with this ONNX Runtime on this class of processor, keep one
            once all recorded cases were replayed. Without it that is only said.
        record: A folder that keeps a sample of inputs with their answers; None keeps nothing.
        record_most: Inputs of each bundle that are kept, at most.
        record_bytes: Bytes of each bundle that are kept, at most.

    Raises:
        BundleError: A bundle is damaged, or no trusted key signed it.
        CheckFailedError: A bundle does not answer here as it was recorded.
        DeviceError: The device cannot be had.
        InputError: No bundle, two of one name and version, one that several workers cannot serve, or nothing can be
            kept in `record`.
        MissingExtraError: OpenCV is not installed, or with ``trust`` PyNaCl.
    """
    if find_spec("cv2") is None:
        raise MissingExtraError("opencv-python-headless", "serve")  # better now than at the first photo
    settings = Settings(max_bytes, max_pixels, max_images, video_seconds, body_seconds, tuple(cors_origins), keys)
    if workers > 1 and repository is not None:
        raise InputError(
            f"what is loaded by name is loaded by one process, and there are {workers} workers: take one, or name the "
            "bundles, and watch their files to replace them"
        )
    served = Repository()
    if workers > 1 and record is not None:
        raise InputError(
            f"--record bounds what one process keeps, and there are {workers} workers: take one, or keep nothing"
        )
    recorder = None if record is None else Recorder(Recording(Path(record), record_most, record_bytes))
    metrics = Metrics(served, recorder)

    def arrived(one: Served) -> None:
        one.queue.capacity, one.queue.together = queue, together
        metrics.watch(one)

    served.arrived = arrived
    admit = admit_all if trust is None else partial(check, keys=trust)
    swaps = Swaps(served, Opening(device, threads, variant, streams or StreamLimits(), admit, workers, reprove))
    for bundle in bundles:
        name, source = bundle if isinstance(bundle, tuple) else (None, bundle)
        swaps.bring(source, name)
    loading = None if repository is None else BundleFolder(repository, served, swaps)
    if loading is not None:
        loading.load_all()
    if not served:
        raise InputError("there is no bundle to serve; give at least one")
    if watch:
        swaps.watch()

    app = Flask("service", static_folder="static", static_url_path="/static")
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.extensions["edgedl"] = served
    statistics = Statistics()
    asked = probes.Probes(served, swaps, metrics)
    app.extensions["edgedl.parts"] = Parts(served, settings, metrics, asked, statistics, swaps, loading, recorder)
    hooks.install(app, served, metrics, keys)
    headers.install(app, settings.cors_origins)
    problems.install(app)
    texts = Texts()
    app.register_blueprint(v1.blueprint(served, settings, metrics, texts, recorder))
    app.register_blueprint(v2.blueprint(served, settings, metrics, texts, statistics, loading))
    app.register_blueprint(probes.blueprint(asked))
    app.register_blueprint(openapi.blueprint(served, settings))

    @app.get("/")
    def page() -> ResponseReturnValue:
        if not request.environ["PATH_INFO"]:  # what the page asks for stands beside the last slash of its address
            return redirect(f"{request.script_root}/", 308)
        return app.send_static_file("index.html")

    return app
