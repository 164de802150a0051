"""Write the tables of the docs from the manifest: `python docs/tables.py`; `--check` only reports stale pages.

The manifest is the only source of numbers. A table replaces the text between a line such as `<!-- results: ARCH -->` or
`<!-- models -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dfer_zoo import registry  # noqa: E402
from dfer_zoo.cli import _parser  # noqa: E402
from dfer_zoo.registry import MODELS, manifest  # noqa: E402
from dfer_zoo.weights.provenance import digest, terms_of  # noqa: E402
from dfer_zoo.weights.record import Weights  # noqa: E402

MARK = re.compile(
    r"<!-- (results|recalls|systems|models|labels|orders|puppets|provenance|commands)(?:: (\w+))? -->\n"
    r"(?:(?:(?!<!-- ).)*<!-- end -->\n)?",
    re.DOTALL,
)


def results(arch: str) -> str:
    """Return one row per weights and test, with notes on the protocol and the source of each number."""
    rates: dict[tuple[str, str], dict[str, float]] = {}
    notes = Notes()
    for record in records_of(arch):
        for m in record.metrics:
            if not m.label and not is_drawn(record):  # exclude results on drawn clips
                test = notes.add(record.tag, m.protocol, m.source)
                rates.setdefault((record.tag, test), {}).setdefault(m.name, m.value)
    names = list(dict.fromkeys(name for values in rates.values() for name in values))
    rows = [["weights", "test", *(f"{name.upper() if len(name) < 4 else name}, %" for name in names), "note"]]
    for (tag, test), values in rates.items():
        cells = [f"{values[name]:.2f}" if name in values else "" for name in names]
        rows.append([f"`{tag}`", test, *cells, notes.of(tag, test)])
    return table(rows) + notes.listed() if rates else "No numbers are published.\n"


class Notes:
    """Split protocols into the test (data set, fold) and the rest, which becomes a numbered note."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.uses: dict[tuple[str, str], list[int]] = {}

    def add(self, tag: str, protocol: str, source: str) -> str:
        """Return the test. The rest of the protocol and the source become a note."""
        test, rest = re.fullmatch(r"([^,:;]*)[,:;]?\s*(.*)", protocol, re.DOTALL).groups()  # type: ignore[union-attr]
        if detail := re.search(r"\s*(\(epoch [^)]*\))", rest):  # differs from fold to fold
            test, rest = f"{test} {detail[1]}", rest.replace(detail[0], "")
        note = f"{rest[:1].upper()}{rest[1:]}{'. ' if rest else ''}Source: {source}."
        number = self.numbers.setdefault(note, len(self.numbers) + 1)
        used = self.uses.setdefault((tag, test), [])
        if number not in used:
            used.append(number)
        return test

    def of(self, tag: str, test: str) -> str:
        return ", ".join(map(str, self.uses[tag, test]))

    def listed(self) -> str:
        return "\n" + "".join(f"{number}. {note}\n" for note, number in self.numbers.items())


def recalls(arch: str) -> str:
    """Return one row per weights and test with the recall of every class. The style sheet turns the heads of the classes."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    notes = Notes()
    for record in records_of(arch):
        for m in record.metrics:
            if m.label:
                test = notes.add(record.tag, m.protocol, m.source)
                found.setdefault((record.tag, test), {})[canonical(m.label)] = m.value
    longest = max(found.values(), key=len, default={})
    columns = [*dict.fromkeys((*longest, *(name for values in found.values() for name in values)))]
    rows = [["weights", "test", *columns, "note"]]
    for (tag, test), values in found.items():
        cells = [f"{values[name]:.2f}" if name in values else "" for name in columns]
        rows.append([f"`{tag}`", test, *cells, notes.of(tag, test)])
    return f'<div class="recalls" markdown="1">\n\n{table(rows)}\n</div>\n{notes.listed()}'


SAME = {
    "happy": "happiness", "sad": "sadness", "angry": "anger", "fearful": "fear", "surprised": "surprise",
}  # fmt: skip


def canonical(label: str) -> str:
    return SAME.get(label, label)


def orders(name: str) -> str:
    """Return the labels of a data set by index, with one column per label order and the systems that use it."""
    columns: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for record in manifest().values():
        if dataset_of(record) == name:
            tags = columns.setdefault(record.labels, {}).setdefault(record.arch, [])
            tags.append(record.tag)
    several = {
        arch for held in columns.values() for arch in held if sum(arch in other for other in columns.values()) > 1
    }

    def head(held: dict[str, list[str]]) -> str:
        return ", ".join(f"`{arch}.{tags[0]}`" if arch in several else f"`{arch}`" for arch, tags in held.items())

    rows = [["index", *map(head, columns.values())]]
    for i in range(max(map(len, columns))):
        rows.append([str(i), *(labels[i] if i < len(labels) else "" for labels in columns)])
    return table(rows)


def dataset_of(record: Weights) -> str | None:
    """Return the name of the data set with the classes of these weights; None for weights without classes."""
    if not record.labels or len(record.labels) > 20:  # AudioSet's 527 classes are indices
        return None
    if record.arch in ("emo_affectnet", "s2d_image"):  # named after their corpora, but trained with these classes
        return "AffectNet"
    if record.arch == "av_fusion":
        return "RAVDESS"
    if record.tag.startswith("backbone"):
        return None
    return re.sub(r"\W", "_", record.dataset or "")


def puppets() -> str:
    """Return the results of weights that were trained on drawn faces."""
    rows = [["weights", "metric", "%", "protocol"]]
    for record in filter(is_drawn, manifest().values()):
        rows += [[f"`{record.name}`", m.name.upper(), f"{m.value:.2f}", m.protocol] for m in record.metrics]
    return table(rows)


def is_drawn(record: Weights) -> bool:
    return (record.dataset or "").startswith("puppets")


COLUMNS = ("DFEW", "FERV39k", "MAFW")  # the common benchmarks


def systems(folder: str) -> str:
    """Return one row per emotion classifier: input, published rates, size, cost, license and distribution."""
    flops = json.loads((ROOT / "docs" / "flops.json").read_text(encoding="utf-8"))
    rows = [["system", "input", *COLUMNS, "other data sets", "parameters", "GFLOP", "licence", "how it arrives"]]
    for arch in sorted(MODELS):
        records = [record for record in records_of(arch) if not is_drawn(record)]
        for kind in ("", "oversampled"):
            chosen = [record for record in records if record.tag.endswith("_oversampled") == bool(kind)]
            rates = published_rates(chosen)
            if not rates:
                continue
            weights = [record for record in chosen if record.distribution != "composed"] or chosen
            others = [f"{name} {rate}" for name, rate in rates.items() if name not in COLUMNS]
            rows.append(
                [
                    f"[`{arch}`]({folder}models/{page_of(arch)}.md){' ' + kind if kind else ''}",
                    input_of(chosen[0]),
                    *(rates.get(name, "") for name in COLUMNS),
                    "<br>".join(others),
                    f"{max(record.params for record in chosen) / 1e6:.1f} M",
                    f"{flops[arch]:.3g}" if flops[arch] < 100 else f"{flops[arch]:.0f}",
                    ", ".join(sorted({record.license for record in weights})),
                    ", ".join(sorted({record.distribution for record in weights})),
                ]
            )
    return table(rows)


def published_rates(records: list[Weights]) -> dict[str, str]:
    """Return the rates by data set: the mean over folds if there are folds, else the rates of every file."""
    found: dict[str, list[tuple[Weights, bool, dict[str, float]]]] = {}
    for record in records:
        for m in record.metrics:
            several = record.dataset is None or "," in record.dataset  # then the protocol names the data set
            name = re.split("[,:]", m.protocol)[0] if several else record.dataset
            if m.label or re.search(r"fold \d", str(name)):
                continue
            entries = found.setdefault(str(name), [])
            is_mean = re.search(r"mean of (the )?\w+ folds", m.protocol) is not None
            entry = next((e for e in entries if e[0] is record and e[1] == is_mean), None)
            if entry is None:
                entries.append(entry := (record, is_mean, {}))
            entry[2].setdefault(m.name, m.value)  # the first protocol of a record
    return {name: _rates(entries) for name, entries in found.items()}


def _rates(entries: list[tuple[Weights, bool, dict[str, float]]]) -> str:
    means = [values for _, is_mean, values in entries if is_mean]
    if means:
        return _rate(means[0])
    if len(entries) > 1 and all(record.fold is not None for record, _, _ in entries):
        names = entries[0][2]
        return _rate({name: sum(values[name] for _, _, values in entries) / len(entries) for name in names})
    if len(entries) == 1:
        return _rate(entries[0][2])
    return ", ".join(f"{_rate(values)} `{record.tag}`" for record, _, values in entries)


def _rate(values: dict[str, float]) -> str:
    if "accuracy" in values:
        return f"{values['accuracy']:.2f} (accuracy)"
    return "\u00a0/\u00a0".join(f"{values[name]:.2f}" if name in values else "-" for name in ("uar", "war"))


def input_of(record: Weights) -> str:
    """Describe the inputs of a forward pass."""
    parts = []
    if record.video is not None:
        size, count = record.video.img_size, record.video.num_frames
        kind = registry.model_class(record.arch)
        parts.append(f"{'image' if 'image' in kind.inputs else f'{count} frames'}, {size} x {size}")
    if record.audio is not None:
        parts.append(f"sound ({record.audio.front_end}, {' x '.join(map(str, record.audio.shape))})")
    return "; ".join(parts)


def models(folder: str) -> str:
    """Return one row per architecture, with a link to its page below this folder."""
    rows = [["model", "parameters", "weights", "how they come", "licence of the weights"]]
    for arch in sorted(MODELS):
        records = records_of(arch)
        rows.append(
            [
                f"[`{arch}`]({folder}models/{page_of(arch)}.md)",
                " / ".join(sorted({f"{r.params:,}" for r in records})),
                " ".join(f"`{r.tag}`" for r in records) or "none are published",
                ", ".join(sorted({r.distribution for r in records})),
                ", ".join(sorted({r.license for r in records})),
            ]
        )
    return table(rows)


def labels(arch: str) -> str:
    """Return one row per set of labels, in index order."""
    rows = [["weights", "labels, by index"]]
    sets: dict[tuple[str, ...], list[str]] = {}
    for record in records_of(arch):
        sets.setdefault(record.labels, []).append(f"`{record.tag}`")
    for names, tags in sets.items():
        rows.append([" ".join(tags), ", ".join(f"{i} {name}" for i, name in enumerate(names))])
    return table(rows)


def provenance(arch: str) -> str:
    """Return the provenance of all weights of an architecture; weights with equal facts are grouped."""
    groups: dict[str, list[str]] = {}
    for record in records_of(arch):
        groups.setdefault(facts(record), []).append(f"`{record.tag}`")
    return "".join(f"{', '.join(tags)}\n\n{text}\n" for text, tags in groups.items()).rstrip("\n") + "\n"


def facts(record: Weights) -> str:
    known = digest(record)
    shown = re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", known)
    facts = {
        "Trained on": trained_on(record),
        "Licence": f"{record.license} ({record.license_source})",
        "Not known": "; ".join(record.open_questions) or "nothing is open",
        "sha256": shown,
        "Opened by us": "yes" if record.opened else "no",
    }
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def trained_on(record: Weights) -> str:
    """Return the training data sets, grouped by their terms."""
    by_terms: dict[str, list[str]] = {}
    for name in record.training_data:
        by_terms.setdefault(terms_of(name), []).append(name)
    return "; ".join(f"{', '.join(names)} ({terms})" for terms, names in by_terms.items()) or "not stated"


def provenance_table(folder: str) -> str:
    """Return one row per architecture, with a link to the details."""
    rows = [["model", "weights", "trained on", "licence", "opened by us"]]
    for arch in sorted({arch for arch, _ in manifest()}):
        records = records_of(arch)
        data = dict.fromkeys(name for record in records for name in record.training_data)
        opened = [record.tag for record in records if record.opened]
        rows.append(
            [
                f"[`{arch}`]({folder}models/{page_of(arch)}.md#provenance)",
                str(len(records)),
                ", ".join(data) or "not stated",
                ", ".join(sorted({record.license for record in records})),
                ", ".join(f"`{tag}`" for tag in opened) or "none",
            ]
        )
    return table(rows)


def commands() -> str:
    """Return one section per command with its arguments and their help."""
    parts = []
    for parser in _leaves(_parser()):
        rows = [["argument", "meaning"]]
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            if action.option_strings and action.nargs != 0:
                shown = (
                    " or ".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
                )
                name += f" {shown}"
            rows.append([f"`{name}`", " ".join((action.help or "").split()).replace("%%", "%")])
        parts.append(f"## {parser.prog}\n\n{parser.description or ''}\n\n{table(rows)}")
    return "\n".join(parts)


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        about = {choice.dest: choice.help for choice in group._choices_actions}
        for name, child in group.choices.items():
            child.description = child.description or f"{str(about[name])[:1].upper()}{str(about[name])[1:]}."
            yield from _leaves(child)


def records_of(arch: str) -> list[Weights]:
    return [record for (name, _), record in sorted(manifest().items()) if name == arch]


def page_of(arch: str) -> str:
    """Return the page of an architecture or of its family."""
    pages = {path.stem for path in (ROOT / "docs" / "models").glob("*.md")}
    family = {
        "hicmae_pretrain": "hicmae",
        "mae_dfer_pretrain": "mae_dfer",
        "video_mae": "mae_dfer",
        "efficient_face": "av_fusion",
        "emo_affectnet_static": "emo_affectnet",
        "s2d_image": "s2d",
        "mobile_face_net": "s2d",
    }
    return arch if arch in pages else family.get(arch, "mma_dfer")


def table(rows: list[list[str]]) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rendered(text: str, folder: str = "") -> str:
    """Return the page with updated tables. `folder` is the path from the page to docs/."""
    makers = {
        "results": results,
        "recalls": recalls,
        "systems": lambda _: systems(folder),
        "models": lambda _: models(folder),
        "labels": labels,
        "orders": orders,
        "commands": lambda _: commands(),
        "puppets": lambda _: puppets(),
        "provenance": lambda arch: provenance(arch) if arch else provenance_table(folder),
    }

    def fill(match: re.Match) -> str:
        kind, arch = match.groups()
        mark = f"<!-- {kind}{f': {arch}' if arch else ''} -->\n"
        return f"{mark}\n{makers[kind](arch)}\n<!-- end -->\n"

    return MARK.sub(fill, text)


def stale_pages() -> dict[Path, str]:
    """Return pages whose tables differ from the manifest, with their updated text."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    folders = {page: "docs/" if page.parent == ROOT else "" for page in pages}
    return {page: new for page, text in texts.items() if (new := rendered(text, folders[page])) != text}


def main() -> int:
    stale = stale_pages()
    for page, text in stale.items():
        print(f"{'stale' if '--check' in sys.argv else 'wrote'}: {page.relative_to(ROOT)}")
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
