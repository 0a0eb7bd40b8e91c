"""The server that ``edgedl serve`` runs: gunicorn with its ASGI worker, one process unless told otherwise.

The master process only binds the socket and minds its workers. Bundles are opened and sessions created in the worker,
after the fork: an ONNX Runtime session that is carried through a fork hangs.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runtime.errors import EdgedlError, MissingExtraError
from service.operations.logs import configure, say
from service.server.listening import Tls, address, inherited, listen, listen_at, remove_socket
from service.server.places import Places

if TYPE_CHECKING:
    from service.app import Source
    from service.server.front import Front

Announce = Callable[[str, Sequence[str]], None]

_LOOPBACK = ("127.", "::1")
_INTERRUPTED = 130
_BUG = 70


def serve(
    bundles: Sequence[Source | tuple[str, Source]],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    socket_path: str | None = None,
    tls: Tls | None = None,
    workers: int = 1,
    request_threads: int = 8,
    wait_seconds: float = 30.0,
    connections: int = 1000,
    prefix: str = "",
    proxies: Sequence[str] | None = None,
    graceful_seconds: int = 30,
    access_log: bool = False,
    log_format: str = "text",
    announce: Announce | None = None,
    **settings: Any,
) -> int:
    """Serve bundles until stopped. Prints one line with the URL once the first worker answers.

    A socket that systemd hands over is taken in the place of a port or a path of its own. It outlives this process.

    Args:
        bundles: See :func:`service.app.create_app`.
        host: Address to listen on; the default is reachable from this machine only.
        port: Port, or 0 for any free one.
        socket_path: A Unix socket to listen on in place of a port; it is removed at the end.
        tls: A certificate and its key, to speak https alone.
        workers: Worker processes, each with its own sessions and metrics; more than one only if no bundle streams.
        request_threads: Requests that one worker answers at a time, beside those that go straight to a bundle.
        wait_seconds: How long a request may wait for its turn.
        connections: Connections that one worker may have open.
        prefix: What every path begins with, such as ``/edgedl``.
        proxies: Addresses and networks of proxies whose headers say where the service stands, and ``unix`` for whoever
            connects to the socket; None takes them from the variable ``FORWARDED_ALLOW_IPS``.
        graceful_seconds: Time that running requests get to finish after SIGTERM.
        access_log: Write a line for each request to standard error.
        log_format: ``text`` or ``json``: how the lines on standard error are written.
        announce: Called in place of printing, in the worker, with the URL and the names of the bundles.
        **settings: For :func:`service.app.create_app`.

    Returns:
        0 after SIGTERM, 130 after Ctrl-C, 2 where a bundle or device cannot be had, 70 where a worker
        crashed while it loaded.

    Raises:
        InputError: The address cannot be listened on.
        MissingExtraError: flask, gunicorn or another package of the extra ``serve`` is not installed.
    """
    for package in ("flask", "gunicorn", "orjson", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingExtraError(package.replace("_", "-"), "serve")
    if proxies is None:
        proxies = os.environ.get("FORWARDED_ALLOW_IPS", "").replace(",", " ").split()
    places = Places.of(prefix, proxies)
    secure = None if tls is None else tls.context()
    formatter = configure(log_format, access=access_log)
    given = inherited()
    if given is not None:
        socket_path = None
    listener = given or (listen(host, port) if socket_path is None else listen_at(socket_path))
    url = address(listener, tls=tls is not None) + places.prefix
    made = None if socket_path is None else os.lstat(socket_path)
    local = listener.family == socket.AF_UNIX or listener.getsockname()[0].startswith(_LOOPBACK)
    if not local and settings.get("keys") is None:
        say(f"{url} is reachable from other machines and asks nobody for a password or a key.", logging.WARNING)
    sys.stdout.flush()  # a buffer carried through the fork would be written twice
    options = {
        "bind": f"fd://{listener.detach()}",
        "workers": workers,
        "worker_class": "service.server.worker.Worker",
        "worker_connections": connections,
        "graceful_timeout": graceful_seconds,
        "timeout": 120,  # a worker says nothing while it loads its bundles, and boards are slow
        "keepalive": 5,
        # gunicorn trusts whoever is on this machine, and SCRIPT_NAME of a stranger makes it answer 500.
        "forwarded_allow_ips": ",".join(map(str, places.proxies)),
        "loglevel": "warning",
        "control_socket_disable": True,  # a file in the user's home that nobody asked for
        # gunicorn's heartbeat is a file; on a disk it can stall, and a container's root may be read-only.
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
    }
    if tls is not None:
        options |= {"certfile": tls.certificate, "keyfile": tls.key, "ssl_context": lambda _config, _default: secure}

    def load() -> Front:
        from service.app import create_app
        from service.server.front import Front

        app = create_app(bundles, workers=workers, **settings)
        return Front(app, threads=request_threads, wait_seconds=wait_seconds, places=places)

    try:
        return _run(load, url, announce or _say, formatter, options, lasting=given is not None)
    finally:
        if socket_path is not None and made is not None:
            remove_socket(socket_path, made)


def announcement(url: str, names: Sequence[str]) -> str:
    """The line that says where the bundles are served."""
    return f"Serving {', '.join(f'/v1/{name}' for name in names)} at {url}"


def _say(url: str, names: Sequence[str]) -> None:
    print(announcement(url, names), flush=True)  # noqa: T201


def _run(
    front: Callable[[], Front],
    url: str,
    announce: Announce,
    formatter: logging.Formatter,
    options: dict[str, Any],
    *,
    lasting: bool,
) -> int:
    # Imported here so that `edgedl serve --help` does not need the extra.
    from gunicorn import glogging
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter
    from gunicorn.errors import HaltServer

    from service.server import worker

    ending = mmap.mmap(-1, 1)
    worker.install(ending)
    master = os.getpid()
    # Shared with the workers: set once one of them has answered its warm-up run, or said why it cannot start.
    answered, told = mmap.mmap(-1, 1), mmap.mmap(-1, 1)

    class Logger(glogging.Logger):  # type: ignore[misc]
        """gunicorn's log in our form, less what follows a worker's sentence why it cannot start."""

        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            for handler in self.error_log.handlers:
                handler.setFormatter(formatter)

        def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
            if (
                not answered[0]
                and os.getpid() == master
                and ("exited" in msg or msg.startswith(("Shutting", "Reason")))
            ):
                return
            super().error(msg, *args, **kwargs)

    class Server(BaseApplication):  # type: ignore[misc]
        """The application as gunicorn wants it."""

        def load_config(self) -> None:
            for name, value in options.items():
                if name in self.cfg.settings:  # control_socket_disable is younger than the oldest gunicorn we take
                    self.cfg.set(name, value)
            self.cfg.set("logger_class", Logger)
            self.cfg.set("post_worker_init", first_answer)
            self.cfg.set("child_exit", bury)

        def load(self) -> Front:
            from runtime.memory import return_large_blocks, share_one_arena

            share_one_arena()
            return_large_blocks()
            try:
                return front()
            except EdgedlError as error:
                if told[0]:  # each worker finds the same
                    os._exit(Arbiter.APP_LOAD_ERROR)
                told[0] = 1
                say(f"edgedl serve: {error}")
                raise SystemExit(Arbiter.APP_LOAD_ERROR) from error  # which gunicorn takes for "do not try again"

    class Minder(Arbiter):  # type: ignore[misc]
        """gunicorn's master, which remembers how it was stopped."""

        stopping = interrupted = False

        def stop(self, graceful: bool = True) -> None:
            self.stopping = True
            # Whoever waits in a socket that outlives this process is answered by the next one.
            ending[0] = 0 if lasting else 1
            super().stop(graceful)

        def handle_int(self) -> None:
            self.interrupted = True
            super().handle_int()

    def first_answer(process: Any) -> None:
        if process.age == 1:
            announce(url, list(process.asgi.parts.served))
        answered[0] = 1

    def bury(arbiter: Minder, _worker: Any) -> None:
        # Without this, a bundle that crashes the runtime would be loaded, and crash it, for ever.
        if not answered[0] and not arbiter.stopping:
            say("edgedl serve: the worker died while it loaded the bundles")
            raise HaltServer("the worker died while it loaded the bundles", Arbiter.WORKER_BOOT_ERROR)

    arbiter = Minder(Server())
    arbiter.systemd = True  # whoever made the socket removes it, and not gunicorn
    try:
        arbiter.run()
    except SystemExit as end:
        if os.getpid() != master:
            # A worker ends its life here, inside a copy of the master's stack, whose callers are none of its business.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        if arbiter.interrupted:
            return _INTERRUPTED
        return {0: 0, None: 0, Arbiter.APP_LOAD_ERROR: 2}.get(end.code, _BUG)
    except HaltServer as halt:  # gunicorn raises it once more where a second worker could not start either
        return {Arbiter.APP_LOAD_ERROR: 2}.get(halt.exit_status, _BUG)
    return 0
