"""The Gradio page. It sends no data to other hosts: no analytics, and no external fonts or scripts."""

from __future__ import annotations

import base64
import contextlib
import html
import os
import re
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DferZooError, InputError, printable
from ..inference.recognizer import BASELINE
from ..media.limits import limit
from .answer import Answer, Person, about, answer, choices, overlay

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

KEEP_SECONDS = 900  # uploads and results older than this are deleted
CHECK_SECONDS = 60  # interval between two cleanups
WAITING = 20  # maximum number of clips in the queue
INTRODUCTION = """# dfer_zoo
Facial expression from a video clip: choose a clip and press *Recognize*. Clips stay on this machine and are deleted."""
COLUMNS = ["From", "To", "Label", "Probability"]
# The browser blocks everything that this server does not send.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:"
)
CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
#headline h2 {font-size: 2rem; margin: 0.2rem 0}
#facts {overflow-wrap: anywhere}
#fault {border-left: 4px solid #D55E00; padding: 0.4rem 0.8rem; overflow-wrap: anywhere}
#fault:not(:has(p)), #timeline:not(:has(img)) {display: none}
#table:not(:has(td)) {display: none}
#table table {width: 100%; border-collapse: collapse}
#table table, #table thead, #table tbody, #table tr {border: none !important}
#table th, #table td {
  text-align: left; white-space: nowrap; padding: 0.4rem 0.3rem; border: none;
  border-bottom: 1px solid var(--border-color-primary);
}
#timeline img {width: 100%; height: auto; border-radius: 8px}
body.dark #timeline .light, body:not(.dark) #timeline .dark {display: none}
#weights input {text-overflow: ellipsis; padding-right: 2rem}
@media (max-width: 640px) {
  #timeline .wide {display: none}
  #weights input {font-size: 0.75rem; padding-left: 0}
}
@media (min-width: 641px) {#timeline .narrow {display: none}}
"""


def build(folder: Path) -> Any:
    """Build the page as Gradio blocks.

    Args:
        folder: The folder for the result files.
    """
    gr = _gradio()
    with gr.Blocks(title="dfer_zoo", analytics_enabled=False, delete_cache=(CHECK_SECONDS, KEEP_SECONDS)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=320):
                file, camera = _clip_inputs(gr)
                weights = gr.Dropdown(choices(), value=BASELINE, label="Model and weights", elem_id="weights")
                facts = gr.Markdown(about(BASELINE), elem_id="facts")
                accepted = gr.Checkbox(
                    label="I accept this licence; download the file if it is not here", elem_id="accept"
                )
                several = gr.Checkbox(label="Several people: answer for everybody in the picture", elem_id="several")
                drawn = gr.Checkbox(True, label="Video with the answer drawn into it", elem_id="drawn")
                start = gr.Button("Recognize", variant="primary", elem_id="start")
            with gr.Column(min_width=320, scale=2):
                outputs = _outputs(gr)
        weights.change(about, weights, facts, show_progress="hidden", api_visibility="private")
        # a new clip replaces the one in the other tab
        file.upload(lambda: None, None, camera, show_progress="hidden", api_visibility="private")
        camera.stop_recording(lambda: None, None, file, show_progress="hidden", api_visibility="private")

        def recognize(*given: Any, progress: Any = gr.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
            yield from shown(folder, progress, *given)

        start.click(
            recognize,
            [file, camera, weights, accepted, several, drawn],
            list(outputs.values()),
            concurrency_limit=1,
            show_progress_on=outputs["headline"],
            api_visibility="private",
        )
        outputs["person"].input(
            chosen,
            [outputs["people"], outputs["person"]],
            [outputs[name] for name in VIEW],
            show_progress="hidden",
            api_visibility="private",
        )
    return page


# The outputs that show one person, and all of them in order.
VIEW = ("headline", "timeline", "table")
OUTPUTS = ("fault", "person", *VIEW, "overlay", "csv", "eaf", "png", "people")


def _clip_inputs(gr: Any) -> tuple[Any, Any]:
    """Create the file and camera inputs. There is no player for files: browsers do not support every format."""
    with gr.Tab("File"):
        file = gr.File(label=f"Clip (up to {limit('upload_megabytes')} MB)", height=180, elem_id="clip")
    with gr.Tab("Camera", elem_id="camera_tab"):
        camera = gr.Video(
            label="Camera and microphone",
            sources=["webcam"],
            webcam_options=gr.WebcamOptions(mirror=False),
            include_audio=True,
            height=300,
            elem_id="camera",
        )
    return file, camera


def _outputs(gr: Any) -> dict[str, Any]:
    """Create the output components by name, in the order of `OUTPUTS`."""
    fault = gr.Markdown("", elem_id="fault")
    person = gr.Radio([], label="Person", visible=False, elem_id="person")
    headline = gr.Markdown("", elem_id="headline", min_height=90)
    timeline = gr.HTML("", elem_id="timeline")
    overlay = gr.Video(
        label="The answer in the video", show_label=False, interactive=False, elem_id="overlay", visible=False
    )
    table = gr.HTML("", elem_id="table")  # Gradio's table is wider than a phone
    with gr.Row():
        csv = gr.DownloadButton("Table (.csv)", elem_id="csv", visible=False)
        eaf = gr.DownloadButton("ELAN (.eaf)", elem_id="eaf", visible=False)
        png = gr.DownloadButton("Picture (.png)", elem_id="png", visible=False)
    people = gr.State([], time_to_live=KEEP_SECONDS)
    return dict(
        fault=fault, person=person, headline=headline, timeline=timeline, table=table, overlay=overlay,
        csv=csv, eaf=eaf, png=png, people=people,
    )  # fmt: skip


def shown(
    folder: Path,
    progress: Any,
    file: str | None,
    camera: str | None,
    weights: str,
    accepted: bool,
    several: bool,
    drawn: bool,
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of the outputs for one clip. An error becomes one sentence.

    Args:
        folder: The folder for the result files. Gradio copies the files that it shows.
        progress: Gradio's progress bar, or None.
        file: The uploaded file.
        camera: The recording, used if there is no file.
        weights: "arch.tag".
        accepted: Whether the user accepts the license.
        several: Predict every person in the clip.
        drawn: Also write the overlay video.

    Yields:
        The values of `OUTPUTS`, first without and then with the overlay video.
    """
    clip = camera if file is None else file
    own = Path(tempfile.mkdtemp(dir=folder))

    def tell(share: float, what: str) -> None:
        if progress is not None:
            progress(share, desc=what)

    yield _values({})
    try:
        clip = None if clip is None else _kept(Path(clip), own)
        done = answer(clip, weights, own, accepted=accepted, people="all" if several else "largest", progress=tell)
        assert clip is not None
        yield _values(_filled(done))
        tell(0.97, "Drawing the video")
        if drawn and (video := overlay(clip, done, own)) is not None:
            yield _unchanged(overlay=_gradio().update(value=str(video), visible=True))
    except DferZooError as error:
        yield _unchanged(fault=_sentence(error, clip))
    except Exception as error:  # keep serving; the traceback is printed on the terminal
        traceback.print_exc()
        sentence = f"This is a bug in dfer_zoo ({type(error).__name__}: {error}); the terminal shows more."
        yield _unchanged(fault=sentence)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _kept(upload: Path, folder: Path) -> str:
    """Link or copy the upload into `folder`, because Gradio may delete it during a long prediction."""
    kept = folder / upload.name
    if not upload.exists():
        raise InputError(f"{upload.name} was deleted after {KEEP_SECONDS // 60} minutes. Drop it again.")
    try:
        os.link(upload, kept)
    except OSError:  # the file system does not support links
        shutil.copyfile(upload, kept)
    return str(kept)


def _values(known: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return values for all outputs; outputs without a known value are empty."""
    gr = _gradio()
    hidden = gr.update(value=None, visible=False)
    empty = {
        "fault": "", "person": hidden, "headline": "", "timeline": "", "table": "", "overlay": hidden, "csv": hidden,
        "eaf": hidden, "png": hidden, "people": [],
    }  # fmt: skip
    return tuple({**empty, **known}[name] for name in OUTPUTS)


def _unchanged(**known: Any) -> tuple[Any, ...]:
    return tuple(known.get(name, _gradio().skip()) for name in OUTPUTS)


def _filled(done: Answer) -> dict[str, Any]:
    gr = _gradio()
    files = {"csv": done.table, "eaf": done.tiers, "png": done.people[0].pictures["light", "wide"]}
    names = [person.name for person in done.people]
    view = dict(zip(VIEW, _view(done.people[0])))
    buttons = {key: gr.update(value=_path(path), visible=path is not None) for key, path in files.items()}
    person = gr.update(choices=names, value=names[0], visible=len(names) > 1)
    return {**view, **buttons, "person": person, "people": [(one.name, _view(one)) for one in done.people]}


def _view(person: Person) -> tuple[str, str, str]:
    """Return the values of `VIEW`. The page contains all four pictures; CSS selects one."""
    text = "\n".join([f"## {person.headline}", *(f"- {remark}" for remark in person.remarks)])
    images = []
    for (theme, shape), path in person.pictures.items():
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        said = html.escape(f"Probabilities over time: {person.headline}")
        images.append(
            f'<div class="{theme}"><img class="{shape}" alt="{said}" src="data:image/png;base64,{content}"></div>'
        )
    return text, "".join(images), _table(person.rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th scope=col>{name}</th>" for name in COLUMNS)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def chosen(people: Sequence[tuple[str, Any]], name: str) -> tuple[Any, ...]:
    """Return the values of `VIEW` for the selected person."""
    return dict(people).get(name, tuple(_gradio().skip() for _ in VIEW))


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _sentence(error: DferZooError, clip: str | None) -> str:
    """Return the error message with the file name instead of the upload path, and without advice for programmers."""
    message = str(error)
    if clip is not None:
        message = message.replace(str(clip), Path(clip).name)
    message = message.replace("people='all'", "*Several people*")
    kept = [part for part in re.split(r"(?<=\.) ", message) if not re.search(r"\b[a-z_]+='", part)]
    return printable(" ".join(kept) or message)


@contextlib.contextmanager
def serving(host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page until the block ends.

    Args:
        host: The address to listen on; "0.0.0.0" accepts connections from the network.
        port: The port; a free one by default.

    Yields:
        The URL of the page. All uploads and results are deleted when the block ends.
    """
    _gradio()
    folder = Path(tempfile.mkdtemp(prefix="dfer_zoo_app_"))
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")  # uploads, and copies of what is shown
    (folder / "answers").mkdir()
    page = build(folder / "answers")
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
    """Add the content security policy to every response."""

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
    """Serve until Ctrl+C or SIGTERM. Uploads and answers are then deleted.

    Args:
        host: The address to listen on.
        port: The port; a free one by default.
        browser: Open the page in the browser.
    """
    import signal
    import threading
    import webbrowser

    stopped = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells ignore it for background jobs
            signal.signal(number, lambda *_: stopped.set())
    with serving(host, port) as address:
        print(f"dfer_zoo: {address} (stop with Ctrl+C)", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("Everybody who reaches this address can use the page.", file=sys.stderr, flush=True)
        if browser:
            webbrowser.open(address)
        stopped.wait()
