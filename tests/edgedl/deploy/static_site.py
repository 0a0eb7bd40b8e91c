"""A server of static files, as the page needs no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of the requests."""

    def log_message(self, *args: object) -> None:
        return


class Site:
    """A folder at an address of its own, until it is taken down."""

    def __init__(self, folder: Path) -> None:
        self._server: ThreadingHTTPServer | None = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def take_down(self) -> None:
        """Afterwards nobody answers at its address. A second call does nothing."""
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


@contextmanager
def hosted(folder: Path) -> Iterator[Site]:
    """The folder, while it is served."""
    site = Site(folder)
    try:
        yield site
    finally:
        site.take_down()
