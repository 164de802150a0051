"""The smallest useful configuration of every architecture, for tests that run all of them.

`TINY[arch]` are constructor arguments; a model made from them does a forward pass in well under a second.
"""

TINY: dict[str, dict] = {}

TINY["dk_clip"] = {
    "labels": ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear"),
    "num_frames": 4,
    "frames_per_snippet": 2,
    "img_size": 16,
    "patch_size": 8,
    "width": 64,
    "depth": 2,
    "embed_dim": 64,
    "text_width": 64,
    "text_depth": 2,
}

TINY["av_fusion"] = {"img_size": 32, "num_frames": 3, "seconds": 1.0, "num_heads": 2}
TINY["efficient_face"] = {"img_size": 64}

TINY["mini_xception"] = {"img_size": 32}
TINY["emo_affectnet_static"] = {"img_size": 32, "width_factor": 0.125}
TINY["emo_affectnet"] = {"img_size": 32, "width_factor": 0.125, "num_frames": 3}

TINY["mma_dfer"] = {"preset": "tiny", "img_size": 32, "num_classes": 5}
TINY["mae_face"] = {"preset": "tiny", "img_size": 32, "num_classes": 5}
TINY["audio_mae"] = {"preset": "tiny", "num_frames": 64, "num_classes": 5}

_small_clip = {"img_size": 64, "num_frames": 8, "width": 48, "depth": 2, "num_heads": 4}
TINY["video_mae"] = _small_clip
TINY["mae_dfer"] = {**_small_clip, "region": (2, 2, 4)}
TINY["mae_dfer_pretrain"] = {
    **TINY["mae_dfer"],
    "decoder_width": 36,
    "decoder_depth": 2,
    "decoder_heads": 3,
    "mask_ratio": 0.75,
}

TINY["hicmae"] = {
    "img_size": 32,
    "num_frames": 4,
    "width": 24,
    "depth": 2,
    "num_heads": 3,
    "audio_size": [64, 32],
    "audio_depth": 3,
    "fusion_depth": 1,
    "num_classes": 5,
}
TINY["hicmae_pretrain"] = {
    **{name: value for name, value in TINY["hicmae"].items() if name != "num_classes"},
    "decoder_width": 16,
    "decoder_heads": 2,
    "levels": [0, 1],
    "mask_ratio": 0.5,
    "audio_mask_ratio": 0.5,
}

TINY["dfer_clip"] = {
    "clip_model": {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
    },
    "num_frames": 4,
    "num_heads": 2,
    "num_contexts": 2,
}

TINY["s2d_image"] = {"img_size": 56, "patch_size": 4, "width": 32, "depth": 2, "num_heads": 2}
TINY["s2d"] = {**TINY["s2d_image"], "num_frames": 3}
TINY["mobile_face_net"] = {}
