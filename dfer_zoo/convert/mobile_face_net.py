"""Convert checkpoints of MobileFaceNet for landmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from . import Conversion
from .rename import rename

# (authors' module, ours): S2D uses the features up to conv_4
FEATURES = (
    (r"conv1", r"stem"),
    (r"conv2_dw", r"stem_depthwise"),
    (r"conv_23", r"down1"),
    (r"conv_3\.model\.(\d+)", r"stage1.\1"),
    (r"conv_34", r"down2"),
    (r"conv_4\.model\.(\d+)", r"stage2.\1"),
)
LANDMARKS = (
    (r"conv_45", r"down3"),
    (r"conv_5\.model\.(\d+)", r"stage3.\1"),
    (r"conv_6_sep", r"expand"),
    (r"output_layer\.conv_6_dw", r"pool"),
)
HEAD = {"output_layer.linear.": "head.linear.", "output_layer.bn.": "head.norm."}
LAYERS = {
    "conv.": "expand.",
    "conv_dw.": "depthwise.",
    "project.": "project.",
    "": "",
}  # of a unit; "" is a single layer
ENTRY = re.compile(r"((?:conv_dw\.|project\.|conv\.(?=conv\.|bn\.|prelu\.))?)(conv|bn|prelu)\.(\w+)")
KINDS = {"conv": "conv", "bn": "norm", "prelu": "act"}


def own_name(name: str) -> str | None:
    """Our name of an authors' entry, or None if it is unknown.

    Examples:
        >>> own_name("conv_3.model.0.conv_dw.bn.weight")
        'features.stage1.0.depthwise.norm.weight'
    """
    for theirs, ours in HEAD.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    for table, prefix in ((FEATURES, "features."), (LANDMARKS, "")):
        for theirs, ours in table:
            match = re.match(theirs + r"\.", name)
            entry = match and ENTRY.fullmatch(name, match.end())
            if match and entry:
                layer, kind, value = entry.groups()
                return f"{prefix}{match.expand(ours)}.{LAYERS[layer]}{KINDS[kind]}.{value}"
    return None


def convert_mobile_face_net(state: Mapping[str, Tensor]) -> Conversion:
    """All entries are used."""
    state["conv1.conv.weight"]  # a KeyError becomes an error message
    return Conversion(rename("mobile_face_net", state, own_name)[0])
