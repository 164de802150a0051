"""Commands about weights: list, info, convert, verify."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ..errors import DferZooError
from .common import Command, table

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
    parser.add_argument("name", help='"mma_dfer", or with the weights: "mma_dfer.dfew_fold1"')
    parser.add_argument("--json", action="store_true", help="the records as they stand in the manifest, one per line")


def info_command(options: argparse.Namespace) -> int:
    from ..registry import check_name, get_weights, list_pretrained

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
        print(f'{arch}: no weights of it are listed. dfer_zoo.create_model("{arch}") makes a model to be trained.')
    return 0


def describe(record: Weights) -> str:
    """Everything that a user of these weights has to know, in plain text."""
    rows = [("weights", f"{record.name} ({record.params:,} parameters)")]
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
    rows += [("number", f"{m.name} {m.value:g} %: {m.protocol} ({m.source})") for m in record.metrics]
    if not record.metrics and (first := _first_fold(record)):
        rows.append(("number", f"none is published for this fold; the mean over the folds is with {first.name}"))
    rows.append(("licence", f"{record.license} ({record.license_source})"))
    rows.append(("comes as", record.distribution + (f", {record.repo_id}" if record.repo_id else "")))
    rows += [("origin", origin.link + (f" ({origin.member})" if origin.member else "")) for origin in record.origin]
    return table(rows)


def _first_fold(record: Weights) -> Weights | None:
    """Where a mean over the folds stands."""
    from ..registry import manifest

    folds = (r for r in manifest().values() if (r.arch, r.dataset) == (record.arch, record.dataset))
    return next((r for r in folds if r.fold == 1 and r.metrics), None)


def _numbers(record: Weights) -> str:
    return ", ".join(f"{m.name} {m.value:g}" for m in record.metrics)


def convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arch", metavar="ARCH", help='the architecture, such as "mma_dfer"')
    parser.add_argument("tag", metavar="TAG", help='which of its weights this is, such as "dfew_fold1"')
    parser.add_argument("file", metavar="FILE", help="the checkpoint as its authors publish it")
    own = parser.add_argument_group("a checkpoint of your own training with the authors' code (TAG is then any name)")
    own.add_argument("--output", metavar="FOLDER", help='where to write it; create_model("local-dir:FOLDER") reads it')
    own.add_argument("--labels", metavar="A,B,...", help="its classes in order, if they are not the published ones")


def convert_command(options: argparse.Namespace) -> int:
    from ..checkpoints import convert_checkpoint, convert_own
    from ..errors import InputError
    from ..registry import check_name

    check_name(options.arch)
    if options.output:
        labels = options.labels.split(",") if options.labels else None
        print(convert_own(options.arch, options.file, options.output, tag=options.tag, labels=labels))
    elif options.labels:
        raise InputError("--labels belongs to --output; published weights have their own labels.")
    else:
        print(convert_checkpoint(options.arch, options.tag, options.file))
    return 0


def verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='shell pattern, such as "mma*" or "*.dfew_fold1"')
    parser.add_argument("--cache-dir", help="where fetched files are, if not in the Hub's usual folder")


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
    print(f"{found} files, {damaged} damaged" if found else "There are no weights on this machine yet.")
    return 1 if damaged else 0


COMMANDS = {
    "list": Command("List models and pretrained weights.", list_options, list_command),
    "info": Command("Describe a model or one of its weights.", info_options, info_command),
    "convert": Command(
        "Convert the authors' checkpoint into weights that create_model finds.", convert_options, convert_command
    ),
    "verify": Command("Check the digests of all weights on this machine.", verify_options, verify_command),
}
