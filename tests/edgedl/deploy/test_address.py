"""Addresses of devices, and the command that reaches them."""

from __future__ import annotations

import pytest

from exporters.targets.address import Address
from runtime.errors import InputError


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("ssh://pi@camera", "camera", "pi", None),
        ("ssh://pi@Camera-1.local:2222", "Camera-1.local", "pi", 2222),
        ("ssh://camera", "camera", None, None),
        ("ssh://pi@[fe80::1%eth0]:22", "fe80::1%eth0", "pi", 22),
        ("ssh://pi@camera/", "camera", "pi", None),
    ],
    ids=["name", "port", "nobody", "version 6", "slash"],
)
def test_an_address_is_read(text, host, user, port):
    found = Address.parse(text)
    assert (found.host, found.user, found.port) == (host, user, port)
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "camera", "http://camera", "ssh://", "ssh://-oProxyCommand=x", "ssh://-x@camera", "ssh://pi:secret@camera",
        "ssh://pi@camera/folder", "ssh://pi@camera:99999", "ssh://pi@a b",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="expected ssh://USER@HOST"):
        Address.parse(text)


def test_ssh_asks_nothing_and_knows_the_host():
    command = Address.parse("ssh://pi@camera:2222").command("true", "config")
    assert command[:3] == ["ssh", "-F", "config"]
    assert command[-3:] == ["--", "camera", "true"]
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no"):
        assert option in command
