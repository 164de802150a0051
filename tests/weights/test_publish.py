"""Publishing with the real client, to a Hub on this machine that takes commits."""

import dataclasses
import json

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, _commit_api

import dfer_zoo
from dfer_zoo import cli
from dfer_zoo.atomic import sha256_of
from dfer_zoo.errors import InputError, WeightsError, WeightsUnavailable
from dfer_zoo.weights.record import Metric, Origin
from tests import small
from tests.weights import publish_hub

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(
        int(huggingface_hub.__version__.partition(".")[0]) < 1,
        reason="clients before 1.0 publish to the public Hub only, and not to a server on this machine",
    ),
]

AUTHORS = Origin("page", "https://example.org/weights")
METRICS = (Metric("uar", 66.85, "mean of the five folds", "the paper, table 2"),)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with publish_hub.serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(
            _commit_api, "is_xet_available", lambda: False, raising=False
        )  # the server stores files the older way
        yield running


@pytest.fixture
def converted(monkeypatch, tmp_path, checkpoint):
    """small.converted, converted from the authors' file, under a licence that allows sharing."""
    record = small.record(origin=(AUTHORS,), license="cc-by-nc-4.0", metrics=METRICS, training_data=("DFEW",))
    small.open_zoo(monkeypatch, tmp_path, record)
    (tmp_path / "fold1.pth").write_bytes(checkpoint)
    assert cli.main(["convert", "small", "converted", str(tmp_path / "fold1.pth")]) == 0
    return record


def test_published_weights_are_loaded_back_by_their_tag(hub, converted, monkeypatch, tmp_path):
    """Convert, publish, and load by tag with an empty cache: the logits are the same."""
    before = dfer_zoo.create_model("small.converted")
    done = dfer_zoo.push_to_hub("small.converted", "me/small_converted")
    assert done.name == f"hf-hub:me/small_converted@{done.revision}" and len(done.revision) == 40
    assert set(hub.commits) == {done.revision}  # one commit
    assert sorted(hub.commits[done.revision]) == ["README.md", "config.json", "model.safetensors"]
    assert (
        '+ "distribution": "hub",' in done.manifest_diff and f'+ "revision": "{done.revision}",' in done.manifest_diff
    )
    small.open_zoo(monkeypatch, tmp_path / "empty", done.record)
    cache = tmp_path / "empty" / "cache"
    video = torch.rand(2, 3, 3, 4, 4)
    for name in ("small.converted", done.name):
        model = dfer_zoo.create_model(name, cache_dir=cache)
        assert torch.equal(model(video), before(video)) and model.labels == small.LABELS
    assert any("dfer_zoo/" in agent for agent in hub.agents)


def test_the_model_card_describes_the_file(hub, converted, tmp_path):
    done = dfer_zoo.push_to_hub("small.converted", "me/small_converted")
    text = hub.commits[done.revision]["README.md"].decode()
    card = ModelCard(text)
    assert card.data.library_name == "dfer_zoo" and card.data.pipeline_tag == "video-classification"
    assert card.data.license == "cc-by-nc-4.0" and card.data.datasets == ["dfew"]
    assert card.data.eval_results[0].metric_value == 66.85
    assert 'dfer_zoo.create_model("hf-hub:me/small_converted@main")' in text
    assert "| UAR | 66.85 | mean of the five folds | the paper, table 2 |" in text
    assert "0 happiness, 1 sadness, 2 neutral" in text and "https://example.org/weights" in text
    assert done.sha256 in text and sha256_of(tmp_path / "fold1.pth") in text  # both digests
    assert str(tmp_path) not in text and "local-dir" not in text


def test_the_config_names_labels_and_arguments(hub, converted):
    done = dfer_zoo.push_to_hub("small.converted", "me/small_converted")
    config = json.loads(hub.commits[done.revision]["config.json"])
    assert config["id2label"] == {"0": "happiness", "1": "sadness", "2": "neutral"}
    assert config["architectures"] == ["small"] and config["library_name"] == "dfer_zoo"
    assert config["model_args"] == {"num_classes": 3, "width": 8}


def test_a_folder_of_save_pretrained_is_published(hub, monkeypatch, tmp_path):
    small.open_zoo(monkeypatch, tmp_path)
    model = dfer_zoo.create_model("small", labels=("calm", "tense"))
    folder = tmp_path / "runs" / "best"
    numbers = [Metric("uar", 50.0, f"clips of {tmp_path}/valid.csv", str(tmp_path / "valid.csv"))]
    dfer_zoo.save_pretrained(model, folder, dataset=str(tmp_path / "train.csv"), metrics=numbers, license="mit")
    assert (folder / "config.json").is_file()
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path  # nobody learns where the files were
    done = dfer_zoo.push_to_hub(folder, "me/mine", private=True, gated=True)
    assert hub.created[0]["name"] == "mine" and "private" in json.dumps(hub.created[0])
    assert hub.settings == [{"gated": "auto"}]
    again = dfer_zoo.create_model(done.name, cache_dir=tmp_path / "cache")
    assert again.labels == ("calm", "tense")
    assert 'create_model("hf-hub:me/mine@main")' in hub.commits[done.revision]["README.md"].decode()


def test_weights_can_be_offered_as_a_pull_request(hub, converted):
    done = dfer_zoo.push_to_hub("small.converted", "authors/theirs", pull_request=True)
    assert hub.pull_requests == ["authors/theirs"] and hub.created == []
    assert done.pull_request == f"{hub.url}/authors/theirs/discussions/1"


@pytest.mark.parametrize(
    "changes", [{"license": "unknown"}, {"open_questions": ("no licence is stated for the file itself",)}]
)
def test_weights_without_a_licence_need_their_authors_permission(hub, converted, monkeypatch, tmp_path, changes):
    small.open_zoo(monkeypatch, tmp_path, dataclasses.replace(converted, **changes))
    with pytest.raises(InputError, match=r"permission.*--i-have-permission"):
        dfer_zoo.push_to_hub("small.converted", "me/small_converted")
    assert hub.created == []
    assert dfer_zoo.push_to_hub("small.converted", "me/small_converted", i_have_permission=True).revision


def test_a_dry_run_sends_nothing(hub, converted, capsys):
    assert cli.main(["publish", "small.converted", "--to", "me/small_converted", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "model.safetensors" in said and "Nothing was sent." in said and hub.created == [] and not hub.commits


def test_the_command_prints_the_pinned_name_and_the_manifests_change(hub, converted, capsys):
    assert cli.main(["publish", "small.converted", "--to", "me/small_converted"]) == 0
    said = capsys.readouterr().out
    revision = next(iter(hub.commits))
    assert f"hf-hub:me/small_converted@{revision}" in said and '+ "repo_id": "me/small_converted",' in said


def test_metrics_are_published_to_a_benchmark(hub, converted, capsys):
    if not hasattr(huggingface_hub, "EvalResultEntry"):
        with pytest.raises(InputError, match="newer"):
            dfer_zoo.push_to_hub("small.converted", "me/small_converted", benchmark="someone/dfew")
        return
    assert (
        cli.main(["publish", "small.converted", "--to", "me/small_converted", "--benchmark", "someone/dfew:fold1"]) == 0
    )
    (files,) = hub.commits.values()
    (entry,) = huggingface_hub.parse_eval_result_entries(yaml.safe_load(files[".eval_results/dfew.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("someone/dfew", "fold1", 66.85)
    assert entry.notes == "UAR, mean of the five folds" and entry.source_name == "the paper, table 2"
    with pytest.raises(InputError, match="'owner/dataset'"):
        dfer_zoo.push_to_hub("small.converted", "me/small_converted", benchmark="dfew")


def test_a_refusal_of_the_hub_is_a_one_line_error(hub, converted, capsys):
    hub.fault = "forbidden"
    with pytest.raises(WeightsUnavailable, match="access to me/small_converted"):
        dfer_zoo.push_to_hub("small.converted", "me/small_converted")


def test_a_file_that_comes_back_changed_is_an_error(hub, converted):
    hub.fault = "changes files"
    with pytest.raises(WeightsError, match=r"model.safetensors .*sha256"):
        dfer_zoo.push_to_hub("small.converted", "me/small_converted")


@pytest.mark.parametrize("name", ["small", "../small", "me/../small", "me/a b"])
def test_malformed_repository_names_are_refused(hub, converted, name):
    with pytest.raises(InputError, match=r"not a valid repository name|'owner/repo'"):
        dfer_zoo.push_to_hub("small.converted", name)


def test_weights_that_are_not_on_this_machine_cannot_be_published(hub, monkeypatch, tmp_path):
    small.open_zoo(monkeypatch, tmp_path, small.record(license="mit"))
    with pytest.raises(WeightsUnavailable, match=r"small.converted .*not on this machine"):
        dfer_zoo.push_to_hub("small.converted", "me/small_converted")
