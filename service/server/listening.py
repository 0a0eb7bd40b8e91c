"""Where the server listens: a TCP port or a Unix socket, with or without TLS."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError

_BACKLOG = 512
_NOT_SENT = 1 << 14
"""Bytes of answers that the system may hold for one reader beyond those on their way. What is more stays with us, where
it is seen (`service.server.worker`); left to itself, the system takes megabytes for somebody who reads nothing."""
_NOTSENT_LOWAT = 25  # TCP_NOTSENT_LOWAT of Linux, which Python has no name for
_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START
_SOCKET_MASK = 0o117
"""What is taken from the permissions of a Unix socket: its owner and its group may connect."""


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate and its key, each a PEM file."""

    certificate: str
    key: str

    def context(self) -> ssl.SSLContext:
        """What connections are encrypted with: TLS 1.2 or newer, and the ciphers that Python takes for safe.

        Raises:
            InputError: A file cannot be read, or they do not belong together.
        """
        for path in (self.certificate, self.key):
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise InputError(f"{path}: {error.strerror or error}") from error
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
        except _PasswordError:
            raise InputError(
                f"{self.key}: the key has a password; give it without one, readable by the service only"
            ) from None
        except ssl.SSLError as error:
            why = (
                "it is not the key of this certificate"
                if "MISMATCH" in (error.reason or "")
                else "not a certificate and a key as PEM"
            )
            raise InputError(f"{self.certificate}, {self.key}: {why}") from error
        return context


class _PasswordError(Exception):
    """A key is encrypted."""


def _refuse_password() -> str:
    raise _PasswordError


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
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _NOT_SENT)  # connections inherit it
    try:
        listener.bind(target)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port (0 takes any free one)"
        ) from error
    return listener


def inherited() -> socket.socket | None:
    """The listening socket that systemd hands to this process (sd_listen_fds(3)); None where it hands none.

    It belongs to systemd and outlives this process, so nothing may be done to it that the next one would notice.

    Raises:
        InputError: There are several.
    """
    found = [os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    if found[0] != str(os.getpid()) or not found[1].isdecimal() or int(found[1]) == 0:
        return None
    if int(found[1]) > 1:
        raise InputError(f"systemd hands over {found[1]} sockets; give the .socket unit a single line ListenStream=")
    listener = socket.socket(fileno=_FIRST_INHERITED)
    if sys.platform == "linux" and listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _NOT_SENT)
    os.set_inheritable(_FIRST_INHERITED, False)
    return listener


def listen_at(path: str) -> socket.socket:
    """A listening Unix socket. One that is left over, and on which nobody listens, is replaced.

    Raises:
        InputError: Something else is there, or the socket cannot be made.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(_SOCKET_MASK)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)  # the latter where the path is too long
        raise InputError(f"cannot make the socket {path}: {reason}") from error
    finally:
        os.umask(mask)
    return listener


def remove_socket(path: str, made: os.stat_result) -> None:
    """Removes a Unix socket, unless another one is in its place by now.

    Args:
        path: Where it is.
        made: What it was when it was made.
    """
    with suppress(OSError):
        there = os.lstat(path)
        # The time as well: the number of a file that was removed is given to the next one.
        if os.path.samestat(there, made) and there.st_mtime_ns == made.st_mtime_ns:
            Path(path).unlink()


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError(f"{path} is there and is no socket; choose another path with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # nobody listens
            with suppress(OSError):
                Path(path).unlink()
            return
        except OSError as error:
            raise InputError(
                f"cannot tell whether anybody listens on the socket {path}: {error.strerror or error}"
            ) from error
    raise InputError(f"somebody listens on the socket {path} already; choose another path with --socket")


def address(listener: socket.socket, *, tls: bool = False) -> str:
    """The URL of a listening socket; an unspecified address is given as this machine's own.

    That of a Unix socket has the form that nginx takes, ``http://unix:PATH:``.
    """
    scheme = "https" if tls else "http"
    if listener.family == socket.AF_UNIX:
        return f"{scheme}://unix:{listener.getsockname()}:"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
