"""A bundle onto devices, one after the other: copied, proven, switched to, asked; taken back if anything fails."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedl.deploy.connection import DeviceConnection
from edgedl.deploy.wheelhouse import EXTRAS, Platform, environment_key, fetch_wheels, read_wheels
from exporters.targets.address import Address
from runtime.bundle import Bundle, pack
from runtime.errors import CheckFailedError, InputError

UNPACKED = 4
"""How many times the bytes of its wheels an environment takes, at most."""

HEALTH = "edgedl-deploy"
"""The name of the key of the health check."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a device serves the bundle.

    Attributes:
        host: The address that it listens on.
        port: The port.
        threads: Of one run; None leaves it to the service.
        memory: The most that it may take, as systemd writes it.
        keys: Lines ``NAME:SHA256`` of keys, of which it asks for one; None asks for none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    threads: int | None = None
    memory: str = "75%"
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a bundle is deployed.

    Attributes:
        name: Of the deployment; the service answers at ``/v1/NAME``.
        service: How it is served; None leaves that to whatever runs there already.
        address: Where that answers, ``HOST:PORT``; None asks nobody.
        root: The folder of all deployments there; None takes the user's own.
        python: An interpreter there that has edgedl; None makes an environment.
        python3: The interpreter there that makes it, and runs the program of `edgedl.deploy.device`.
        wheelhouse: A folder of wheels; None fetches them.
        extras: Those of edgedl.
        device: Where graphs run there.
        variant: Which form of the graphs.
        keep: How many releases are kept.
        ssh_config: A configuration of ssh in the place of the user's.
        wait: How many seconds to wait for the end of another deployment there.
    """

    name: str
    service: Service | None = Service()
    address: str | None = None
    root: str | None = None
    python: str | None = None
    python3: str | None = None
    wheelhouse: Path | None = None
    extras: str = EXTRAS
    device: str = "cpu"
    variant: str | None = None
    keep: int = 3
    ssh_config: str | None = None
    wait: float = 90.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was done on one device.

    Attributes:
        device: Its address.
        release: The release that answers now.
        how: ``swap``, ``restart``, or ``unchanged``.
        worst: The worst error there as a share of what is allowed; None where nothing was compared.
        told: What the health check found.
    """

    device: str
    release: str
    how: str
    worst: float | None
    told: str


Connect = Callable[[Address, Callable[[Mapping[str, Any]], None]], DeviceConnection]


def connector(plan: Plan) -> Connect:
    """Connects over ssh, as a plan says."""

    def connect(address: Address, told: Callable[[Mapping[str, Any]], None]) -> DeviceConnection:
        return DeviceConnection.over_ssh(address, told, plan.python3 or plan.python or "python3", plan.ssh_config)

    return connect


def deploy(
    bundle: Bundle, addresses: Sequence[Address], plan: Plan, say: Say, connect: Connect | None = None
) -> Iterator[Deployed]:
    """Deploys a bundle on one device after the other. The first failure ends it; devices after it are not touched.

    Args:
        bundle: The bundle.
        addresses: The devices.
        plan: How.
        say: Called with what happens.
        connect: Makes the connections; None takes ssh.

    Yields:
        What was done on each.

    Raises:
        CheckFailedError: The bundle does not answer there as it was recorded. What answered before does so again.
        ConnectionLost: The connection was cut. What answered before does so again; deploying again goes on from there.
        InputError: It cannot be deployed there.
    """
    connect = connect or connector(plan)
    with packed(bundle, plan.name) as (path, digest):
        for address in addresses:
            rollout = _Rollout(bundle, address, plan, say)
            with connect(address, rollout.tell) as device:
                yield rollout.run(device, path, digest)


def roll_back(address: Address, plan: Plan, say: Say, connect: Connect | None = None) -> Deployed:
    """Lets the release answer on a device that answered before the one that does.

    Raises:
        CheckFailedError: It does not answer as it was recorded any more; everything is as it was.
        InputError: There is none.
    """
    rollout = _Rollout(None, address, plan, say)
    with (connect or connector(plan))(address, rollout.tell) as device:
        rollout.meet(device)
        found = device.call("releases")
        before = [record["release"] for record in found["releases"] if record["release"] in found["history"]][:-1]
        if not before:
            raise InputError(f"{address}: there is no release of {plan.name!r} before the one that answers")
        worst = rollout.prove(device, before[-1])
        return rollout.activate(device, before[-1], worst)


def list_releases(address: Address, plan: Plan, connect: Connect | None = None) -> dict[str, Any]:
    """The releases of a deployment on a device, and which one answers."""
    with (connect or connector(plan))(address, lambda _told: None) as device:
        device.call("hello", root=plan.root, name=plan.name, wait=None)
        found = device.call("releases")
    return {"device": str(address), "current": found["current"], "releases": found["releases"]}


@contextmanager
def packed(bundle: Bundle, name: str) -> Iterator[tuple[Path, str]]:
    """The bundle as one file, with its proofs and signatures, and the sha256 of that file."""
    with tempfile.TemporaryDirectory(prefix="edgedl-") as folder:
        path = pack(bundle, Path(folder) / f"{name}.edge").path
        yield path, hashlib.sha256(path.read_bytes()).hexdigest()


class _Rollout:
    """The steps on one device."""

    def __init__(self, bundle: Bundle | None, address: Address, plan: Plan, say: Say) -> None:
        self._bundle, self._address, self._plan = bundle, address, plan
        self._report = say
        self._how, self._told = "", ""
        self._before: str | None = None

    def _say(self, text: str) -> None:
        self._report(f"{self._address}: {text}")

    def tell(self, told: Mapping[str, Any]) -> None:
        """What the device tells while it switches."""
        match told.get("step"):
            case "try":
                self._say("trying the service beside the one that answers")
            case "switch":
                self._how = told["how"]
                does = {"restart": "restarts", "swap": "swaps the bundle"}.get(self._how, "goes on with this release")
                self._say(f"switching; the service {does}")
            case "healthy":
                self._told = told["told"]

    def run(self, device: DeviceConnection, path: Path, digest: str) -> Deployed:
        """All of them."""
        facts = self.meet(device)
        assert self._bundle is not None  # noqa: S101 - there is one to deploy
        service = self._service(device)
        python, environment = self._environment(device, facts)
        record = {
            "bundle": {
                "name": self._bundle.manifest.name,
                "version": self._bundle.manifest.version,
                "digest": self._bundle.digest,
            },
            "python": python,
            "environment": environment,
            "service": service,
            "address": self._plan.address,
            "variant": self._plan.variant,
        }
        settings = hashlib.sha256(json.dumps([record, digest], sort_keys=True).encode()).hexdigest()[:12]
        release = f"{_word(self._bundle.manifest.version)}-{settings}"
        size = path.stat().st_size
        self._check_room(facts, size, "the bundle")
        self._upload(device, [(path, digest)])
        device.call("stage", release=release, record={"release": release, **record}, sha256=digest, file=path.name)
        worst = self.prove(device, release)
        return self.activate(device, release, worst)

    def meet(self, device: DeviceConnection) -> dict[str, Any]:
        """Begins the conversation."""
        facts = device.call("hello", root=self._plan.root, name=self._plan.name, wait=self._plan.wait)
        self._before = facts["current"]
        if facts["recovered"]:
            self._say(f"an earlier deployment was cut off there; {facts['recovered']}")
        return facts

    def prove(self, device: DeviceConnection, release: str) -> float | None:
        """Replays the recorded answers there.

        Returns:
            The worst error as a share of what is allowed.

        Raises:
            CheckFailedError: An answer differs.
        """
        self._say("replaying the recorded answers there")
        words = ["--device", self._plan.device]
        words += ["--variant", self._plan.variant] if self._plan.variant else []
        report = device.call("prove", release=release, arguments=words)["report"]
        if "error" in report:
            raise CheckFailedError(f"{self._address}: it cannot be proven there: {report['error']['message']}")
        wrong = [row for row in report["checks"] if not row["ok"]]
        if not report["ok"]:
            row = (
                wrong[0] if wrong else {"model": "none", "output": "none", "max_abs": None, "allowed": None, "note": ""}
            )
            raise CheckFailedError(
                f"{self._address}: the bundle does not answer there as it was recorded: model {row['model']}, output "
                f"{row['output']}, error {row['max_abs']}, allowed {row['allowed']} {row['note']}".rstrip()
                + "; nothing was switched"
            )
        shares = [row["max_abs"] / row["allowed"] for row in report["checks"] if row["max_abs"] and row["allowed"]]
        return max(shares, default=0.0 if report["checks"] else None)

    def activate(self, device: DeviceConnection, release: str, worst: float | None) -> Deployed:
        """Switches, and says the word that makes it last.

        Raises:
            CheckFailedError: The service does not answer as it should; what answered before does so again.
        """
        device.send("activate", release=release)
        try:
            device.until("healthy")
            device.send("confirm")
            device.answer()
        except InputError as error:
            before = "what answered before does so again" if self._before else "nothing is served, as before"
            raise CheckFailedError(f"{error}; {before}") from error
        device.call("tidy", keep=self._plan.keep)
        return Deployed(str(self._address), release, self._how, worst, self._told)

    def _service(self, device: DeviceConnection) -> dict[str, Any] | None:
        service, plan = self._plan.service, self._plan
        if service is None:
            return None
        manager = device.call("manager")
        if manager["reason"]:
            raise InputError(f"{self._address}: {manager['reason']}")
        if not manager["sandbox"]:
            self._say("its kernel refuses namespaces to users, so the service runs without a sandbox of files")
        words = ["--device", plan.device]
        words += ["--variant", plan.variant] if plan.variant else []
        words += ["--threads", str(service.threads)] if service.threads else []
        return {
            "host": service.host,
            "port": service.port,
            "arguments": words,
            "memory": service.memory,
            "keys": self._keys(device, service),
            "sandbox": manager["sandbox"],
            "private_devices": plan.device == "cpu",
        }

    @staticmethod
    def _keys(device: DeviceConnection, service: Service) -> list[str] | None:
        """The keys of the service, with one for the health check, which only the device has."""
        if service.keys is None:
            return None
        return [*service.keys, f"{HEALTH}:{device.call('key')['sha256']}"]

    def _environment(self, device: DeviceConnection, facts: Mapping[str, Any]) -> tuple[str, str | None]:
        plan = self._plan
        if plan.python is not None:
            return str(device.call("interpreter", path=plan.python)["python"]), None
        platform = Platform.of(facts, str(self._address))
        wheels = read_wheels(plan.wheelhouse) if plan.wheelhouse else fetch_wheels(platform, plan.extras)
        key = environment_key(wheels, facts["python"])
        files = [{"file": wheel.file, "sha256": wheel.sha256} for wheel in wheels]
        if not device.call("has_environment", key=key)["there"]:
            size = sum(wheel.path.stat().st_size for wheel in wheels)
            self._check_room(facts, size * (1 + UNPACKED), "its packages")
            self._upload(device, [(wheel.path, wheel.sha256) for wheel in wheels])
            self._say("making the environment")
        return str(device.call("environment", key=key, wheels=files)["python"]), key

    def _check_room(self, facts: Mapping[str, Any], size: int, what: str) -> None:
        if facts["free"] < size:
            raise InputError(
                f"{self._address}: {_amount(facts['free'])} are free in {facts['root']}, and {what} may need "
                f"{_amount(size)}; nothing was sent"
            )

    def _upload(self, device: DeviceConnection, files: Sequence[tuple[Path, str]]) -> None:
        sizes = [path.stat().st_size for path, _ in files]
        asked = [{"file": path.name, "sha256": digest} for path, digest in files]
        there = device.call("sent", files=asked)["bytes"]
        missing = sum(sizes) - sum(there)
        if missing:
            part = f" of {_amount(sum(sizes))}" if sum(there) else ""
            self._say(f"sending {_amount(missing)}{part}")
        for (path, digest), size, found in zip(files, sizes, there, strict=True):
            if found != size:
                device.upload(path, digest, path.name)


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _word(version: str) -> str:
    """A version as a part of the name of a folder."""
    found = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._+-") else "_" for letter in version
    )
    return (found.lstrip("._+-") or "0")[:60]
