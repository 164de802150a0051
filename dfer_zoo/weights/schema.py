"""The schema of records, and how to read older ones.

Weights files are kept for years, so records of every older schema stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import WeightsError

SCHEMA = 3


def upgraded(data: Any, where: str) -> Any:
    """Convert a record to the current schema. Anything but a mapping is returned as it is, and the reader refuses it.

    Args:
        data: The record as parsed JSON, in the current or an older schema.
        where: The file or record, for error messages.

    Returns:
        The record in the current schema.

    Raises:
        WeightsError: The record was written by a newer dfer_zoo.
    """
    if not isinstance(data, Mapping):
        return data
    schema = data.get("schema", 1 if "origin_url" in data or "parts" in data else SCHEMA)
    if not isinstance(schema, int) or isinstance(schema, bool) or not 1 <= schema <= SCHEMA:
        raise WeightsError(
            f"{where}: the record has schema {schema!r:.50}; this dfer_zoo reads 1 to {SCHEMA}. Update dfer_zoo."
        )
    if schema == 1:
        data = _from_1(data)
    return data if schema == SCHEMA else _from_2(data)


_DISTRIBUTIONS = {"convert": "manual", "embedded": "bundled", "backbone": "composed"}
_RENAMED = {"parts": "backbones"}
_IN_VIDEO = {"frames": "num_frames", "size": "img_size"}
_IN_AUDIO = {"missing": "silence_value"}


def _from_1(data: Mapping[str, Any]) -> dict[str, Any]:
    new = _renamed({name: value for name, value in data.items() if not name.startswith("origin_")}, _RENAMED)
    new["distribution"] = _DISTRIBUTIONS.get(str(new.get("distribution")), new.get("distribution"))
    for name, names in (("video", _IN_VIDEO), ("audio", _IN_AUDIO)):
        if isinstance(new.get(name), Mapping):
            new[name] = _renamed(new[name], names)
    new["origin"] = _origin_of_1(data)
    if new["distribution"] == "manual" and any(origin["kind"] != "page" for origin in new["origin"]):
        new["distribution"] = "origin"
    new |= {"caution": None, "training_data": [], "open_questions": [], "opened": False}
    return new


# renamed arguments of the models; no model had two of them with the same new name
_IN_MODEL_ARGS = {
    "frames": "num_frames",
    "max_frames": "num_frames",
    "heads": "num_heads",
    "temporal_heads": "num_heads",
    "image_size": "img_size",
    "drop": "drop_rate",
    "attn_drop": "attn_drop_rate",
    "drop_path": "drop_path_rate",
}


def _from_2(data: Mapping[str, Any]) -> dict[str, Any]:
    new = {**data, "schema": SCHEMA}
    if isinstance(new.get("model_args"), Mapping):
        new["model_args"] = _renamed(new["model_args"], _IN_MODEL_ARGS)
    return new


def _origin_of_1(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    url, digest = data.get("origin_url"), data.get("origin_sha256")
    if not isinstance(url, str):
        return []
    drive = re.match(r"https://drive\.google\.com/file/d/([\w-]+)", url)
    place = {"kind": "gdrive", "where": drive[1]} if drive else {"kind": "page", "where": url}
    return [{**place, "member": None, "size": None, "sha256": digest, "note": None}]


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in data.items()}
