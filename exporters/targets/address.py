"""A device that OpenSSH reaches: ``ssh://user@host:port``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from runtime.errors import InputError

_EXPECTED = "expected ssh://USER@HOST or ssh://USER@HOST:PORT, where HOST may be a name of your ssh configuration"
# Neither may begin with a dash: ssh would take it for an option.
_USER, _HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.$-]*"), re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """A device that OpenSSH reaches.

    Attributes:
        host: Its name or address, or a name of the ssh configuration.
        user: Who logs in; None leaves it to the ssh configuration.
        port: The port of its ssh server; None leaves it to the ssh configuration.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads an address.

        Raises:
            InputError: It is none.
        """
        try:
            parts = urlsplit(text)
            host, user, port = parts.hostname or "", parts.username, parts.port
        except ValueError as error:
            raise InputError(f"{text}: {error}; {_EXPECTED}") from None
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.password
        if parts.scheme != "ssh" or rest or not _HOST.fullmatch(host) or not (user is None or _USER.fullmatch(user)):
            raise InputError(f"{text} is not the address of a device; {_EXPECTED}")
        # urlsplit makes small letters of a name, and names of a configuration may have capital ones.
        written = parts.netloc.rpartition("@")[2]
        start = written.lower().find(host)
        return cls(written[start : start + len(host)], user, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def command(self, remote: str, config: str | None = None) -> list[str]:
        """The command that runs another one there.

        Args:
            remote: What the login shell there gets.
            config: A configuration of ssh in the place of the user's.
        """
        options = {
            "BatchMode": "yes",  # a question would wait for ever
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "15",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "6",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "RequestTTY": "no",
        }
        words = ["ssh", *(["-F", config] if config else [])]
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        words += ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", self.host, remote]
