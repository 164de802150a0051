"""Weights records: required fields, valid values, and the errors for all others."""

import dataclasses
import json

import pytest

import dfer_zoo
from dfer_zoo.errors import UnknownModel, UnknownTag, WeightsError
from dfer_zoo.registry import MODELS, get_weights, list_pretrained, manifest
from dfer_zoo.weights.manifest import manifest_path, read_manifest, write_manifest
from dfer_zoo.weights.record import AudioSpec, Metric, Origin, Weights
from dfer_zoo.weights.schema import SCHEMA
from tests import small

HUB = {"distribution": "hub", "repo_id": "a/b", "revision": "0" * 40, "filename": "f", "sha256": "0" * 64, "size": 1}


def row(**changes) -> dict:
    """A record in the format of the manifest."""
    audio = AudioSpec("kaldi_fbank", (1, 128, 128), sample_rate=16000, seconds=2.56)
    metrics = (Metric("uar", 70.5, "mean of 5 folds", "the paper, table 2"),)
    plain = small.record(arch="mma_dfer", audio=audio, metrics=metrics)
    return json.loads(json.dumps(dataclasses.replace(plain, **changes).to_dict()))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_every_record_in_the_manifest_is_complete():
    records = read_manifest(manifest_path(), MODELS)
    assert len(records) > 90
    for record in records.values():
        assert record.license and record.license_source
        assert all(metric.protocol and metric.source for metric in record.metrics)
        assert record.distribution != "local"
        for source in record.backbones.values():
            assert source.startswith("open_clip:") or get_weights(source).distribution != "composed"


def test_metrics_are_listed_once_and_fold_means_with_the_first_fold():
    numbers = [(r.arch, m.name, m.value, m.protocol) for r in manifest().values() for m in r.metrics]
    assert len(set(numbers)) == len(numbers)
    for record in manifest().values():
        for metric in record.metrics:
            assert "mean of the five folds" not in metric.protocol or record.fold == 1


def test_a_record_survives_json():
    record = Weights.from_dict(row())
    assert Weights.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert record.video == small.record().video and record.metrics[0].value == 70.5
    assert record.name == "mma_dfer.converted"


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Weights.from_dict(row()).tag = "other"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Weights)])
def test_a_missing_field_is_named(field):
    data = row()
    del data[field]
    with pytest.raises(WeightsError, match=rf"missing fields \['{field}'\]"):
        Weights.from_dict(data)


@pytest.mark.parametrize("place", ["", "video", "audio"])
def test_an_unknown_field_is_named(place):
    data = row()
    (data[place] if place else data)["colour"] = "blue"
    with pytest.raises(WeightsError, match=r"unknown fields \['colour'\]"):
        Weights.from_dict(data)


@pytest.mark.parametrize("field", ["rate", "face_crop"])
def test_old_headers_may_lack_a_field_and_the_manifest_may_not(field):
    data = row()
    del data["video"][field]
    assert (
        getattr(Weights.from_header(data, "an older file").video, field) == {"rate": 1, "face_crop": "aligned"}[field]
    )
    with pytest.raises(WeightsError, match=rf"video: .*missing fields \['{field}'\]"):
        Weights.from_dict(data)


def test_a_file_of_a_newer_version_says_so():
    data = row()
    data["video"]["antialias"] = True
    with pytest.raises(WeightsError, match=r"a file: video: .*unknown fields \['antialias'\].*another version"):
        Weights.from_header(data, "a file")


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("arch", 3, "arch.*str.* 3"),
        ("params", "many", "expected int"),
        ("params", True, "expected int"),
        ("labels", "happiness", "expected"),
        ("labels", [1, 2], r"labels\[0\]: .*str"),
        ("metrics", [{"name": "uar"}], "missing fields"),
        ("video", [], "object"),
        ("fold", "one", "expected"),
        ("size", 1.5, "expected"),
        ("license", None, "license.*str.*None"),
        ("backbones", {"face": 3}, r"backbones\[face\]: .*str.* 3"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(field, value, expected):
    with pytest.raises(WeightsError, match=expected):
        Weights.from_dict({**row(), field: value})


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({**HUB, "revision": "main"}, "not a 40-digit commit"),
        ({**HUB, "revision": "0" * 39}, "not a 40-digit commit"),
        ({**HUB, "revision": None}, "not a 40-digit commit"),
        ({**HUB, "sha256": None}, "sha256 must not be null .*'hub'"),
        ({**HUB, "size": None, "filename": None}, "filename, size must not be null"),
        ({**HUB, "repo_id": None}, "repo_id must not be null"),
        ({**HUB, "sha256": "0" * 40}, "not 64 hexadecimal digits"),
        ({"origin": (Origin("page", "https://a.b", sha256="?"),)}, r"origin\[0\]: sha256 is '\?'"),
        ({"origin": (Origin("page", "https://a.b", size=-1),)}, r"origin\[0\]: size is -1"),
        ({"origin": (Origin("smb", "//a/b"),)}, r"origin\[0\]: kind 'smb' .*https, gdrive"),
        ({"origin": (Origin("https", "http://a.b/c.pth"),)}, "https location"),
        ({"origin": (Origin("hub", "a/b@main/c.pt"),)}, "hub location"),
        ({"origin": (Origin("gdrive_folder", "0123456789"),)}, "gdrive_folder .*member"),
        ({"distribution": "origin"}, "distribution 'origin'"),
        ({**HUB, "filename": "../../etc/passwd"}, "passwd"),
        ({**HUB, "filename": "/etc/passwd"}, "passwd"),
        ({**HUB, "size": -1}, "size is -1"),
        ({"params": -1}, "params is -1"),
        ({"labels": ("happy", "sad", "happy")}, "not distinct"),
        ({"distribution": "ftp"}, "distribution 'ftp'"),
        ({"distribution": "composed"}, "'backbones' .*'composed'"),
        ({**HUB, "backbones": {"face": "mae_face.released"}}, "must not .*'hub'"),
    ],
)
def test_records_without_a_valid_identity_are_refused(changes, sentence):
    assert Weights.from_dict(row()) and Weights.from_dict(row(**{**HUB, "filename": "folds/model-1.safetensors"}))
    with pytest.raises(WeightsError, match=sentence):
        Weights.from_dict(row(**changes))


@pytest.mark.parametrize(
    "content, sentence",
    [
        ('[{"arch": ', "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ('{"arch": "mma_dfer"}', "not a list"),
        ("[3]", "record 0: .*object"),
        ("[{}]", "record 0: .*missing fields"),
    ],
)
def test_a_corrupted_manifest_is_a_one_line_error(tmp_path, content, sentence):
    path = tmp_path / "weights_manifest.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError, match=sentence) as caught:
        read_manifest(path, MODELS)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_is_a_one_line_error(tmp_path):
    with pytest.raises(WeightsError, match=r"nothing.json.*cannot be read"):
        read_manifest(tmp_path / "nothing.json", MODELS)


def test_the_same_weights_twice_are_refused(tmp_path):
    path = write(tmp_path / "m.json", [row(), row(tag="other"), row()])
    with pytest.raises(WeightsError, match=r"record 2: mma_dfer.converted"):
        read_manifest(path, MODELS)


def test_weights_of_an_unknown_model_are_refused(tmp_path):
    path = write(tmp_path / "m.json", [row(arch="mma")])
    with pytest.raises(WeightsError, match="'mma'"):
        read_manifest(path, MODELS)


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    small.open_zoo(monkeypatch, tmp_path, *(small.record(f"dfew_fold{n}") for n in (1, 2)), small.record("mafw_fold1"))


def test_names_and_tags_are_listed_by_pattern(zoo):
    assert list_pretrained("sm*") == [("small", "dfew_fold1"), ("small", "dfew_fold2"), ("small", "mafw_fold1")]
    assert list_pretrained("*.mafw*") == [("small", "mafw_fold1")]
    assert list_pretrained("mma_dfer") == []
    assert dfer_zoo.list_models(pretrained=True) == ["small"]
    assert "mma_dfer" in dfer_zoo.list_models("mma*")


def test_a_record_is_found_by_pair_and_by_name(zoo):
    assert get_weights("small", "dfew_fold2") is get_weights("small.dfew_fold2")


def test_unknown_names_suggest_similar_ones(zoo):
    with pytest.raises(UnknownModel, match=r"'smal'. Did you mean small"):
        get_weights("smal", "dfew_fold1")
    with pytest.raises(UnknownTag, match=r"'dfew_1'. Did you mean dfew_fold[12], dfew_fold[12]"):
        get_weights("small", "dfew_1")
    with pytest.raises(UnknownTag, match=r"dfew_fold1, dfew_fold2, mafw_fold1\."):
        get_weights("small", "zzz")
    with pytest.raises(UnknownTag, match=r"small.*dfew_fold1"):
        get_weights("small")


def test_every_model_of_the_registry_can_be_loaded():
    """The registry names modules and classes as text, so only an import finds a typo."""
    from dfer_zoo.registry import model_class

    for name in MODELS:
        assert model_class(name).__module__.startswith("dfer_zoo.models.")


# -- older schemas -----------------------------------------------------------------------------------------------------


def test_a_manifest_of_an_older_schema_is_read_like_the_current_one(tmp_path):
    current = row()
    second = {**current, "schema": 2, "model_args": {"frames": 16, "image_size": 64, "drop_path": 0.1}}
    first = {**second, "tag": "first", "distribution": "convert", "parts": {}, "origin_url": "https://a.b/c"}
    first |= {"origin_sha256": "0" * 64}
    for name in ("schema", "backbones", "origin", "caution", "training_data", "open_questions", "opened"):
        first.pop(name, None)
    video = dict(current["video"])
    first["video"] = {"frames": video.pop("num_frames"), "size": video.pop("img_size"), **video}
    path = tmp_path / "old.json"
    path.write_text(json.dumps([second, first]))
    records = read_manifest(path, MODELS)
    new, old = (records[second["arch"], tag] for tag in (second["tag"], "first"))
    renamed = {"num_frames": 16, "img_size": 64, "drop_path_rate": 0.1}
    assert new.schema == old.schema == SCHEMA and new.model_args == old.model_args == renamed
    assert old.distribution == "manual" and old.origin == (Origin("page", "https://a.b/c", sha256="0" * 64),)
    assert old.video == new.video and old.labels == new.labels == tuple(current["labels"])
    write_manifest(path, records.values())
    assert read_manifest(path, MODELS) == records  # upgraded once, then stable


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, "3", None, True, 10**400])
def test_a_record_of_an_unknown_schema_is_refused(schema):
    with pytest.raises(WeightsError, match=f"has schema .*reads 1 to {SCHEMA}"):
        Weights.from_dict({**row(), "schema": schema})
