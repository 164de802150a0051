"""python -m tests.parity FILE_OR_FOLDER ...: one line per compared output, exit status 1 on any failure."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from .device import networks_on
from .runner import ARCHITECTURES, case_files, check_file, find_check


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--failures", action="store_true", help="print the lines that fail only")
    parser.add_argument("--device", default="cpu", help="where the networks run; the rest of a check is on the CPU")
    options = parser.parse_args(arguments)
    for architecture in ARCHITECTURES:
        find_check(architecture, "")  # imports its networks, which must be known before they are moved
    with networks_on(options.device) if options.device != "cpu" else contextlib.nullcontext() as calls:
        status = report(options)
    if calls:
        print(f"{calls[0]} calls of networks on {options.device}")
    return status


def report(options: argparse.Namespace) -> int:
    """Print the comparisons, and return the exit status."""
    compared = failed = 0
    for path in case_files(options.paths):
        for comparison in check_file(path):
            compared += 1
            failed += not comparison.ok
            if not (options.failures and comparison.ok):
                print(comparison, flush=True)
    print(f"{compared} compared, {failed} failed")
    return 1 if failed or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
