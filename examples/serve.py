"""One model as a web service: `python examples/serve.py [--model ARCH.TAG]`, then POST a clip and get JSON.

    curl -F clip=@interview.mp4 http://127.0.0.1:8000/predict

Needs `pip install "dfer-zoo[serve]"`. Clips that wait at the same time are answered in one call of the model. The
service listens on this machine only by default: it has no password, so put a proxy with one in front of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import queue
import shutil
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

import dfer_zoo
from dfer_zoo.errors import DferZooError, InputError, printable
from dfer_zoo.inference.inputs import SOUND_SUFFIXES, VIDEO_SUFFIXES
from dfer_zoo.media.files import IMAGE_SUFFIXES

SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES | IMAGE_SUFFIXES
STALLED = 30.0  # seconds without data before an upload is aborted


@dataclass
class Job:
    """A queued clip. The file is deleted after the prediction, or when the client disconnects."""

    path: Path
    name: str
    answer: Future[dict[str, Any] | DferZooError] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.answer.add_done_callback(lambda _: self.path.unlink(missing_ok=True))

    def finish(self, prediction: Any) -> None:
        """Set the result, with the file name of the client instead of the local one."""
        if isinstance(prediction, DferZooError):
            self.answer.set_result(type(prediction)(str(prediction).replace(str(self.path), self.name)))
        else:
            self.answer.set_result(_renamed(prediction.to_dict(), self.name))


def _renamed(answer: dict[str, Any], name: str) -> dict[str, Any]:
    people = [_renamed(person, name) for person in answer.get("people", ())]
    return {**answer, "source": name, **({"people": people} if people else {})}


class Queue:
    """A thread that runs the model on all queued clips, up to `batch` at once.

    Args:
        recognizer: The model.
        batch: Maximum number of clips per call.
    """

    def __init__(self, recognizer: Any, batch: int) -> None:
        self.recognizer, self.batch = recognizer, batch
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def put(self, job: Job) -> None:
        self.jobs.put(job)

    def close(self) -> None:
        """Process the remaining clips, then end the thread."""
        self.jobs.put(None)
        self.thread.join()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            waiting = [job]
            last = False
            while len(waiting) < self.batch and not self.jobs.empty():
                if (job := self.jobs.get()) is None:
                    last = True
                    break
                waiting.append(job)
            # a disconnected client has canceled its job
            self._answer([job for job in waiting if job.answer.set_running_or_notify_cancel()])
            if last:
                return

    def _answer(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            answers = list(self.recognizer.many([job.path for job in jobs], on_error="return", progress=False))
        except Exception as error:
            if len(jobs) > 1:  # retry one by one, since one clip may cause the error
                for job in jobs:
                    self._answer([job])
                return
            traceback.print_exc()
            jobs[0].answer.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.finish(answer)


class Gate:
    """Limit the upload size, stalled uploads and concurrent requests before anything is read.

    Args:
        app: The wrapped application.
        max_bytes: Maximum size of a request.
        at_once: Maximum number of concurrent requests; further ones get status 503.
    """

    def __init__(self, app: Any, max_bytes: int, at_once: int) -> None:
        self.app, self.max_bytes, self.at_once = app, max_bytes, at_once
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.max_bytes:
            await _error(413, self.too_large)(scope, receive, send)
        elif self.inside >= self.at_once:
            await _error(503, f"{self.inside} clips are being answered; try again later.")(scope, receive, send)
        else:
            self.inside += 1
            try:
                await self.app(scope, self._bounded(receive), send)
            finally:
                self.inside -= 1

    @property
    def too_large(self) -> str:
        return f"The upload is larger than {self.max_bytes / 1e6:g} MB."

    def _bounded(self, receive: Any) -> Any:
        count, complete = 0, False

        async def bounded() -> Any:
            nonlocal count, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), STALLED)
            except asyncio.TimeoutError:
                raise HTTPException(408, f"The upload stalled for {STALLED:g} seconds.") from None
            count += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if count > self.max_bytes:
                raise HTTPException(413, self.too_large)
            return message

        return bounded


def create_app(recognizer: Any, *, max_megabytes: float = 200, at_once: int = 32, batch: int = 8) -> FastAPI:
    """Create the service.

    Args:
        recognizer: A `dfer_zoo.Recognizer`.
        max_megabytes: The largest upload.
        at_once: Maximum number of concurrent requests.
        batch: Maximum number of clips per model call.

    Returns:
        An ASGI application with `POST /predict` and `GET /health`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="dfer_zoo_serve_") as folder:
            app.state.folder = Path(folder)
            app.state.queue = Queue(recognizer, batch)
            yield
            await asyncio.to_thread(app.state.queue.close)

    # FastAPI's pages /docs and /redoc load scripts from another host
    app = FastAPI(title="dfer_zoo", version=dfer_zoo.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Gate, max_bytes=int(max_megabytes * 1e6), at_once=at_once)
    _add_errors(app)

    @app.get("/health")
    async def health() -> Any:
        if not app.state.queue.thread.is_alive():
            return _error(503, "The model's thread has ended; restart the service.")
        models = [model.weights.name if model.weights else type(model).__name__ for model in recognizer.models]
        return {"status": "ok", "models": models, "labels": list(recognizer.labels), "version": dfer_zoo.__version__}

    @app.post("/predict")
    async def predict(request: Request, clip: UploadFile) -> Any:
        job = await asyncio.to_thread(_stored, clip, app.state.folder)
        app.state.queue.put(job)
        answer = asyncio.wrap_future(job.answer)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():  # the client does not send more data
                return _error(499, "The client has gone.")
        finally:
            answer.cancel()  # skips a queued job; no effect on a finished one
            gone.cancel()
        found = await answer
        return _error(400, str(found)) if isinstance(found, DferZooError) else found

    return app


def _stored(upload: UploadFile, folder: Path) -> Job:
    """Store an upload in a file with a generated name."""
    name = printable(Path((upload.filename or "").replace("\\", "/")).name, 200) or "clip"
    suffix = Path(name).suffix.lower()
    with tempfile.NamedTemporaryFile(
        dir=folder, suffix=suffix if suffix in SUFFIXES else ".mp4", delete=False
    ) as target:
        job = Job(Path(target.name), name)
        try:
            shutil.copyfileobj(upload.file, target, 1 << 20)
        except BaseException:
            job.answer.cancel()
            raise
    return job


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, sentence: str) -> JSONResponse:
    headers = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": sentence}, status, headers)


def _add_errors(app: FastAPI) -> None:
    """Return every error as JSON with one sentence."""

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        sentence = error.detail
        if error.status_code in (404, 405):
            sentence = f"{request.method} {request.url.path} is not here: POST /predict, GET /health."
        return _error(error.status_code, sentence)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _error(
            400, f'There is no clip: send the file as the form field "clip", curl -F clip=@FILE {request.url}'
        )

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return _error(500, f"This is a bug in the service ({type(error).__name__}); its log shows more.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help='such as "mma_dfer.dfew_fold1"; default: the frame-wise baseline')
    parser.add_argument("--faces", default="auto", help="how faces are found, as in `dfer-zoo predict`")
    parser.add_argument("--people", default="largest", choices=("largest", "all"))
    parser.add_argument("--device", help="such as cuda")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; this machine only by default")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-megabytes", type=float, default=200, help="the largest upload")
    parser.add_argument(
        "--at-once", type=int, default=32, help="clips that may upload or wait; one more gets status 503"
    )
    parser.add_argument("--batch", type=int, default=8, help="clips in one call of the model")
    options = parser.parse_args(arguments)
    try:
        recognizer = dfer_zoo.Recognizer(
            options.model, faces=options.faces, people=options.people, device=options.device
        )
        if options.at_once < 1 or options.batch < 1 or not options.max_megabytes > 0:
            raise InputError("--at-once, --batch and --max-megabytes must be above zero.")
    except DferZooError as error:
        parser.error(str(error))
    limits = {"max_megabytes": options.max_megabytes, "at_once": options.at_once, "batch": options.batch}
    uvicorn.run(create_app(recognizer, **limits), host=options.host, port=options.port, log_level="info")


if __name__ == "__main__":
    main()
