"""Every converter gives a one-line error for the file of every other architecture."""

import itertools
import re
from pathlib import Path

import pytest
import torch

from dfer_zoo.checkpoints import build
from dfer_zoo.convert import KEY_MAPS, convert_state_dict
from dfer_zoo.errors import InputError, WeightsError
from dfer_zoo.models.base import load_strictly
from tests.parity.runner import read_case

CASES = {
    "av_fusion": "av_fusion/model_ia_heads1",
    "efficient_face": "av_fusion/efficientface_7classes",
    "emo_affectnet": "emo_affectnet/video_64",
    "emo_affectnet_static": "emo_affectnet/static_64",
    "hicmae": "hicmae/finetune_base_6",
    "hicmae_pretrain": "hicmae/pretrain_base",
    "mae_dfer": "mae_dfer/finetune_lgi_7",
    "mae_dfer_pretrain": "mae_dfer/pretrain_lgi",
    "video_mae": "mae_dfer/finetune_vit_base_7",
    "mini_xception": "mini_xception/seeded_forward_64",
    "mma_dfer": "mma_dfer/dfew_64",
    "mae_face": "mma_dfer/maeface_base_gap",
    "audio_mae": "mma_dfer/audiomae_base_finetune_512",
    "dfer_clip": "dfer_clip/dfew_descriptor_ctx8_end_specific_depth1",
    "dk_clip": "dk_clip/tiny_t16_n4_7",
    "s2d": "s2d/dfew_224",
    "s2d_image": "s2d/dfew_224",
    "mobile_face_net": "s2d/landmark_112",
}


def authors_names(arch):
    """The names and shapes of the authors' file. Each entry is one expanded number, to save memory."""
    case = read_case(Path(__file__).parent / "parity" / f"{CASES[arch]}.json")
    table = case["landmark_state_dict" if arch == "mobile_face_net" else "state_dict"]
    if "temporal" in table:  # two files that the converter takes together
        table = {**table["static"], **table["temporal"]}
    if arch == "s2d_image":  # the video model's file without what is new in videos
        table = {n: entry for n, entry in table.items() if not re.match(r"temporal_|head\.|.*\.TMA\.", n)}
    types = {"float32": torch.float32, "int64": torch.int64}
    return {
        name: torch.full((), number, dtype=types[entry.get("dtype", "float32")]).expand(entry["shape"])
        for number, (name, entry) in enumerate(table.items())
    }


def test_every_converter_has_a_case():
    assert CASES.keys() == KEY_MAPS.keys()


@pytest.mark.parametrize("arch", sorted(KEY_MAPS))
@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2, 2)}], ids=["empty", "something else"])
def test_an_unknown_state_dict_is_an_error(arch, state):
    with pytest.raises(WeightsError) as caught:
        convert_state_dict(arch, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch, other", list(itertools.permutations(sorted(KEY_MAPS), 2)))
def test_a_file_of_another_architecture_is_an_error(arch, other):
    with pytest.raises(WeightsError) as caught:
        conversion = convert_state_dict(arch, authors_names(other))
        load_strictly(build(arch, conversion.model_args), conversion.state, "this file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", sorted(KEY_MAPS))
def test_an_unknown_entry_is_named(arch):
    state = authors_names(arch) | {"some.surplus.weight": torch.zeros(2)}
    with pytest.raises(WeightsError, match=r"some\.surplus\.weight"):
        convert_state_dict(arch, state)


@pytest.mark.parametrize("arch", sorted(KEY_MAPS))
def test_a_missing_entry_is_an_error(arch):
    """A weight in the middle of the network."""
    state = authors_names(arch)
    weights = [name for name, tensor in state.items() if tensor.ndim > 1]
    del state[weights[len(weights) // 2]]
    with pytest.raises(WeightsError):
        conversion = convert_state_dict(arch, state)
        load_strictly(build(arch, conversion.model_args), conversion.state, "this file")


@pytest.mark.parametrize(
    "arch, name, shape",
    [
        ("mma_dfer", "image_encoder.pos_embed", (203,)),
        ("mma_dfer", "our_classifier.weight", ()),
        ("mma_dfer", "temporal_net.temporal_transformer.layers.0.0.fn.fn.to_q.weight", (512, 3)),
        ("mae_face", "patch_embed.proj.weight", (768, 3, 1, 16, 16)),
        ("audio_mae", "patch_embed.proj.weight", (768, 1, 256, 256)),
        ("dfer_clip", "image_encoder.proj", (768,)),
    ],
)
def test_an_entry_of_a_wrong_shape_is_an_error(arch, name, shape):
    state = authors_names(arch)
    assert name in state
    with pytest.raises(WeightsError, match=f"not a checkpoint of {arch}.*shape") as caught:
        convert_state_dict(arch, {**state, name: torch.zeros(()).expand(shape)})
    assert "\n" not in str(caught.value)


def test_a_name_without_a_converter_is_an_error():
    with pytest.raises(InputError, match=r"'mma'.*Did you mean mma_dfer"):
        convert_state_dict("mma", {})
