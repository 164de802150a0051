"""The command line: ``dfer-zoo COMMAND``, or ``python -m dfer_zoo COMMAND``.

A command is a function that declares its options, a function that takes the parsed options and returns an exit status,
and one line in the `COMMANDS` of its file. Heavy modules (torch, av, cv2, ...) are imported inside the functions.

Exit status: 0 success, 1 some files failed, 2 failure (wrong usage, or a `DferZooError` in one line).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import os
import sys
import threading
from collections.abc import Sequence

from ..errors import DferZooError, printable
from ..version import __version__
from . import app, demo, doctor, embed, evaluate, export, predict, prepare, train, visualize, weights
from .common import in_options

COMMANDS = {
    **predict.COMMANDS,
    **embed.COMMANDS,
    **export.COMMANDS,
    **weights.COMMANDS,
    **evaluate.COMMANDS,
    **prepare.COMMANDS,
    **train.COMMANDS,
    **visualize.COMMANDS,
    **doctor.COMMANDS,
    **demo.COMMANDS,
    **app.COMMANDS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. User errors are printed, not raised."""
    _print_anything()
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has already printed its message
        return stop.code if isinstance(stop.code, int) else 2
    try:
        status = COMMANDS[options.command].run(options)
        sys.stdout.flush()
        return status
    except DferZooError as error:
        print(f"dfer-zoo {options.command}: {in_options(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # a full disk, no permission, or a closed pipe (head, less)
        try:
            sys.stdout.flush()
        except OSError:  # discard what is still buffered
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"dfer-zoo {options.command}: {printable(str(error))}", file=sys.stderr)
        return 2


def run() -> None:
    """Run one command and exit without interpreter cleanup, which takes half a second with torch."""
    status = main()
    if threading.active_count() > 1:  # other threads are still running
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _print_anything() -> None:
    """Escape characters that the terminal cannot show, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dfer-zoo", description="Dynamic facial expression recognition: five published systems behind one call."
    )
    parser.add_argument("--version", action="version", version=f"dfer_zoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.options(commands.add_parser(name, help=command.summary, description=command.summary))
    return parser
