"""Commands for weights: list, info, fetch, convert, verify."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DferZooError, InputError
from .common import Command, parse_values, table

if TYPE_CHECKING:
    from ..weights.record import Weights


def list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, such as "mma*" or "*.dfew_fold1"')
    parser.add_argument("--pretrained", action="store_true", help="only the models that have weights")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")


def list_command(options: argparse.Namespace) -> int:
    from ..registry import list_models, list_pretrained

    tags: dict[str, list[str]] = {name: [] for name in list_models(options.pattern)}
    for arch, tag in list_pretrained(options.pattern):
        tags.setdefault(arch, []).append(tag)
    found = {arch: tags[arch] for arch in sorted(tags) if tags[arch] or not options.pretrained}
    if not found:
        raise DferZooError(f"Nothing matches '{options.pattern}'.")
    if options.json:
        for arch, names in found.items():
            print(json.dumps({"model": arch, "pretrained": names}))
    else:
        print(table([("MODEL", "PRETRAINED"), *((arch, " ".join(names) or "-") for arch, names in found.items())]))
    return 0


def info_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help='"mma_dfer", or with the weights "mma_dfer.dfew_fold1", or "local-dir:FOLDER"')
    parser.add_argument("--json", action="store_true", help="print the records of the manifest, one per line")


def info_command(options: argparse.Namespace) -> int:
    from ..registry import check_name, get_weights, list_pretrained

    if options.name.startswith("local-dir:"):
        from ..weights.fetch import MODEL_FILE
        from ..weights.safetensors import read_record  # imports torch

        record = read_record(Path(options.name.removeprefix("local-dir:")).expanduser() / MODEL_FILE)
        print(json.dumps(record.to_dict()) if options.json else describe(record))
        return 0
    arch, _, tag = options.name.partition(".")
    check_name(arch)
    records = [get_weights(arch, tag)] if tag else [get_weights(*pair) for pair in list_pretrained(arch)]
    if options.json:
        for record in records:
            print(json.dumps(record.to_dict()))
    elif tag:
        print(describe(records[0]))
    elif records:
        numbers = [(r.tag, f"{r.params / 1e6:.1f} M", _numbers(r) or "-", r.license) for r in records]
        print(f"{arch}\n\n{table([('WEIGHTS', 'PARAMETERS', 'PUBLISHED', 'LICENCE'), *numbers])}")
        print(f"\nMore about one of them: dfer-zoo info {arch}.{records[0].tag}")
    else:
        print(f'{arch}: no pretrained weights. dfer_zoo.create_model("{arch}") creates a model to train.')
    return 0


def describe(record: Weights) -> str:
    """Describe a record in plain text."""
    from ..weights.provenance import provenance

    rows = [("weights", f"{record.name} ({record.params:,} parameters)")]
    if record.caution:
        rows.append(("caution", record.caution))
    if record.dataset:
        rows.append(("data set", record.dataset + (f", fold {record.fold}" if record.fold is not None else "")))
    rows.append(("labels", ", ".join(record.labels) or "none: these are features"))
    if (video := record.video) is not None:
        rate = "" if video.fps is None else f" at {video.fps:g} frames per second"
        rows.append(
            ("video", f"{video.num_frames} frames of {video.img_size} x {video.img_size}, {video.sampling}{rate}")
        )
        rows.append(("", f"{video.resize}, {video.channel_order}, mean {video.mean}, std {video.std}"))
        rows.append(("face crop", video.face_crop))
    if (audio := record.audio) is not None:
        rate = "the file's own rate" if audio.sample_rate is None else f"{audio.sample_rate} Hz"
        length = "" if audio.seconds is None else f", {audio.seconds:g} s"
        rows.append(("audio", f"{audio.front_end} {tuple(audio.shape)} from {rate}{length}"))
    rows += [("number", f"{m.name} {m.value:g} %: {m.protocol} ({m.source})") for m in record.metrics if not m.label]
    recalls: dict[tuple[str, str], list[str]] = {}
    for metric in record.metrics:
        if metric.label:
            recalls.setdefault((metric.protocol, metric.source), []).append(f"{metric.label} {metric.value:g}")
    rows += [("recall", f"{', '.join(each)} %: {told} ({source})") for (told, source), each in recalls.items()]
    if not record.metrics and (first := _first_fold(record)):
        rows.append(("number", f"not published for this fold; see {first.name} for the mean over the folds"))
    rows += provenance(record)
    if record.caution:
        rows.append(("caution", record.caution))
    rows.append(("comes as", record.distribution + (f", {record.repo_id}" if record.repo_id else "")))
    rows += [("origin", origin.link + (f" ({origin.member})" if origin.member else "")) for origin in record.origin]
    return table(rows)


def _first_fold(record: Weights) -> Weights | None:
    """Return the record that contains the mean over the folds."""
    from ..registry import manifest

    folds = (r for r in manifest().values() if (r.arch, r.dataset) == (record.arch, record.dataset))
    return next((r for r in folds if r.fold == 1 and r.metrics), None)


def _numbers(record: Weights) -> str:
    return ", ".join(f"{m.name} {m.value:g}" for m in record.metrics if not m.label)


def fetch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help='"mma_dfer", "*.dfew_fold*", "av_fusion.demo"')
    parser.add_argument("--dry-run", action="store_true", help="only list sizes and licences")
    parser.add_argument("--keep", action="store_true", help="keep the authors' files after their conversion")
    parser.add_argument("--cache-dir", help="cache folder for files from the Hub")


def fetch_command(options: argparse.Namespace) -> int:
    from ..registry import get_weights, list_pretrained

    pairs = list_pretrained(options.patterns)
    if not pairs:
        raise DferZooError(f"No weights match {' '.join(options.patterns)}. `dfer-zoo list --pretrained` lists them.")
    records = [get_weights(*pair) for pair in pairs]
    if options.dry_run:
        print(table([("WEIGHTS", "HOW", "SIZE", "LICENCE", "FROM"), *map(_fetch_row, records)]))
        return 0
    return 1 if sum([not _fetched(record, options) for record in records]) else 0


def _fetched(record: Weights, options: argparse.Namespace) -> bool:
    """Fetch one record. On an error, print it and return False."""
    from ..checkpoints import backbone_state, convert_checkpoint
    from ..weights import fetch
    from ..weights.cache import Cache

    folder = Path(options.cache_dir) if options.cache_dir else None
    cache = Cache(folder, verify="once", keep=options.keep)
    try:
        if record.distribution == "composed":
            for source in record.backbones.values():
                backbone_state(source, cache)
            print(f"{record.name}  {', '.join(record.backbones.values())}")
        else:
            print(f"{record.name}  {fetch.fetch(record, cache, convert_checkpoint)}", flush=True)
        return True
    except DferZooError as error:
        print(f"dfer-zoo fetch: {error}", file=sys.stderr)
        return False


def _fetch_row(record: Weights) -> tuple[str, ...]:
    size = record.size or next((origin.size for origin in record.origin if origin.size), None)
    place = record.repo_id or record.origin_page or ", ".join(record.backbones.values()) or "inside the package"
    return record.name, record.distribution, _bytes(size), record.license, place


def _bytes(size: int | None) -> str:
    """
    >>> _bytes(3753900)
    '3.75 MB'
    """
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.3g} GB"


def convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arch", metavar="ARCH", help='the architecture, such as "mma_dfer"')
    parser.add_argument("tag", metavar="TAG", help='which of its weights this is, such as "dfew_fold1"')
    parser.add_argument(
        "file",
        metavar="FILE|URL|DRIVE-ID",
        nargs="?",
        help="the authors' checkpoint; by default it is downloaded from its origin",
    )
    own = parser.add_argument_group("a checkpoint that you trained with the authors' code (TAG is any name)")
    own.add_argument("--output", metavar="FOLDER", help='where to write it; create_model("local-dir:FOLDER") reads it')
    own.add_argument("--labels", metavar="A,B,...", help="class names in order, if not the published ones")
    own.add_argument(
        "--transform",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the VideoSpec that the file does not store, such as rate=1",
    )
    own.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the model that the file does not store, such as num_frames=8",
    )


def convert_command(options: argparse.Namespace) -> int:
    from ..checkpoints import convert_checkpoint, convert_own
    from ..registry import check_name

    check_name(options.arch)
    if (options.labels or options.transform or options.set) and not options.output:
        raise InputError("--labels, --transform and --set belong to --output; published weights have their own.")
    with _checkpoint_file(options) as file:
        if options.output:
            labels = options.labels.split(",") if options.labels else None
            transform, arguments = parse_values("--transform", options.transform), parse_values("--set", options.set)
            arch, folder = options.arch, options.output
            print(convert_own(arch, file, folder, tag=options.tag, labels=labels, transform=transform, **arguments))
        else:
            print(convert_checkpoint(options.arch, options.tag, file))
    return 0


@contextlib.contextmanager
def _checkpoint_file(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the file to convert. A downloaded file is deleted afterwards."""
    from ..registry import get_weights
    from ..weights import fetch, store
    from ..weights.origin import fetch_first, origin_of_link

    place = options.file
    if place is not None and ((origin := origin_of_link(place)) is None or Path(place).is_file()):
        yield Path(place)
        return
    name = f"{options.arch}.{options.tag}"
    with store.lock(name):
        folder = store.weights_folder() / "downloads" / (name if place is None else f"{name}.linked")
        if place is None:
            yield fetch.fetch_original(get_weights(options.arch, options.tag))
        else:
            assert origin is not None
            yield fetch_first(name, (origin,), folder)
        shutil.rmtree(folder, ignore_errors=True)


def publish_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help='"mma_dfer.dfew_fold1", or a folder written by save_pretrained'
    )
    parser.add_argument("--to", required=True, metavar="OWNER/REPO", help="the repository on the Hub")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--gated", action="store_true", help="users must accept conditions first")
    parser.add_argument(
        "--pull-request", action="store_true", help="open a pull request, for repositories that are not yours"
    )
    parser.add_argument(
        "--benchmark", metavar="OWNER/DATASET[:TASK]", help="also write the metrics for this benchmark on the Hub"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be published")
    parser.add_argument(
        "--i-have-permission", action="store_true", help="confirm that the authors allow it, if the licence does not"
    )


def publish_command(options: argparse.Namespace) -> int:
    from ..saving import push_to_hub

    done = push_to_hub(
        options.source,
        options.to,
        private=options.private,
        gated=options.gated,
        pull_request=options.pull_request,
        dry_run=options.dry_run,
        i_have_permission=options.i_have_permission,
        benchmark=options.benchmark,
    )
    print(table([("FILE", "SIZE"), *((name, _bytes(size)) for name, size in sorted(done.files.items()))]))
    print(f"\nsha256 of model.safetensors: {done.sha256}")
    if options.dry_run:
        print("Nothing was sent.")
        return 0
    if done.pull_request:
        print(f"pull request: {done.pull_request}")
    print(f'Downloaded again and compared. dfer_zoo.create_model("{done.name}")\n\n{done.manifest_diff}')
    return 0


def verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, such as "mma*" or "*.dfew_fold1"')
    parser.add_argument("--cache-dir", help="cache folder for files from the Hub")


def verify_command(options: argparse.Namespace) -> int:
    from ..registry import get_weights, list_pretrained
    from ..weights.cache import Cache
    from ..weights.fetch import check_present

    damaged = found = 0
    records = [get_weights(*pair) for pair in list_pretrained(options.pattern)]
    for name, path, fault in check_present(records, options.pattern, Cache(options.cache_dir)):
        found += 1
        damaged += fault is not None
        print(f"{name}  {path}  {fault or 'ok'}", flush=True)
    print(f"{found} files, {damaged} damaged" if found else "No weights on this machine yet.")
    return 1 if damaged else 0


COMMANDS = {
    "list": Command("List models and pretrained weights.", list_options, list_command),
    "info": Command("Describe a model or one of its weights.", info_options, info_command),
    "fetch": Command("Fetch weights, so that later calls need no network.", fetch_options, fetch_command),
    "convert": Command(
        "Convert the authors' checkpoint into weights that create_model finds.", convert_options, convert_command
    ),
    "publish": Command("Publish weights on the Hugging Face Hub.", publish_options, publish_command),
    "verify": Command("Check the digests of all weights on this machine.", verify_options, verify_command),
}
