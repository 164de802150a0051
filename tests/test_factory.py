"""create_model: names, strict loading, new heads, saving."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import dfer_zoo
from dfer_zoo.atomic import sha256_of
from dfer_zoo.errors import InputError, UnknownModel, UnknownTag, WeightsError
from dfer_zoo.models.base import load_strictly
from dfer_zoo.saving import unwrap
from dfer_zoo.weights.safetensors import METADATA_KEY, read_header
from tests import small

VIDEO = torch.rand(2, 3, 3, 4, 4)


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    """small with the bundled weights small.inside, and small.composed with these as backbone."""
    small.open_zoo(monkeypatch, tmp_path)
    torch.manual_seed(0)
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("small"), tmp_path / "saved")
    inside = small.record(
        "inside", distribution="bundled", filename=path.name, sha256=sha256_of(path), size=path.stat().st_size
    )
    composed = small.record("composed", distribution="composed", backbones={"body": "small.inside"})
    small.open_zoo(monkeypatch, tmp_path, inside, composed)
    monkeypatch.setattr("dfer_zoo.weights.fetch.BUNDLED", path.parent)
    return path


# -- names -------------------------------------------------------------------------------------------------------------


def test_every_form_of_a_name_gives_the_same_model(zoo, tmp_path):
    expected = load_file(zoo)["body.weight"]
    for name, options in [
        ("small", {"pretrained": "inside"}),
        ("small.inside", {}),
        ("small.inside", {"pretrained": "inside"}),
        (f"local-dir:{zoo.parent}", {}),
        ("small", {"checkpoint_path": zoo}),
        ("small", {"checkpoint_path": str(zoo)}),
    ]:
        model = dfer_zoo.create_model(name, **options)
        assert torch.equal(model.body.weight, expected), name
        assert model.labels == small.LABELS and not model.training
        assert model.pretrained_cfg is model.weights is not None
    assert dfer_zoo.create_model("small").pretrained_cfg is None


@pytest.mark.parametrize(
    "name, options, error, sentence",
    [
        ("smal", {}, UnknownModel, "Did you mean small"),
        ("smal", {"pretrained": "inside"}, UnknownModel, "Did you mean small"),
        ("small.insid", {}, UnknownTag, "'insid'. Did you mean inside"),
        ("small", {"pretrained": "insid"}, UnknownTag, "Did you mean inside"),
        ("small", {"pretrained": True}, UnknownTag, "small.*composed, inside"),
        ("other", {"pretrained": True}, UnknownTag, "other.*none"),
        ("small", {"pretrained": ""}, UnknownTag, "weights of small"),
        ("small.", {}, UnknownTag, "weights of small"),
        ("small.inside", {"pretrained": "composed"}, InputError, "small.inside.*composed|composed.*small.inside"),
        ("small", {"pretrained": "inside", "checkpoint_path": "x"}, InputError, "not both"),
        ("local-dir:x", {"pretrained": "inside"}, InputError, "names the weights"),
        ("hf-hub:a/b", {"checkpoint_path": "x"}, InputError, "names the weights"),
        ("owner/repo", {}, UnknownModel, "'local-dir:owner/repo' or 'hf-hub:owner/repo'"),
        ("./folder", {}, UnknownModel, "looks like a path"),
        ("local-dir:/nowhere", {}, WeightsError, "model.safetensors.*/nowhere"),
        ("small", {"checkpoint_path": "/nowhere.safetensors"}, WeightsError, "/nowhere.safetensors"),
        ("small", {"widht": 4}, InputError, "'widht'. Did you mean width"),
        ("small", {"pretrained": "inside", "widht": 4}, InputError, "Did you mean width"),
        ("small", {"num_classes": -1}, InputError, "num_classes is -1"),
        ("small", {"num_classes": 2.0}, InputError, "num_classes is 2.0;"),
        ("small", {"num_classes": True}, InputError, "num_classes is True;"),
        ("small", {"device": "toaster"}, InputError, "device 'toaster'"),
        ("small", {"dtype": "half"}, InputError, "dtype is 'half';.*torch.float32"),
        (None, {}, UnknownModel, "NoneType"),
        ("small", {"labels": "happiness"}, InputError, "labels is .*'happiness'"),
        ("small", {"labels": 3}, InputError, "labels is 3;"),
        ("small", {"labels": ("a", 1)}, InputError, "labels is .*list"),
        ("small", {"dtype": torch.int8}, InputError, "dtype is torch.int8;.*torch.float32"),
        ("small", {"labels": ["a", "a"]}, InputError, "not distinct"),
        ("small", {"labels": ["a", "b"], "num_classes": 3}, InputError, "num_classes is 3 .*2 labels"),
    ],
)
def test_wrong_names_and_arguments_are_one_line_errors(zoo, name, options, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        dfer_zoo.create_model(name, **options)
    assert "\n" not in str(caught.value)


# -- what is loaded ----------------------------------------------------------------------------------------------------


def test_labels_and_preprocessing_come_with_the_weights(zoo):
    """The record overrides the defaults of the constructor."""
    assert dfer_zoo.create_model("small").video_spec.sampling == "segment_centres"
    model = dfer_zoo.create_model("small.inside")
    assert model.video_spec == small.record().video
    assert model.weights.dataset == "DFEW"


def test_a_composed_model_reports_what_was_loaded(zoo):
    model = dfer_zoo.create_model("small.composed", num_classes=5)
    assert torch.equal(model.body.weight, load_file(zoo)["body.weight"])
    assert model.load_report.loaded == ("body.weight", "body.bias")
    assert model(VIDEO).shape == (2, 5)


def test_random_initialisation_is_skipped_when_weights_follow(zoo, monkeypatch):
    drawn = []
    monkeypatch.setattr(small.Small, "init_weights", lambda self: drawn.append(self))
    dfer_zoo.create_model("small.inside")
    assert drawn == []
    dfer_zoo.create_model("small")
    assert len(drawn) == 1


@pytest.mark.parametrize("change", [{"num_classes": 3}, {"labels": small.LABELS}, {"labels": list(small.LABELS)}, {}])
def test_the_published_head_is_kept_for_the_same_classes(zoo, change):
    model = dfer_zoo.create_model("small.inside", **change)
    assert torch.equal(model.classifier.weight, load_file(zoo)["classifier.weight"])
    assert model.labels == small.LABELS


@pytest.mark.parametrize("change", [{"num_classes": 8}, {"labels": ("a", "b")}, {"labels": small.LABELS[::-1]}])
def test_other_classes_or_another_order_replace_only_the_head(zoo, change):
    model = dfer_zoo.create_model("small.inside", **change)
    state = load_file(zoo)
    assert torch.equal(model.body.weight, state["body.weight"])
    assert model.classifier.weight.shape != state["classifier.weight"].shape or not torch.equal(
        model.classifier.weight, state["classifier.weight"]
    )
    assert model(VIDEO).shape == (2, model.num_classes)
    assert len(model.labels) == model.num_classes == change.get("num_classes", len(change.get("labels", ())))
    with pytest.raises(WeightsError, match=r"3 of another shape \(body.bias \(8,\) for \(9,\)"):
        dfer_zoo.create_model("small.inside", width=9, **change)


def test_device_and_dtype_are_applied(zoo):
    model = dfer_zoo.create_model("small.inside", dtype=torch.bfloat16, device="cpu", num_classes=4)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.steps.dtype == torch.int64
    assert dfer_zoo.create_model("small", device="meta").body.weight.is_meta


def test_a_model_shares_no_memory_with_its_file(zoo):
    """Training a loaded model does not change the file, and a new file does not change the model."""
    before = sha256_of(zoo)
    model = dfer_zoo.create_model("small.inside")
    with torch.no_grad():
        model.body.weight.zero_()
    assert sha256_of(zoo) == before
    again = dfer_zoo.create_model("small.inside")
    zoo.write_bytes(b"\0" * zoo.stat().st_size)
    assert again.body.weight.abs().sum() > 0


def test_a_file_in_half_precision_fills_a_model_in_single_precision_exactly(zoo, tmp_path):
    model = dfer_zoo.create_model("small.inside", dtype=torch.float16)
    path = dfer_zoo.save_pretrained(model, tmp_path / "half")
    assert load_file(path)["body.weight"].dtype == torch.float16
    again = dfer_zoo.create_model(f"local-dir:{path.parent}")
    assert again.body.weight.dtype == torch.float32
    assert torch.equal(again.body.weight, model.body.weight.float())


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_file_with_other_classes_does_not_fill_a_model(zoo, tmp_path):
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("small", num_classes=7), tmp_path / "seven")
    model = dfer_zoo.create_model("small", num_classes=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"num_classes=7.* 8"):
        dfer_zoo.load_weights(model, path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert model.weights is None
    assert dfer_zoo.create_model("small", checkpoint_path=path).num_classes == 7
    assert dfer_zoo.create_model("small", checkpoint_path=path, num_classes=8).num_classes == 8


def test_load_weights_fills_an_existing_model(zoo):
    model = dfer_zoo.create_model("small")
    assert dfer_zoo.load_weights(model, zoo) is model
    assert torch.equal(model.body.weight, load_file(zoo)["body.weight"])
    assert model.weights.tag == "local" and model.labels == small.LABELS


def test_weights_of_another_architecture_are_refused(zoo, tmp_path):
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("other"), tmp_path / "other")
    with pytest.raises(WeightsError, match=r"weights of other.*small"):
        dfer_zoo.create_model("small", checkpoint_path=path)
    with pytest.raises(WeightsError, match=r"weights of other.*Small"):
        dfer_zoo.load_weights(dfer_zoo.create_model("small"), path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_file_is_a_one_line_error(zoo, share):
    content = zoo.read_bytes()
    zoo.write_bytes(content[: int(share * len(content))])
    for name, options in [
        (f"local-dir:{zoo.parent}", {}),
        ("small", {"checkpoint_path": zoo}),
    ]:
        with pytest.raises(WeightsError, match="not a readable safetensors file") as caught:
            dfer_zoo.create_model(name, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"small.inside .*damaged.*sha256"):
        dfer_zoo.create_model("small.inside")


def test_the_error_for_a_wrong_digest_shows_both_digests(zoo):
    before = sha256_of(zoo)
    content = bytearray(zoo.read_bytes())
    content[-1] ^= 1
    zoo.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        dfer_zoo.create_model("small.inside")
    assert before in str(caught.value) and sha256_of(zoo) in str(caught.value)


def test_a_pickle_is_not_opened(zoo, tmp_path):
    torch.save(small.authors_state(), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"not a readable safetensors file.*dfer-zoo convert"):
        dfer_zoo.create_model("small", checkpoint_path=tmp_path / "model.pth")


def rewritten(path, change):
    """Change the header of the file."""
    header = read_header(path)
    change(header)
    save_file(load_file(path), path, metadata={METADATA_KEY: json.dumps(header)})
    return path


def test_a_file_without_our_header_is_refused(zoo):
    save_file(load_file(zoo), zoo)
    with pytest.raises(WeightsError, match=r"no dfer_zoo header.*dfer-zoo convert"):
        dfer_zoo.create_model("small", checkpoint_path=zoo)
    save_file(load_file(zoo), zoo, metadata={METADATA_KEY: "{"})
    with pytest.raises(WeightsError, match="not JSON"):
        dfer_zoo.create_model("small", checkpoint_path=zoo)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda h: h.update(arch="future"), "'future'"),
        (lambda h: h["model_args"].update(depth=3), "small with depth"),
        (lambda h: h.update(labels=["a", "b"]), "2 labels for 3 classes"),
        (lambda h: h.update(colour="blue"), r"unknown fields \['colour'\]"),
        (lambda h: h.pop("labels"), r"missing fields \['labels'\]"),
        (lambda h: h["model_args"].update(width=9), "of another shape"),
    ],
)
def test_a_header_that_does_not_fit_is_a_one_line_error(zoo, change, sentence):
    with pytest.raises(WeightsError, match=sentence):
        dfer_zoo.create_model(f"local-dir:{rewritten(zoo, change).parent}")


def test_a_header_older_than_a_field_is_read(zoo):
    path = rewritten(zoo, lambda header: header["video"].pop("face_crop"))
    assert dfer_zoo.create_model(f"local-dir:{path.parent}").video_spec.face_crop == "aligned"


def test_the_error_counts_every_kind_of_mismatch():
    model = small.Small()
    state = dict(model.state_dict())
    state["surplus"] = torch.zeros(1)
    state["steps"] = torch.zeros(())
    state["body.weight"] = torch.zeros(1, 1)
    del state["classifier.bias"]
    with pytest.raises(WeightsError) as caught:
        load_strictly(model, state, "this file")
    assert str(caught.value) == (
        "this file does not fit Small: 1 missing (classifier.bias); 1 unexpected (surplus); "
        "1 of another shape (body.weight (1, 1) for (8, 48)); "
        "1 of another kind (steps torch.float32 for torch.int64). Nothing was loaded."
    )


# -- saving ------------------------------------------------------------------------------------------------------------


def test_wrappers_are_removed_before_saving(zoo, tmp_path):
    model = dfer_zoo.create_model("small.inside")
    for wrapped in (torch.nn.DataParallel(model), torch.compile(model, backend="eager")):
        path = dfer_zoo.save_pretrained(wrapped, tmp_path / "wrapped")
        assert load_file(path).keys() == load_file(zoo).keys()
    with pytest.raises(InputError, match="Linear"):
        unwrap(torch.nn.Linear(1, 1))


def test_saving_is_reproducible_and_writes_three_files(zoo, tmp_path):
    model = dfer_zoo.create_model("small.inside", labels=("a", "b"))
    first = dfer_zoo.save_pretrained(model, tmp_path / "new" / "one").read_bytes()
    assert dfer_zoo.save_pretrained(model, tmp_path / "two").read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    again = dfer_zoo.create_model(f"local-dir:{tmp_path / 'two'}")
    assert again.labels == ("a", "b") and torch.equal(again(VIDEO), model(VIDEO))
    assert again.video_spec == model.video_spec


def test_a_failed_save_keeps_the_old_file(zoo, tmp_path, monkeypatch):
    path = dfer_zoo.save_pretrained(dfer_zoo.create_model("small.inside"), tmp_path / "x")
    before = path.read_bytes()

    def fails(*args, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr("dfer_zoo.weights.safetensors.save_file", fails)
    with pytest.raises(OSError, match="no space"):
        dfer_zoo.save_pretrained(dfer_zoo.create_model("small"), tmp_path / "x")
    assert path.read_bytes() == before
    assert sorted(found.name for found in path.parent.iterdir()) == ["README.md", "config.json", "model.safetensors"]
