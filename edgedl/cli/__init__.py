"""The command line: one module per verb, each with ``add_parser(sub)`` and ``run(args) -> int``.

Everything a verb needs is imported inside its ``run``, so that ``edgedl --help`` imports neither numpy nor
onnxruntime nor torch. Exit status: 0 done and all is well; 1 the check said no; 2 usage, missing extra, bad input
file or bad bundle; 70 a bug in edgedl; 130 interrupted; 141 the reader of standard output went away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from edgedl._version import __version__
from edgedl.cli import (
    bench,
    calibrate,
    deploy,
    doctor,
    evaluate,
    export,
    inspect,
    pack,
    plot,
    predict,
    prove,
    pull,
    quantize,
    serve,
    train,
    verify,
)
from edgedl.cli.arguments import Parser
from edgedl.cli.console import console
from edgedl.cli.failures import BROKEN_PIPE, Failure, explain
from edgedl.cli.output import Output

VERBS = (
    pull,
    train,
    export,
    verify,
    inspect,
    predict,
    evaluate,
    calibrate,
    quantize,
    bench,
    pack,
    prove,
    deploy,
    serve,
    doctor,
    plot,
)

DESCRIPTION = "Takes a PyTorch network to an edge device and proves that it still gives the same answer there."
EPILOG = """\
exit status: 0 all is well, 1 the check said no, 2 usage or bad input, 70 a bug in edgedl, 130 interrupted
standard output holds the result only; with --json it is one JSON document

a first walk:
  edgedl pull age -o age.edge      public weights -> a bundle that works on photos at once
  edgedl verify age.edge           the recorded answers, replayed on this machine
  edgedl predict age.edge me.jpg   a photo in, an age out
"""


def build_parser() -> Parser:
    """The parser with every verb."""
    parser = Parser(
        prog="edgedl",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edgedl {__version__}")
    sub = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    for verb in VERBS:
        verb.add_parser(sub)
    return parser


def complete() -> None:
    """Answers a shell that asks how a command line may go on, and leaves; without argcomplete nothing is answered."""
    try:
        import argcomplete
    except ImportError:
        return
    parser = build_parser()
    verb, *words = [*os.environ.get("COMP_LINE", "").split()[1:], ""]
    if verb in parser.verbs:
        parser.verbs[verb].declare_late(words)
    argcomplete.autocomplete(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after the program's name; by default those of the process.

    Returns:
        The exit status.
    """
    if "_ARGCOMPLETE" in os.environ:
        complete()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Known before parsing, so that a usage error obeys them too.
    out = Output(sys.stdout, as_json="--json" in arguments)
    traceback = "--traceback" in arguments or os.environ.get("EDGEDL_TRACEBACK") == "1"
    try:
        try:
            status = _run(arguments, out)
            out.flush()
        except BrokenPipeError:
            raise  # also one that happens while a failure is reported
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge of the program
            return _report(explain(error), error, out, traceback)
    except BrokenPipeError:
        return _reader_went_away()
    return status


def _run(arguments: list[str], out: Output) -> int:
    try:
        args = build_parser().parse_verb(arguments)
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    args.out = out
    # Libraries that print (progress bars among them) must not mix with the result.
    with console(verbose=args.verbose), contextlib.redirect_stdout(sys.stderr):
        status: int = args.run(args)
    return status


def _report(failure: Failure, error: BaseException, out: Output, traceback: bool) -> int:
    if traceback:
        import traceback as printer

        printer.print_exception(error, file=sys.stderr)
    print(f"{failure.usage}edgedl: {failure.message}", file=sys.stderr)
    out.document(
        {
            "ok": False,
            "error": {
                "type": type(error).__name__,
                "message": failure.message,
                "exit_status": failure.exit_status,
            },
        }
    )
    out.flush()
    return failure.exit_status


def _reader_went_away() -> int:
    # Python flushes standard output once more on its way out; what is left has no reader.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
