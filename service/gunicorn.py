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

from runtime.errors import EdgedlError, InputError, MissingExtraError

if TYPE_CHECKING:
    from service.app import Source
    from service.front import Front

Announce = Callable[[str, Sequence[str]], None]

_LOOPBACK = ("127.", "::1")
_INTERRUPTED = 130
_BUG = 70


def serve(
    bundles: Sequence[Source | tuple[str, Source]],
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    workers: int = 1,
    request_threads: int = 8,
    graceful_seconds: int = 30,
    access_log: bool = False,
    announce: Announce | None = None,
    **settings: Any,
) -> int:
    """Serve bundles until stopped. Prints one line with the URL once the first worker answers.

    Args:
        bundles: See :func:`service.app.create_app`.
        host: Address to listen on; the default is reachable from this machine only.
        port: Port, or 0 for any free one.
        workers: Worker processes, each with its own sessions and metrics.
        request_threads: Requests that one worker answers at a time, beside those that go straight to a bundle.
        graceful_seconds: Time that running requests get to finish after SIGTERM.
        access_log: Write a line for each request to standard error.
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
    listener = listen(host, port)
    url = address(listener)
    if not listener.getsockname()[0].startswith(_LOOPBACK):
        print(f"{url} is reachable from other machines and asks nobody for a password.", file=sys.stderr)  # noqa: T201
    sys.stdout.flush()  # a buffer carried through the fork would be written twice
    return _run(
        bundles,
        {**settings, "workers": workers},
        request_threads,
        url,
        announce or _say,
        {
            "bind": f"fd://{listener.detach()}",
            "workers": workers,
            "worker_class": "service.worker.Worker",
            "graceful_timeout": graceful_seconds,
            "timeout": 120,  # a worker says nothing while it loads its bundles, and boards are slow
            "keepalive": 5,
            # gunicorn trusts whoever is on this machine, and SCRIPT_NAME of a stranger makes it answer 500.
            "forwarded_allow_ips": os.environ.get("FORWARDED_ALLOW_IPS", ""),
            "loglevel": "warning",
            "accesslog": "-" if access_log else None,
            # What was asked and how it went, but nothing of what a sender says of himself or puts into the query.
            "access_log_format": '%(t)s "%(m)s %(U)s" %(s)s %(B)s bytes %(M)s ms',
            "control_socket_disable": True,  # a file in the user's home that nobody asked for
            # gunicorn's heartbeat is a file; on a disk it can stall, and a container's root may be read-only.
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        },
    )


def announcement(url: str, names: Sequence[str]) -> str:
    """The line that says where the bundles are served."""
    return f"Serving {', '.join(f'/v1/{name}' for name in names)} at {url}"


def _say(url: str, names: Sequence[str]) -> None:
    print(announcement(url, names), flush=True)  # noqa: T201


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket, or one sentence that says why not. gunicorn itself would try for five seconds."""
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} does not exist; take one from 0 to 65535")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"{host!r} is not an address of this machine: {error.strerror or error}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(target)
        listener.listen(512)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port (0 takes any free one)"
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL of a listening socket; an unspecified address is given as this machine's own."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run(
    bundles: Sequence[Source | tuple[str, Source]],
    settings: dict[str, Any],
    request_threads: int,
    url: str,
    announce: Announce,
    options: dict[str, Any],
) -> int:
    # Imported here so that `edgedl serve --help` does not need the extra.
    from gunicorn import glogging
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter
    from gunicorn.errors import AppImportError, HaltServer

    from service import worker

    worker.install()
    master = os.getpid()
    answered = mmap.mmap(-1, 1)  # shared with the workers: set once one of them has answered its warm-up run
    told = mmap.mmap(-1, 1)  # set once one of them has said why it cannot start

    class Logger(glogging.Logger):  # type: ignore[misc]
        """gunicorn's log, less what follows a worker's sentence why it cannot start."""

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
            from service.app import create_app
            from service.front import Front

            share_one_arena()
            return_large_blocks()
            logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
            try:
                return Front(create_app(bundles, **settings), threads=request_threads)
            except EdgedlError as error:
                if told[0]:
                    os._exit(Arbiter.APP_LOAD_ERROR)
                told[0] = 1
                # The type that gunicorn takes for "do not try again"; its text is all that is printed.
                raise AppImportError(f"edgedl serve: {error}") from error

    class Minder(Arbiter):  # type: ignore[misc]
        """gunicorn's master, which remembers how it was stopped."""

        stopping = interrupted = False

        def stop(self, graceful: bool = True) -> None:
            self.stopping = True
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
            print("edgedl serve: the worker died while it loaded the bundles", file=sys.stderr)  # noqa: T201
            raise HaltServer("the worker died while it loaded the bundles", Arbiter.WORKER_BOOT_ERROR)

    arbiter = Minder(Server())
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
