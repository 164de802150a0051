"""`dfer-zoo app`: a web page for predictions."""

from __future__ import annotations

import argparse

from .common import Command


def app_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, metavar="N", help="a free one by default")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; only this machine by default")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")


def app_command(options: argparse.Namespace) -> int:
    from ..app.page import run

    run(options.host, options.port, not options.no_browser)
    return 0


COMMANDS = {"app": Command("Serve a page that recognizes clips, for the browser.", app_options, app_command)}
