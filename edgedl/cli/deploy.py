"""``edgedl deploy``: a bundle onto devices over ssh, proven there, with a way back."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgedl.cli import arguments, signing
from edgedl.cli.failures import UsageError
from edgedl.cli.output import table

if TYPE_CHECKING:
    from edgedl.deploy.rollout import Plan
    from runtime.bundle import Bundle


def add_parser(sub: arguments.Subparsers) -> None:
    """Declares the verb."""
    parser = arguments.verb(
        sub,
        "deploy",
        run,
        "bring a bundle onto devices over ssh, prove it there, and serve it",
        "Copies the bundle, replays its recorded answers there, lets it answer in one step, and asks the service for\n"
        "a recorded answer. If anything fails, the bundle before answers again. Several devices come one after the\n"
        "other; the first failure ends it. A deployment that was cut goes on when you deploy again.",
    )
    parser.add_argument(
        "bundle", metavar="B", help="a bundle; with --list and --rollback the name of a deployment will do"
    )
    parser.add_argument("devices", metavar="ssh://USER@HOST[:PORT]", nargs="+", help="the devices")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list what lies on the devices, and deploy nothing")
    what.add_argument("--rollback", action="store_true", help="let the release answer that answered before")
    parser.add_argument("--name", help="of the deployment; the service answers at /v1/NAME (default: the bundle's)")
    parser.add_argument("--keep", type=arguments.positive, default=3, metavar="N", help="releases to keep (default: 3)")
    parser.add_argument("--variant", metavar="V", help="the form of the graphs, e.g. int8 (default: fp32)")
    parser.add_argument("--device", default="cpu", help="where the graphs run there (default: cpu)")
    signing.trust(parser)
    _add_environment(parser)
    _add_service(parser)


def _add_environment(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("there")
    group.add_argument("--folder", metavar="PATH", help="where everything lies (default: ~/.local/share/edgedl)")
    group.add_argument("--python", metavar="PATH", help="an interpreter that has edgedl; no environment is made")
    group.add_argument(
        "--python3", metavar="PATH", help="the interpreter that makes the environment (default: python3)"
    )
    group.add_argument("--extras", default="cpu,serve", metavar="E", help="those of edgedl (default: cpu,serve)")
    group.add_argument("--wheelhouse", metavar="FOLDER", help="take the packages from here; nothing is fetched")
    group.add_argument("--ssh-config", metavar="FILE", help="a configuration of ssh in the place of yours")


def _add_service(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("service")
    group.add_argument(
        "--no-service", action="store_true", help="write no units; something else serves what is deployed"
    )
    group.add_argument(
        "--url", metavar="HOST:PORT", help="with --no-service: where that answers there, for the health check"
    )
    group.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=arguments.port, default=8000, help="the port to listen on (default: 8000)")
    group.add_argument(
        "--api-keys", metavar="FILE", help="ask for a key: lines NAME:SHA256, as for serve (default: none)"
    )
    group.add_argument(
        "--threads", type=arguments.positive, metavar="N", help="threads of one run (default: half of the cores)"
    )
    group.add_argument(
        "--memory", default="75%", metavar="M", help="the most it may take: 512M, 2G or a share (default: 75%%)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the verb."""
    from exporters.targets.address import Address

    addresses = [Address.parse(text) for text in args.devices]
    if args.url is not None and not args.no_service:
        raise UsageError("--url belongs to --no-service: it says where something else serves")
    if args.list or args.rollback:
        plan = _plan(args, args.name or _name_of(args.bundle))
        return _list(args, addresses, plan) if args.list else _roll_back(args, addresses, plan)
    from runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    signing.trusted_signer(args, bundle)
    return _deploy(args, bundle, addresses, _plan(args, args.name or bundle.manifest.name))


def _plan(args: argparse.Namespace, name: str) -> Plan:
    import re
    from pathlib import Path

    from edgedl.deploy.device.store import WORD
    from edgedl.deploy.rollout import Plan, Service

    if not WORD.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a deployment; give one of letters, digits, - and _ with --name"
        )
    if not re.fullmatch(r"[1-9][0-9]*[KMG]|[1-9][0-9]?%|100%", args.memory):
        raise UsageError(f"--memory {args.memory} is no amount; expected one such as 512M, 2G or 75%")
    service = Service(
        host=args.host, port=args.port, threads=args.threads, memory=args.memory, keys=_key_lines(args.api_keys)
    )
    return Plan(
        name=name,
        service=None if args.no_service else service,
        address=args.url,
        root=args.folder,
        python=args.python,
        python3=args.python3,
        wheelhouse=Path(args.wheelhouse) if args.wheelhouse else None,
        extras=args.extras,
        device=args.device,
        variant=args.variant,
        keep=args.keep,
        ssh_config=args.ssh_config,
    )


def _key_lines(path: str | None) -> tuple[str, ...] | None:
    """The lines of a file of keys."""
    if path is None:
        return None
    from service.keys import read_keys

    return tuple(f"{name}:{digest.hex()}" for name, digest in read_keys(path).digests)


def _name_of(text: str) -> str:
    """The name of a deployment, or that of the bundle at a path."""
    from pathlib import Path

    from runtime.bundle import Bundle

    return Bundle.open(text, check=False).manifest.name if Path(text).exists() else text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _deploy(args: argparse.Namespace, bundle: Bundle, addresses: list[Any], plan: Plan) -> int:
    from edgedl.deploy.rollout import Deployed, deploy
    from runtime.errors import EdgedlError

    done: list[Deployed] = []
    try:
        for one in deploy(bundle, addresses, plan, _say):
            done.append(one)
            args.out.text(f"{one.device}: {one.release} answers ({one.how}); {one.told}")
    except EdgedlError as error:
        if len(addresses) > 1:
            raise type(error)(f"{error} ({len(done)} of {len(addresses)} devices are done)") from error
        raise
    args.out.document({"ok": True, "devices": [asdict(one) for one in done]})
    return 0


def _roll_back(args: argparse.Namespace, addresses: list[Any], plan: Plan) -> int:
    from edgedl.deploy.rollout import roll_back

    done = []
    for address in addresses:
        done.append(roll_back(address, plan, _say))
        args.out.text(f"{done[-1].device}: {done[-1].release} answers ({done[-1].how}); {done[-1].told}")
    args.out.document({"ok": True, "devices": [asdict(one) for one in done]})
    return 0


def _list(args: argparse.Namespace, addresses: list[Any], plan: Plan) -> int:
    from edgedl.deploy.rollout import list_releases

    found = [list_releases(address, plan) for address in addresses]
    for one in found:
        rows = [
            (
                record["release"],
                record["bundle"]["version"],
                record["bundle"]["digest"][:12],
                "answers" if record["release"] == one["current"] else "",
            )
            for record in one["releases"]
        ]
        args.out.text(f"{one['device']}: {plan.name}")
        args.out.text(table(("release", "version", "digest", ""), rows, "  ") if rows else "  nothing")
    args.out.document({"ok": True, "devices": found})
    return 0
