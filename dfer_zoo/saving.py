"""Save models with their labels and preprocessing, and publish them on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from .atomic import write_atomically
from .errors import InputError
from .models.base import DferModel
from .registry import MODELS, get_weights
from .weights import store
from .weights.card import REPOSITORY, config_json, eval_results, model_card, without_folders
from .weights.fetch import MODEL_FILE, fetch
from .weights.publish import CONFIG_FILE, Publication, check_may_publish, publish
from .weights.record import CONVERTED, Metric, Weights
from .weights.safetensors import read_record, write_safetensors


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    tag: str = "local",
    dataset: str | None = None,
    fold: int | None = None,
    metrics: Sequence[Metric] = (),
    license: str = "unknown",
    caution: str | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and a model card into a folder.

    ``create_model("local-dir:folder")`` reads it back; `push_to_hub` publishes it. Wrappers of distributed training and
    of torch.compile are removed.

    Args:
        model: A model of the zoo, possibly wrapped.
        folder: The folder, created if needed.
        tag: The name of these weights.
        dataset: The training data set.
        fold: The held-out fold.
        metrics: Measured numbers.
        license: An SPDX identifier.
        caution: A known limitation; shown with every prediction.

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
        dataset=None if dataset is None else without_folders(dataset),
        fold=fold,
        metrics=tuple(
            replace(m, protocol=without_folders(m.protocol), source=without_folders(m.source)) for m in metrics
        ),
        license=license,
        license_source="save_pretrained",
        caution=caution,
    )
    folder = Path(folder)
    write_safetensors(folder / MODEL_FILE, inner.state_dict(), record.to_dict())
    write_atomically(folder / CONFIG_FILE, config_json(record))
    write_atomically(folder / "README.md", model_card(record).encode())
    return folder / MODEL_FILE


def unwrap(model: nn.Module) -> DferModel:
    """Return the model inside DistributedDataParallel, DataParallel or torch.compile."""
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


def push_to_hub(
    source: str | Path | nn.Module,
    repo_id: str,
    *,
    private: bool = False,
    gated: bool = False,
    pull_request: bool = False,
    dry_run: bool = False,
    i_have_permission: bool = False,
    benchmark: str | None = None,
) -> Publication:
    """Publish weights on the Hub: model.safetensors, config.json and a model card in one commit.

    The commit is read back and hashed. Log in with `hf auth login`, or set HF_TOKEN.

    Args:
        source: Weights on this machine ("mma_dfer.dfew_fold1"), a folder written by `save_pretrained`, or a model.
        repo_id: "owner/repo".
        private: Create the repository as a private one.
        gated: Users must accept conditions first.
        pull_request: Open a pull request, for repositories that are not yours.
        dry_run: Send nothing.
        i_have_permission: Confirm that the authors allow it, for weights whose licence does not.
        benchmark: A data set on the Hub, "owner/dataset" or "owner/dataset:task". The metrics of the record are also
            written to ``.eval_results``, for its leaderboard.

    Returns:
        The files, the pinned name, the digest, and the change of the manifest.

    Raises:
        InputError: The licence does not allow it, or the repository's name is not valid.
        WeightsUnavailable: The weights are not on this machine, or the Hub refuses.

    Example:
        >>> import dfer_zoo, tempfile
        >>> model = dfer_zoo.create_model("av_fusion")
        >>> sorted(push_to_hub(model, "me/my_model", dry_run=True).files)
        ['README.md', 'config.json', 'model.safetensors']
    """
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(source, nn.Module):
            source = save_pretrained(source, folder).parent
        record, path, card = _publishable(source, i_have_permission)
        files: dict[str, bytes | Path] = {
            "README.md": card.replace(REPOSITORY, f"{repo_id}@main").encode(),
            CONFIG_FILE: config_json(record),
            MODEL_FILE: path,
        }
        if benchmark is not None:
            files |= eval_results(record, benchmark)
        return publish(record, repo_id, files, private=private, gated=gated, pull_request=pull_request, dry_run=dry_run)


def _publishable(source: str | Path, i_have_permission: bool) -> tuple[Weights, Path, str]:
    """(record, model file, model card) of a tag or a folder."""
    folder = Path(source)
    if (folder / MODEL_FILE).is_file():
        path = folder / MODEL_FILE
        record = read_record(path)
        readme = folder / "README.md"
        card = readme.read_text(encoding="utf-8") if readme.is_file() else model_card(record)
        return record, path, card
    record = get_weights(str(source))
    if record.distribution not in (*CONVERTED, "bundled"):
        raise InputError(f"{record.name} has no local file to publish (distribution '{record.distribution}').")
    check_may_publish(record, i_have_permission)
    path = fetch(record)
    if record.distribution in CONVERTED:
        record = read_record(path)
    return (
        record,
        path,
        model_card(record, store.noted_digest(path) if record.distribution in CONVERTED else record.sha256),
    )
