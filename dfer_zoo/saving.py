"""Write a model with everything that belongs to it, and publish it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from .atomic import write_atomically
from .errors import InputError
from .models.base import DferModel
from .registry import MODELS
from .weights.fetch import MODEL_FILE
from .weights.record import Metric, Weights
from .weights.safetensors import write_safetensors


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    tag: str = "local",
    dataset: str | None = None,
    fold: int | None = None,
    metrics: Sequence[Metric] = (),
    license: str = "unknown",
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and a model card into a folder.

    ``create_model("local-dir:folder")`` reads it back; `push_to_hub` publishes it. Wrappers of distributed training and
    of torch.compile are removed.

    Args:
        model: A model of the zoo, possibly wrapped.
        folder: The folder, created if needed.
        tag: The name of these weights.
        dataset: What they were trained on.
        fold: Which fold of it was held out.
        metrics: Measured numbers.
        license: An SPDX identifier.

    Returns:
        The path of ``model.safetensors``.

    Example:
        >>> import tempfile, dfer_zoo
        >>> save_pretrained(dfer_zoo.create_model("av_fusion"), tempfile.mkdtemp()).name
        'model.safetensors'
    """
    inner = unwrap(model)
    record = Weights(
        arch=arch_of(inner),
        tag=tag,
        distribution="local",
        repo_id=None,
        revision=None,
        filename=None,
        sha256=None,
        size=None,
        params=sum(p.numel() for p in inner.parameters()),
        model_args=inner.config(),
        labels=inner.labels,
        video=inner.video_spec,
        audio=inner.audio_spec,
        dataset=dataset,
        fold=fold,
        metrics=tuple(metrics),
        license=license,
        license_source="save_pretrained",
    )
    folder = Path(folder)
    write_safetensors(folder / MODEL_FILE, inner.state_dict(), record.to_dict())
    write_atomically(folder / "README.md", _model_card(record).encode())
    return folder / MODEL_FILE


def unwrap(model: nn.Module) -> DferModel:
    """The zoo's model inside DistributedDataParallel, DataParallel or torch.compile."""
    while not isinstance(model, DferModel):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            raise InputError(f"{type(model).__name__} is not a model of dfer_zoo.")
        model = inner
    return model


def arch_of(model: DferModel) -> str:
    for name, place in MODELS.items():
        module, _, cls = place.partition(":")
        if type(model).__name__ == cls and type(model).__module__.endswith(f".{module}"):
            return name
    raise InputError(f"{type(model).__name__} is not in the registry.")


def _model_card(record: Weights) -> str:
    numbers = "".join(f"- {m.name} {m.value:g} % ({m.protocol}; {m.source})\n" for m in record.metrics)
    return (
        f"---\nlibrary_name: dfer_zoo\nlicense: {record.license}\n---\n# {record.name}\n\n"
        f"{record.params:,} parameters, labels in order: {', '.join(record.labels)}.\n\n{numbers}\n"
        '```python\nimport dfer_zoo\n\nmodel = dfer_zoo.create_model("local-dir:.")\n```\n'
    )
