"""The records: what they must say, and what happens when they do not."""

import dataclasses
import json

import pytest

import dfer_zoo
from dfer_zoo.errors import UnknownModel, UnknownTag, WeightsError
from dfer_zoo.registry import MODELS, get_weights, list_pretrained, manifest
from dfer_zoo.weights.manifest import manifest_path, read_manifest
from dfer_zoo.weights.record import AudioSpec, Metric, Origin, Weights
from tests import small

HUB = {"distribution": "hub", "repo_id": "a/b", "revision": "0" * 40, "filename": "f", "sha256": "0" * 64, "size": 1}


def row(**changes) -> dict:
    """One record as the manifest holds it."""
    audio = AudioSpec("kaldi_fbank", (1, 128, 128), sample_rate=16000, seconds=2.56)
    metrics = (Metric("uar", 70.5, "mean of 5 folds", "the paper, table 2"),)
    plain = small.record(arch="mma_dfer", audio=audio, metrics=metrics)
    return json.loads(json.dumps(dataclasses.replace(plain, **changes).to_dict()))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_the_manifest_of_this_repository_is_whole():
    records = read_manifest(manifest_path(), MODELS)
    for record in records.values():
        assert record.license and record.license_source
        assert record.metrics == tuple(m for m in record.metrics if m.protocol and m.source)
        assert record.distribution != "local"
        for source in record.backbones.values():
            assert source.startswith("open_clip:") or get_weights(source).distribution != "composed"


def test_a_number_stands_once_and_a_mean_of_folds_with_the_first_of_them():
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
def test_a_file_may_be_older_than_a_field_and_the_manifest_may_not(field):
    data = row()
    del data["video"][field]
    assert (
        getattr(Weights.from_header(data, "an older file").video, field) == {"rate": 1, "face_crop": "aligned"}[field]
    )
    with pytest.raises(WeightsError, match=rf"video: VideoSpec has missing fields \['{field}'\]"):
        Weights.from_dict(data)


def test_a_file_of_a_newer_version_says_so():
    data = row()
    data["video"]["antialias"] = True
    with pytest.raises(WeightsError, match=r"a file: video: .*unknown fields \['antialias'\].*another version"):
        Weights.from_header(data, "a file")


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("arch", 3, "expected str, found 3"),
        ("params", "many", "expected int"),
        ("params", True, "expected int"),
        ("labels", "happiness", "expected"),
        ("labels", [1, 2], r"labels\[0\]: expected str"),
        ("metrics", [{"name": "uar"}], "Metric has missing fields"),
        ("video", [], "expected an object"),
        ("fold", "one", "expected"),
        ("size", 1.5, "expected"),
        ("license", None, "expected str, found None"),
        ("backbones", {"face": 3}, r"backbones\[face\]: expected str, found 3"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(field, value, expected):
    with pytest.raises(WeightsError, match=expected):
        Weights.from_dict({**row(), field: value})


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({**HUB, "revision": "main"}, "not a full commit of 40 digits, so the weights could change"),
        ({**HUB, "revision": "0" * 39}, "not a full commit of 40 digits"),
        ({**HUB, "revision": None}, "not a full commit of 40 digits"),
        ({**HUB, "sha256": None}, "sha256 must not be null for the distribution 'hub'"),
        ({**HUB, "size": None, "filename": None}, "filename, size must not be null"),
        ({**HUB, "repo_id": None}, "repo_id must not be null"),
        ({**HUB, "sha256": "0" * 40}, "not 64 hexadecimal digits"),
        ({"origin": (Origin("page", "https://a.b", sha256="?"),)}, r"origin\[0\]: sha256 is '\?', not 64 hexadecimal"),
        ({"origin": (Origin("page", "https://a.b", size=-1),)}, r"origin\[0\]: size is -1"),
        ({"origin": (Origin("smb", "//a/b"),)}, r"origin\[0\]: kind 'smb' is not one of https, gdrive"),
        ({"origin": (Origin("https", "http://a.b/c.pth"),)}, "is not a https location"),
        ({"origin": (Origin("hub", "a/b@main/c.pt"),)}, "is not a hub location"),
        ({"origin": (Origin("gdrive_folder", "0123456789"),)}, "a gdrive_folder origin needs a member"),
        ({"distribution": "origin"}, "the distribution 'origin' needs an origin that can be fetched"),
        ({**HUB, "filename": "../../etc/passwd"}, "is not a path inside a repository"),
        ({**HUB, "filename": "/etc/passwd"}, "is not a path inside a repository"),
        ({**HUB, "size": -1}, "size is -1"),
        ({"params": -1}, "params is -1"),
        ({"labels": ("happy", "sad", "happy")}, "are not distinct"),
        ({"distribution": "ftp"}, "distribution 'ftp' is not one of"),
        ({"distribution": "composed"}, "'backbones' must be given for the distribution 'composed'"),
        ({**HUB, "backbones": {"face": "mae_face.released"}}, "must not be given for the distribution 'hub'"),
    ],
)
def test_an_identity_that_is_none_is_refused(changes, sentence):
    assert Weights.from_dict(row()) and Weights.from_dict(row(**{**HUB, "filename": "folds/model-1.safetensors"}))
    with pytest.raises(WeightsError, match=sentence):
        Weights.from_dict(row(**changes))


@pytest.mark.parametrize(
    "content, sentence",
    [
        ('[{"arch": ', "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ('{"arch": "mma_dfer"}', "is not a list of records"),
        ("[3]", "record 0: expected an object"),
        ("[{}]", "record 0: Weights has missing fields"),
    ],
)
def test_a_corrupted_manifest_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "weights_manifest.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError, match=sentence) as caught:
        read_manifest(path, MODELS)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be read.*Reinstall dfer_zoo"):
        read_manifest(tmp_path / "nothing.json", MODELS)


def test_the_same_weights_twice_are_refused(tmp_path):
    path = write(tmp_path / "m.json", [row(), row(tag="other"), row()])
    with pytest.raises(WeightsError, match=r"record 2: mma_dfer.converted is listed twice"):
        read_manifest(path, MODELS)


def test_weights_of_no_model_are_refused(tmp_path):
    path = write(tmp_path / "m.json", [row(arch="mma")])
    with pytest.raises(WeightsError, match="no model is called 'mma'"):
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


def test_near_spellings_are_offered(zoo):
    with pytest.raises(UnknownModel, match=r"no model 'smal'. Did you mean small"):
        get_weights("smal", "dfew_fold1")
    with pytest.raises(UnknownTag, match=r"small has no weights 'dfew_1'. Did you mean dfew_fold[12], dfew_fold[12]"):
        get_weights("small", "dfew_1")
    with pytest.raises(UnknownTag, match=r"Available: dfew_fold1, dfew_fold2, mafw_fold1\."):
        get_weights("small", "zzz")
    with pytest.raises(UnknownTag, match=r"small needs a tag. Available: dfew_fold1"):
        get_weights("small")


def test_every_model_of_the_registry_can_be_loaded():
    """The table names modules and classes as text; a slip there would be seen by users only."""
    from dfer_zoo.registry import model_class

    for name in MODELS:
        assert model_class(name).__module__.startswith("dfer_zoo.models.")
