"""`examples/serve.py` on a local socket: responses match requests, errors are sentences, and no files remain."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

for package in ("fastapi", "uvicorn", "python_multipart", "av"):
    pytest.importorskip(package)
httpx = pytest.importorskip("httpx")

import uvicorn  # noqa: E402

import dfer_zoo  # noqa: E402
from dfer_zoo.data.puppets import Puppet  # noqa: E402
from tests.scripts import ROOT, load_script  # noqa: E402

serve = load_script("examples/serve.py")
EMOTIONS = ("happiness", "sadness", "anger", "fear", "surprise", "neutral")


@pytest.fixture(scope="module")
def recognizer():
    return dfer_zoo.Recognizer("av_fusion", "puppets", faces="none")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Write clips with different people, expressions and lengths."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        Puppet(EMOTIONS[n % 6], identity=n, seed=n, size=48 + 8 * (n % 3)).write(folder / f"clip {n}.mp4")
        for n in range(12)
    ]


class Service:
    def __init__(self, app):
        self.app = app
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *exception):
        folder = self.app.state.folder
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive() and not folder.exists()

    def post(self, name, content, **options):
        return httpx.post(f"{self.address}/predict", files={"clip": (name, content)}, timeout=120, **options)

    def files(self):
        return list(self.app.state.folder.iterdir())


@pytest.fixture(scope="module")
def service(recognizer):
    with Service(serve.create_app(recognizer, max_megabytes=20)) as running:
        yield running


def settled(look):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if look():
            return True
        time.sleep(0.02)
    return False


def test_clients_at_once_get_the_answers_of_their_own_clips(service, recognizer, clips):
    expected = {clip.name: recognizer(clip).to_dict() | {"source": clip.name} for clip in clips}
    assert len({json.dumps(answer["probabilities"]) for answer in expected.values()}) == len(clips)
    posts = [clips[(3 * n) % len(clips)] for n in range(len(clips))] * 2
    posts += [clips[5], clips[0]]
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda clip: service.post(clip.name, clip.read_bytes()), posts))
    for clip, answer in zip(posts, answers, strict=True):
        assert answer.status_code == 200, answer.text
        found, wanted = answer.json(), json.loads(json.dumps(expected[clip.name]))
        assert found["probabilities"] == pytest.approx(wanted.pop("probabilities"), abs=1e-6)
        assert [w["probabilities"] for w in found["windows"]] == [
            pytest.approx(w["probabilities"], abs=1e-6) for w in wanted.pop("windows")
        ]
        assert {name: found[name] for name in wanted} == wanted
    assert settled(lambda: not service.files())


def test_broken_clips_between_good_ones_are_sentences(service, clips):
    broken = clips[0].read_bytes()[:3000]
    posts = [("a.mp4", broken), ("b.mp4", clips[1].read_bytes()), ("evil.m3u8", b"#EXTM3U\nfile:///etc/passwd\n")] * 3
    with ThreadPoolExecutor(9) as clients:
        answers = list(clients.map(lambda post: service.post(*post), posts))
    assert [answer.status_code for answer in answers] == [400, 200, 400] * 3
    for name, answer in ((post[0], answer) for post, answer in zip(posts, answers) if answer.status_code == 400):
        (sentence,) = answer.json().values()
        assert sentence.startswith(f"{name}: ") and str(service.app.state.folder) not in sentence
    assert settled(lambda: not service.files())


def test_an_upload_that_is_too_large_is_413(service):
    answer = service.post("large.mp4", bytes(30_000_000))
    assert answer.status_code == 413 and answer.json() == {"error": "The upload is larger than 20 MB."}


def test_an_upload_of_unknown_size_is_cut_off(service):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="clip"; filename="a.mp4"\r\n\r\n'
        for _ in range(60):
            yield bytes(500_000)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{service.address}/predict", content=chunks(), headers=headers, timeout=60)
    assert answer.status_code == 413 and "larger than 20 MB" in answer.json()["error"]
    assert settled(lambda: not service.files())


@pytest.mark.parametrize(
    "method, path, options, status, sentence",
    [
        ("POST", "/predict", {}, 400, 'send the file as the form field "clip"'),
        ("POST", "/predict", {"data": {"clip": "text"}}, 400, 'send the file as the form field "clip"'),
        ("POST", "/predict", {"files": {"video": ("a.mp4", b"0")}}, 400, 'send the file as the form field "clip"'),
        ("POST", "/predict", {"files": {"clip": ("../../a.mp4", b"")}}, 400, "a.mp4: "),
        ("GET", "/predict", {}, 405, "POST /predict, GET /health"),
        ("GET", "/docs", {}, 404, "POST /predict, GET /health"),
    ],
)
def test_wrong_requests_are_sentences(service, method, path, options, status, sentence):
    answer = httpx.request(method, f"{service.address}{path}", timeout=60, **options)
    assert answer.status_code == status and sentence in answer.json()["error"] and list(answer.json()) == ["error"]


def test_health_names_the_model(service, recognizer):
    answer = httpx.get(f"{service.address}/health").json()
    assert answer["status"] == "ok" and answer["models"] == ["av_fusion.puppets"]
    assert answer["labels"] == list(recognizer.labels)


class Slow:
    """A recognizer that blocks until released, and records its calls."""

    models, labels = (), ("a", "b")

    def __init__(self, inner=None):
        self.inner, self.go, self.calls = inner, threading.Event(), []

    def many(self, sources, **options):
        self.calls.append(len(sources))
        assert self.go.wait(60)
        if self.inner is None:
            raise RuntimeError("a bug")
        return self.inner.many(sources, **options)


def test_clips_that_wait_are_answered_together_and_one_too_many_is_503(recognizer, clips):
    slow = Slow(recognizer)
    with Service(serve.create_app(slow, at_once=4, batch=3)) as service, ThreadPoolExecutor(4) as clients:
        first = clients.submit(service.post, "0.mp4", clips[0].read_bytes())
        assert settled(lambda: slow.calls == [1])
        others = [clients.submit(service.post, f"{n}.mp4", clips[n].read_bytes()) for n in (1, 2, 3)]
        assert settled(lambda: service.app.state.queue.jobs.qsize() == 3)
        full = service.post("4.mp4", clips[4].read_bytes())
        assert full.status_code == 503 and "4 clips are being answered" in full.json()["error"]
        assert full.headers["Retry-After"] == "5"
        assert httpx.get(f"{service.address}/health").status_code == 200  # still responds
        slow.go.set()
        assert [answer.result().json()["source"] for answer in (first, *others)] == [f"{n}.mp4" for n in range(4)]
        assert slow.calls == [1, 3]


def test_a_client_that_goes_away_costs_nothing(recognizer, clips):
    slow = Slow(recognizer)
    with Service(serve.create_app(slow)) as service, ThreadPoolExecutor(2) as clients:
        first = clients.submit(service.post, "0.mp4", clips[0].read_bytes())
        assert settled(lambda: slow.calls == [1])
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.address}/predict", files={"clip": clips[1].read_bytes()}, timeout=1)
        assert settled(lambda: len(service.files()) == 1)  # the file of the disconnected client is deleted immediately
        slow.go.set()
        assert first.result().status_code == 200
        assert service.post("2.mp4", clips[2].read_bytes()).status_code == 200
        assert slow.calls == [1, 1]  # the clip of the disconnected client was skipped


def test_a_client_that_goes_away_during_its_upload_leaves_nothing(service, clips):
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="clip"; filename="a.mp4"\r\n\r\n'
        )
    assert service.post("1.mp4", clips[1].read_bytes()).status_code == 200
    assert settled(lambda: not service.files())


def test_an_upload_that_stalls_is_given_up(recognizer, monkeypatch):
    monkeypatch.setattr(serve, "STALLED", 0.2)
    with Service(serve.create_app(recognizer)) as service:
        host, port = service.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as half:
            half.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
            )
            answer = half.recv(4096)
    assert b" 408 " in answer.splitlines()[0]


def test_a_bug_is_a_sentence_and_the_service_goes_on(clips, capsys):
    broken = Slow()
    broken.go.set()
    with Service(serve.create_app(broken)) as service:
        for _ in range(2):
            answer = service.post("0.mp4", clips[0].read_bytes())
            assert answer.status_code == 500
            assert answer.json()["error"] == "This is a bug in the service (RuntimeError); its log shows more."
        assert not service.files()


def test_the_command_serves_until_it_is_stopped(clips, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "examples/serve.py",
        "--model",
        "av_fusion.puppets",
        "--faces",
        "none",
        "--port",
        f"{port}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:

        def healthy():
            assert process.poll() is None, process.stderr.read()
            try:
                return httpx.get(f"{address}/health").status_code == 200
            except httpx.ConnectError:
                return False

        try:
            assert any(healthy() or time.sleep(0.3) for _ in range(300))
            with clips[0].open("rb") as stream:
                answer = httpx.post(f"{address}/predict", files={"clip": stream}, timeout=60)
            assert answer.json()["source"] == clips[0].name
        finally:
            process.send_signal(signal.SIGTERM)
            log = process.communicate(timeout=60)[1]
    assert "Traceback" not in log and not list(Path(tmp_path).glob("dfer_zoo_serve_*"))


def blocks(language):
    """Return the code blocks of docs/serve.md that need the service."""
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    return re.findall(rf"<!-- runs against the service -->\n```{language}\n(.*?)```", text, re.DOTALL)


def test_the_code_of_the_page_runs(service, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(code.replace("http://127.0.0.1:8000", service.address), {})
    assert capsys.readouterr().out.startswith("happy {")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_commands_of_the_page_run(service, tmp_path):
    (commands,) = blocks("bash")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    commands = commands.replace("http://127.0.0.1:8000", service.address)
    commands = commands.replace("dfer-zoo ", f"{sys.executable} -m dfer_zoo ").replace("/predict\n", "/predict; echo\n")
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    predicted, health = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert predicted["source"] == "puppet.mp4" and len(predicted["windows"]) > 1 and health["status"] == "ok"


def test_a_wrong_option_is_one_sentence(capsys):
    with pytest.raises(SystemExit):
        serve.main(["--model", "nothing.at_all"])
    assert "There is no model 'nothing'" in capsys.readouterr().err
