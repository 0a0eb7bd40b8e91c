"""Where a service stands below its address: a prefix of its own, and that of a proxy which was named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from runtime.errors import InputError

UNIX = "unix"
"""The name of whoever connects to the Unix socket, as a proxy."""

_NETWORKS = {UNIX: (), "*": ("0.0.0.0/0", "::/0")}
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


@dataclass(frozen=True, slots=True)
class Places:
    """Where routes are found, and who may say that they are elsewhere.

    Attributes:
        prefix: What every path begins with, such as ``/edgedl``; empty for none.
        proxies: The addresses of proxies whose headers count.
        unix: Whether those of whoever connects to the Unix socket count.
    """

    prefix: str = ""
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    @classmethod
    def of(cls, prefix: str, proxies: Sequence[str]) -> Places:
        """The same from text.

        Raises:
            InputError: It is no prefix, or no address.
        """
        prefix = prefix.rstrip("/")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise InputError(
                f"{prefix!r} is no prefix; it is a path such as /edgedl, of letters, digits, '-', '_', '.', '~'"
            )
        networks = []
        for proxy in proxies:
            try:
                networks += [ip_network(network) for network in _NETWORKS.get(proxy, (proxy,))]
            except ValueError:
                raise InputError(
                    f"{proxy!r} is no address of a proxy; expected one such as 10.0.0.7, a network like 10.0.0.0/24, "
                    f"or {UNIX!r} for whoever connects to the Unix socket"
                ) from None
        return cls(prefix, tuple(networks), UNIX in proxies)

    def find(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> tuple[str, str | None]:
        """Splits the path of a request.

        Args:
            scope: Of the ASGI connection.
            headers: Of the request.

        Returns:
            What stands before the routes, as the client sees it, and the path below it; None where the path does not
            lie below the prefix.
        """
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and _below(path, root):
            path = path[len(root) :]
        if (self.proxies or self.unix) and self._trusts(scope.get("client")):
            stripped = headers.get(b"x-forwarded-prefix", b"").decode("latin-1").rstrip("/")
            whole = headers.get(b"script_name", b"").decode("latin-1").rstrip("/")
            if _PREFIX.fullmatch(stripped):
                root += stripped
            elif _PREFIX.fullmatch(whole) and _below(path, whole):  # gunicorn's own header: the path still has it
                root, path = root + whole, path[len(whole) :]
        if not self.prefix:
            return root, path
        return root + self.prefix, path[len(self.prefix) :] if _below(path, self.prefix) else None

    def _trusts(self, client: Sequence[Any] | None) -> bool:
        if client is None or not client[0]:
            return self.unix
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        return any(address in network for network in self.proxies)


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


NOWHERE_ELSE = Places()
"""At the root, and nobody says otherwise."""
