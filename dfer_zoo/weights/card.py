"""Model card and config.json of a repository on the Hub, generated from the record."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ..errors import InputError
from ..version import __version__
from .provenance import terms_of
from .record import Weights

REPOSITORY = "OWNER/REPO@main"  # replaced by the real name when it is known
PERMISSIVE = frozenset(
    {"mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
    | {"cc-by-nc-sa-4.0"}
)
UNSTATED = "no licence is stated for the file itself"  # one of a record's open questions


def may_be_shared(record: Weights) -> bool:
    """Whether the licence covers the file itself and allows redistribution."""
    return record.license.lower() in PERMISSIVE and UNSTATED not in record.open_questions


def config_json(record: Weights) -> bytes:
    """Return config.json. The Hub counts downloads by this file."""
    content = {
        "library_name": "dfer_zoo",
        "dfer_zoo_version": __version__,
        "architectures": [record.arch],
        "model_type": record.arch,
        "tag": record.tag,
        "model_args": dict(record.model_args),
        "num_labels": len(record.labels),
        "id2label": dict(enumerate(record.labels)),
        "label2id": {label: index for index, label in enumerate(record.labels)},
        "schema": record.schema,
    }
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def model_card(record: Weights, sha256: str | None = None) -> str:
    """Return the README of a repository on the Hub. ``sha256`` is the digest of model.safetensors."""
    sections = [
        f"# {record.name}",
        _summary(record),
        _usage(record),
        _inputs(record),
        _numbers(record),
        _training_data(record),
        _limits(record),
        _conversion(record, sha256),
        _licence(record),
    ]
    return f"---\n{_metadata(record)}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def without_folders(text: str) -> str:
    """Shorten absolute paths to their last part, so that a card does not show the author's folders.

    >>> without_folders("validation clips of /home/me/dfew/test.csv")
    'validation clips of test.csv'
    """
    return re.sub(r"(?<![\w:/.])(?:[A-Za-z]:)?(?:~|\.{1,2})?(?:[/\\][^\s/\\,;]+)*[/\\]([^\s/\\,;]+)", r"\1", text)


def _metadata(record: Weights) -> str:
    known = record.license.lower() in PERMISSIVE
    values: dict[str, Any] = {
        "library_name": "dfer_zoo",
        "pipeline_tag": "video-classification",
        "language": "en",
        "license": record.license.lower() if known else "other",
        "tags": ["dfer_zoo", record.arch, "facial-expression-recognition", "emotion-recognition"],
        "datasets": [slug for name in _data(record) if (slug := _slug(name))] or None,
        "base_model": _base_models(record) or None,
    }
    if not known:
        values["license_name"] = _slug(record.license) or "unknown"
        values["license_link"] = record.origin_page or "https://choosealicense.com/no-permission/"
    if record.metrics:
        values |= {
            "model_name": record.name,
            "eval_results": [_eval_result(record, metric) for metric in record.metrics],
        }
    return str(ModelCardData(**{name: value for name, value in values.items() if value is not None})).strip()


def eval_results(record: Weights, benchmark: str) -> dict[str, bytes]:
    """Return the published metrics as a file of ``.eval_results``, for the leaderboard of a benchmark on the Hub.

    Args:
        record: The weights.
        benchmark: The data set's repository on the Hub, "owner/dataset", or one of its tasks, "owner/dataset:task".

    Returns:
        The file's content by its path.

    Raises:
        InputError: The name is malformed, the weights have no published numbers, or the client is too old.

    >>> eval_results(get_weights("mma_dfer.dfew_fold1"), "someone/dfew").keys()  # doctest: +SKIP
    dict_keys(['.eval_results/dfew.yaml'])
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError as error:
        raise InputError("--benchmark needs a newer Hub client: pip install -U huggingface_hub.") from error
    repo_id, _, task = benchmark.partition(":")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise InputError(f"'{benchmark}' is not of the form 'owner/dataset' or 'owner/dataset:task'.")
    numbers = [metric for metric in record.metrics if not metric.label]
    if not numbers:
        raise InputError(f"{record.name} has no published numbers for the benchmark {benchmark}.")
    entries = [
        EvalResultEntry(
            dataset_id=repo_id,
            task_id=task or "default",
            value=metric.value,
            source_url=record.origin_page or "https://huggingface.co",
            source_name=metric.source,
            notes=f"{metric.name.upper()}, {metric.protocol}",
        )
        for metric in numbers
    ]
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    return {f".eval_results/{repo_id.partition('/')[2]}.yaml": text.encode()}


def _eval_result(record: Weights, metric: Any) -> EvalResult:
    return EvalResult(
        task_type="video-classification",
        dataset_type=_slug(record.dataset or "") or "unknown",
        dataset_name=record.dataset or "unknown",
        metric_type=metric.name,
        metric_value=metric.value,
        metric_name=f"{metric.name.upper()}, {metric.protocol}",
        source_name=metric.source,
        source_url=record.origin_page or "https://huggingface.co",
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _base_models(record: Weights) -> list[str]:
    """Return the origins on the Hub; the metadata takes no others."""
    return [o.where.partition("@")[0] for o in record.origin if o.kind == "hub"]


def _data(record: Weights) -> list[str]:
    return list(dict.fromkeys([*record.training_data, *([record.dataset] if record.dataset else [])]))


def _summary(record: Weights) -> str:
    data = f", trained on {record.dataset}" if record.dataset else ""
    fold = f" (fold {record.fold} held out)" if record.fold is not None else ""
    return f"Weights of `{record.arch}`{data}{fold} for dfer_zoo: {record.params:,} parameters."


def _usage(record: Weights) -> str:
    return (
        "## Use\n\n```python\nimport dfer_zoo\n\n"
        f'model = dfer_zoo.create_model("hf-hub:{REPOSITORY}")  # replace main by a commit to pin the file\n'
        "transform = dfer_zoo.create_transform(model)\n"
        'logits = model(**transform.batch(["clip.mp4"]))\n```'
    )


def _inputs(record: Weights) -> str:
    lines = ["## Inputs and labels", ""]
    if (video := record.video) is not None:
        lines.append(
            f"- video: {video.num_frames} frames of {video.img_size} x {video.img_size} ({video.sampling}, {video.resize}, "
            f"{video.channel_order}), face crop: {video.face_crop}"
        )
    if (audio := record.audio) is not None:
        rate = "the file's own rate" if audio.sample_rate is None else f"{audio.sample_rate} Hz"
        lines.append(f"- audio: {audio.front_end} of shape {tuple(audio.shape)} from {rate}")
    lines.append(f"- labels, by index: {', '.join(f'{i} {label}' for i, label in enumerate(record.labels)) or 'none'}")
    return "\n".join(lines)


def _numbers(record: Weights) -> str:
    if not record.metrics:
        return ""
    rows = [f"| {m.name.upper()} | {m.value:g} | {m.protocol} | {m.source} |" for m in record.metrics]
    return "\n".join(["## Numbers", "", "| metric | % | protocol | source |", "|---|---|---|---|", *rows])


def _training_data(record: Weights) -> str:
    rows = [f"- {name}: {terms_of(name)}" for name in _data(record)]
    return "\n".join(["## Training data", "", *rows]) if rows else ""


def _limits(record: Weights) -> str:
    lines = [record.caution] if record.caution else []
    lines += [f"- not known: {question}" for question in record.open_questions]
    lines.append(
        "A facial expression is not an emotion. Do not use the output of this model for decisions about people."
    )
    return "\n\n".join(["## Limits", *lines])


def _conversion(record: Weights, sha256: str | None) -> str:
    if not record.origin:
        return ""
    original = f" (sha256 `{record.origin_sha256}`)" if record.origin_sha256 else ""
    converted = f" The result has the sha256 `{sha256}`." if sha256 else ""
    return (
        f"## How the file was made\n\nConverted with dfer_zoo {__version__} from the authors' file at "
        f"{record.origin_page}{original}: `dfer-zoo convert {record.arch} {record.tag} FILE`. Names and layout changed, "
        f"values did not.{converted} The same command gives the same bytes on every machine."
    )


def _licence(record: Weights) -> str:
    return f"## Licence\n\n{record.license} ({record.license_source})"
