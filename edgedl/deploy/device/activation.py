"""The switch from one release to another, and the way back when anything fails on the way.

A new bundle alone is swapped by the service itself, which watches the link. New packages or settings need a restart.
Then the service is first tried beside the one that answers, at a Unix socket and under the same restrictions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from edgedl.deploy.device.channel import Channel, Gone, Refused
from edgedl.deploy.device.health import KEY_VARIABLE, check_answer, wait_until_served
from edgedl.deploy.device.store import Store, first_words
from edgedl.deploy.device.systemd import Units, log, runtime_folder, texts, unit_name

START_SECONDS, SWAP_SECONDS = 180.0, 60.0
CONFIRM_SECONDS = 30.0
"""How long whoever deploys has to say that the news of a healthy service has arrived."""


class Activation:
    """Lets another release answer.

    Args:
        store: The folders.
        channel: Where whoever deploys listens.
    """

    def __init__(self, store: Store, channel: Channel) -> None:
        self._store, self._channel = store, channel
        self._units = Units(store.name)
        self._wrote = False
        os.environ[KEY_VARIABLE] = store.key()

    def run(self, release: str) -> None:
        """Switches, checks, and asks for a word; without it, or when a check fails, it switches back.

        Raises:
            Refused: The release does not answer as it should; the one before does.
            Gone: Whoever deploys is not there any more; the one before answers.
        """
        store, record = self._store, self._store.record(release)
        service = record["service"]
        wanted = None
        if service is not None:
            wanted = texts(store.root, store.name, store.served_path, record)
            if wanted == self._units.found() and self._units.active(self._units.service):
                wanted = None  # only the bundle is another one: the service swaps it
            else:
                self._try(release, record)
        how = "restart" if wanted else "unchanged" if store.current() == release else "swap"
        self._channel.tell(step="switch", how=how)
        store.prepare(release)
        try:
            store.switch()
            if wanted is not None:
                self._restart(wanted)
            told = self._check(release, START_SECONDS if wanted else SWAP_SECONDS)
            self._channel.tell(step="healthy", told=told)
            if self._channel.request(CONFIRM_SECONDS) != {"do": "confirm"}:
                raise Refused("the switch was not confirmed")
        except BaseException as error:
            self._go_back(error)
            raise
        store.commit()
        self._units.settle()

    def recover(self) -> str | None:
        """Ends what a process that was killed has left; tells what became of it, if anything was left."""
        if any((self._units.folder / unit).exists() for unit in self._units.trial):
            self._units.remove(self._units.trial)
        if self._store.pending() is None:
            return None
        first = self._store.revert() is None
        self._wrote = self._units.written() or (first and bool(self._units.found()))
        try:
            self._revert()
        except Refused as error:  # it must not bar a deployment that may mend it
            return f"{self._store.current()} is the current release again, but {error}"
        before = self._store.current()
        return f"{before} answers again" if before else "nothing is served, as before"

    def stop(self) -> None:
        """Takes the service away."""
        self._units.remove([self._units.service, self._units.socket])

    def _try(self, release: str, record: dict[str, Any]) -> None:
        """Runs the service of a release beside the one that answers."""
        store, units = self._store, self._units
        self._channel.tell(step="try")
        bundle = store.release(release) / store.bundle_file
        socket, service = units.trial
        log(store.root, store.name).write_text("")
        try:
            units.write(texts(store.root, store.name, bundle, record, trial=True), keep=False)
            units.control("start", socket)
            try:
                units.control("start", service)
            except Refused as error:
                said = log(store.root, store.name).read_text(errors="replace").splitlines()
                raise Refused(f"{error} ({first_words(said)})") from None
            address = f"unix:{runtime_folder()}/{unit_name(store.name, trial=True)}.sock"

            ended = units.failure(service)

            def failure() -> str | None:
                found = ended()
                said = log(store.root, store.name).read_text(errors="replace").splitlines() if found else []
                return f"{first_words(said)} ({found})" if found else None

            wait_until_served(address, store.name, record["bundle"]["digest"], START_SECONDS, failure)
            check_answer(record, bundle, store.name, address)
        finally:
            units.remove([service, socket])

    def _restart(self, wanted: dict[str, str]) -> None:
        units, found = self._units, self._units.found()
        self._wrote = True
        units.write(wanted)
        units.control("enable", units.socket, units.service)
        if found.get(units.socket) != wanted[units.socket]:
            units.control("stop", units.service, units.socket, check=False)
        self._start_anew()

    def _check(self, release: str, seconds: float) -> str:
        """Waits for the service and asks it for recorded answers.

        Returns:
            What was found, in words.
        """
        store, record = self._store, self._store.record(release)
        address = self._address(record)
        if address is None:
            return "nothing was asked, because no service is known"
        begin = time.monotonic()
        wait_until_served(address, store.name, record["bundle"]["digest"], seconds, self._failure(record))
        answer = check_answer(record, store.release(release) / store.bundle_file, store.name, address)
        return "{}, {:.1f} seconds after the switch".format(answer["told"], time.monotonic() - begin)

    @staticmethod
    def _address(record: dict[str, Any]) -> str | None:
        service = record["service"]
        if service is None:
            found: str | None = record["address"]
            return found
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - every address is also this machine's own
        host = own.get(service["host"], service["host"])
        return f"[{host}]:{service['port']}" if ":" in host else f"{host}:{service['port']}"

    def _go_back(self, error: BaseException) -> None:
        """The way back; whoever deploys may have gone, which must not end it."""
        try:
            self._revert()
        except Refused as failure:
            if isinstance(error, Gone):
                raise
            raise Refused(f"{error}; and the way back failed: {failure}") from error

    def _revert(self) -> None:
        store, units = self._store, self._units
        before = store.revert()
        record = None if before is None else store.record(before)
        wrote, self._wrote = self._wrote, False
        try:
            if wrote and (record is None or record["service"] is None):
                units.remove([units.service, units.socket])
            elif wrote:
                units.put_back()
                self._start_anew()
        finally:
            store.forget()  # the link leads back; what the service does from here on is another matter
        address = None if record is None else self._address(record)
        if record is not None and address is not None:
            wait_until_served(address, store.name, record["bundle"]["digest"], START_SECONDS, self._failure(record))

    def _start_anew(self) -> None:
        """Starts the service again; the socket stays, unless it has ended."""
        units = self._units
        units.control("reset-failed", units.service, units.socket, check=False)
        if not units.active(units.socket):
            units.control("start", units.socket)
        units.control("restart", units.service)

    def _failure(self, record: dict[str, Any]) -> Callable[[], str | None]:
        """What tells why the service of a release does not run."""
        if record["service"] is None:
            return lambda: None
        return self._units.failure(self._units.service)
