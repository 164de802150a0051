"""The page itself, with Gradio. Nothing leaves this machine: no analytics, no fonts or scripts from other hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DferZooError, InputError, printable
from ..inference.recognizer import BASELINE
from ..media.limits import limit
from .answer import about, answer, choices

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

KEEP_SECONDS = 900  # uploads and answers older than this are deleted
WAITING = 20  # clips in the queue
COLUMNS = ["From", "To", "Label", "Probability"]
EMPTY: tuple[Any, ...] = ("", None, [], None, None, "")
# The browser refuses everything that is not from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:"
)
CSS = """
.gradio-container {max-width: 1200px !important}
#headline h2 {font-size: 2rem; margin: 0.2rem 0}
#fault {border-left: 4px solid #D55E00; padding: 0.4rem 0.8rem}
#fault:not(:has(p)) {display: none}
#timeline img {width: 100%; height: auto}
"""


def build(folder: Path) -> Any:
    """The page as Gradio blocks.

    Args:
        folder: Where the files of the answers go.
    """
    gr = _gradio()
    with gr.Blocks(title="dfer_zoo", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as page:
        gr.Markdown("# dfer_zoo\nFacial expression from a video clip. Clips stay on this machine and are deleted.")
        with gr.Row():
            with gr.Column(min_width=320):
                clip = gr.Video(
                    label=f"Clip (up to {limit('upload_megabytes')} MB)",
                    sources=["upload", "webcam"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    include_audio=True,
                    height=300,
                    elem_id="clip",
                )
                weights = gr.Dropdown(choices(), value=BASELINE, label="Model and weights", elem_id="weights")
                facts = gr.Markdown(about(BASELINE), elem_id="facts")
                accepted = gr.Checkbox(label="I accept this licence; download the file if it is not here")
                start = gr.Button("Recognize", variant="primary", elem_id="start")
            with gr.Column(min_width=320, scale=2):
                fault = gr.Markdown("", elem_id="fault")
                headline = gr.Markdown("", elem_id="headline")
                picture = gr.Image(
                    label="Timeline", show_label=False, interactive=False, elem_id="timeline", buttons=["download"]
                )
                table = gr.Dataframe(headers=COLUMNS, label="Windows", interactive=False, elem_id="table")
                with gr.Row():
                    csv = gr.DownloadButton("Table (.csv)", elem_id="csv")
                    eaf = gr.DownloadButton("ELAN (.eaf)", elem_id="eaf")
        weights.change(about, weights, facts, show_progress="hidden", api_visibility="private")
        start.click(
            lambda clip, weights, accepted, bar=gr.Progress(): shown(folder, clip, weights, accepted, bar),  # noqa: B008
            [clip, weights, accepted],
            [headline, picture, table, csv, eaf, fault],
            concurrency_limit=1,
            api_visibility="private",
        )
    return page


def shown(folder: Path, clip: str | None, weights: str, accepted: bool, progress: Any = None) -> tuple[Any, ...]:
    """The values of the page's outputs for one clip; a fault is one sentence and nothing else.

    Args:
        folder: Where the files of the answer go, in a folder of their own.
        clip: The uploaded file.
        weights: "arch.tag".
        accepted: The reader accepts the licence.
        progress: Gradio's progress bar.

    Returns:
        Headline, picture, rows, CSV file, ELAN file, fault.
    """
    own = Path(tempfile.mkdtemp(dir=folder))
    tell = (lambda share, what: None) if progress is None else (lambda share, what: progress(share, desc=what))
    try:
        done = answer(clip, weights, own, accepted=accepted, progress=tell)
    except DferZooError as error:
        return (*EMPTY[:-1], _sentence(error, clip))
    except Exception as error:  # the page goes on; the whole story is on the terminal
        traceback.print_exc()
        return (*EMPTY[:-1], f"This is a bug in dfer_zoo ({type(error).__name__}: {error}); the terminal shows more.")
    text = "\n".join([f"## {done.headline}", *(f"- {remark}" for remark in done.remarks)])
    return (text, str(done.picture), [list(row) for row in done.rows], str(done.table), _path(done.tiers), "")


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _sentence(error: DferZooError, clip: str | None) -> str:
    """The message with the file's name in place of the path of the upload."""
    message = str(error)
    if clip is not None:
        message = message.replace(str(clip), Path(clip).name)
    return printable(message)


@contextlib.contextmanager
def serving(host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page until the block ends.

    Args:
        host: The address to listen on; "0.0.0.0" for everybody in the network.
        port: The port; a free one by default.

    Yields:
        The page's address. All uploads and answers are deleted when the block ends.
    """
    _gradio()
    folder = Path(tempfile.mkdtemp(prefix="dfer_zoo_app_"))
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # uploads go there
    page = build(folder)
    try:
        page.queue(max_size=WAITING)
        _, address, _ = _launched(page, host, _free_port(host) if port is None else port)
        yield address
    finally:
        page.close(verbose=False)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("GRADIO_TEMP_DIR")
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def _launched(page: Any, host: str, port: int) -> Any:
    from starlette.middleware import Middleware

    gr = _gradio()
    try:
        return page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=f"{limit('upload_megabytes')}mb",
            allowed_paths=[],
            enable_monitoring=False,
            ssr_mode=False,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(_OwnHostOnly)]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise InputError(f"The page cannot be served on {host}:{port} ({error}). Give another --port.") from error


class _OwnHostOnly:
    """Adds the content policy to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise InputError(f"--host {host}: this is no address of this machine ({error.strerror}).") from error
        return probe.getsockname()[1]


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise InputError('The page needs Gradio: pip install "dfer-zoo[app]".') from error
    return gradio


def run(host: str, port: int | None, browser: bool) -> None:
    """Serve until the user stops it.

    Args:
        host: The address to listen on.
        port: The port; a free one by default.
        browser: Open the page in the browser.
    """
    import threading
    import webbrowser

    with serving(host, port) as address:
        print(f"dfer_zoo: {address} (stop with Ctrl+C)", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("Everybody who reaches this address can use the page.", file=sys.stderr, flush=True)
        if browser:
            webbrowser.open(address)
        threading.Event().wait()
