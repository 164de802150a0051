"""Writes the tables of the docs from the manifest: `python docs/tables.py`; with --check, says only what is stale.

A number stands once, in the manifest. A page asks for a table with a line `<!-- results: ARCH -->` (or `<!-- models -->`,
for the list of all models); what stands between that line and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dfer_zoo import registry  # noqa: E402
from dfer_zoo.registry import MODELS, manifest  # noqa: E402
from dfer_zoo.weights.provenance import digest, terms_of  # noqa: E402
from dfer_zoo.weights.record import Weights  # noqa: E402

MARK = re.compile(
    r"<!-- (results|recalls|systems|models|labels|puppets|provenance)(?:: (\w+))? -->\n(?:\s*\|.*?<!-- end -->\n)?",
    re.DOTALL,
)


def results(arch: str) -> str:
    """One row per number: weights, data set, number, how and by whom it was measured."""
    rows = [["weights", "metric", "%", "protocol", "source"]]
    for record in records_of(arch):
        if is_drawn(record):  # its numbers are not about people
            continue
        numbers = [m for m in record.metrics if not m.label]
        rows += [[f"`{record.tag}`", m.name.upper(), f"{m.value:.2f}", m.protocol, m.source] for m in numbers]
    return table(rows)


def recalls(arch: str) -> str:
    """One row per protocol: the recall of every class."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for record in records_of(arch):
        for m in record.metrics:
            if m.label:
                found.setdefault((record.tag, m.protocol, m.source), {})[m.label] = m.value
    longest = max(found.values(), key=len, default={})
    same = {"happy": "happiness", "sad": "sadness", "angry": "anger"}
    columns = [*dict.fromkeys(same.get(label, label) for label in (*longest, *(n for f in found.values() for n in f)))]
    rows = [["weights", "protocol", *columns, "source"]]
    for (tag, protocol, source), values in found.items():
        by_name = {same.get(label, label): value for label, value in values.items()}
        cells = [f"{by_name[name]:.2f}" if name in by_name else "" for name in columns]
        rows.append([f"`{tag}`", protocol, *cells, source])
    return table(rows)


def puppets() -> str:
    """The numbers of weights that were trained on drawn faces."""
    rows = [["weights", "metric", "%", "protocol"]]
    for record in filter(is_drawn, manifest().values()):
        rows += [[f"`{record.name}`", m.name.upper(), f"{m.value:.2f}", m.protocol] for m in record.metrics]
    return table(rows)


def is_drawn(record: Weights) -> bool:
    return (record.dataset or "").startswith("puppets")


COLUMNS = ("DFEW", "FERV39k", "MAFW")  # the data sets that most systems are compared on


def systems(folder: str) -> str:
    """One row per system that answers with an emotion: input, published rates per data set, size, cost, licence, arrival."""
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
                    "; ".join(others),
                    f"{max(record.params for record in chosen) / 1e6:.1f} M",
                    f"{flops[arch]:.3g}" if flops[arch] < 100 else f"{flops[arch]:.0f}",
                    ", ".join(sorted({record.license for record in weights})),
                    ", ".join(sorted({record.distribution for record in weights})),
                ]
            )
    return table(rows)


def published_rates(records: list[Weights]) -> dict[str, str]:
    """The rates by data set: the mean over the folds where there are folds, else those of every file."""
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
            entry[2].setdefault(m.name, m.value)  # the first protocol that a record names
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
    return " / ".join(f"{values[name]:.2f}" if name in values else "-" for name in ("uar", "war"))


def input_of(record: Weights) -> str:
    """What a forward pass takes."""
    parts = []
    if record.video is not None:
        size, count = record.video.img_size, record.video.num_frames
        kind = registry.model_class(record.arch)
        parts.append(f"{'image' if 'image' in kind.inputs else f'{count} frames'}, {size} x {size}")
    if record.audio is not None:
        parts.append(f"sound ({record.audio.front_end}, {' x '.join(map(str, record.audio.shape))})")
    return "; ".join(parts)


def models(folder: str) -> str:
    """One row per architecture, linked to its page below this folder."""
    rows = [["model", "parameters", "weights", "how they come", "licence of the weights"]]
    for arch in sorted(MODELS):
        records = records_of(arch)
        rows.append(
            [
                f"[`{arch}`]({folder}models/{page_of(arch)}.md)",
                " / ".join(sorted({f"{r.params:,}" for r in records})),
                " ".join(f"`{r.tag}`" for r in records),
                ", ".join(sorted({r.distribution for r in records})),
                ", ".join(sorted({r.license for r in records})),
            ]
        )
    return table(rows)


def labels(arch: str) -> str:
    """One row per set of labels: the order is the index order."""
    rows = [["weights", "labels, by index"]]
    sets: dict[tuple[str, ...], list[str]] = {}
    for record in records_of(arch):
        sets.setdefault(record.labels, []).append(f"`{record.tag}`")
    for names, tags in sets.items():
        rows.append([" ".join(tags), ", ".join(f"{i} {name}" for i, name in enumerate(names))])
    return table(rows)


def provenance_table() -> str:
    """One row per weights: what is known of their past."""
    rows = [["weights", "trained on", "licence, and where it is stated", "not known", "digest", "opened by us"]]
    for _, record in sorted(manifest().items()):
        rows.append(
            [
                f"`{record.name}`",
                "; ".join(f"{name} ({terms_of(name)})" for name in record.training_data) or "not stated",
                f"{record.license}: {record.license_source}",
                "; ".join(record.open_questions) or "-",
                re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1...", digest(record)),
                "yes" if record.opened else "no",
            ]
        )
    return table(rows)


def records_of(arch: str) -> list[Weights]:
    return [record for (name, _), record in sorted(manifest().items()) if name == arch]


def page_of(arch: str) -> str:
    """The page that describes an architecture: its own, or the one of the family that it belongs to."""
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
    """The page with its tables made anew; `folder` is where docs/ lies, seen from the page."""
    makers = {
        "results": results,
        "recalls": recalls,
        "systems": lambda _: systems(folder),
        "models": lambda _: models(folder),
        "labels": labels,
        "puppets": lambda _: puppets(),
    }
    makers["provenance"] = lambda _: provenance_table()

    def fill(match: re.Match) -> str:
        kind, arch = match.groups()
        mark = f"<!-- {kind}{f': {arch}' if arch else ''} -->\n"
        return f"{mark}\n{makers[kind](arch)}\n<!-- end -->\n"

    return MARK.sub(fill, text)


def stale_pages() -> dict[Path, str]:
    """Pages whose tables differ from the manifest, with what they should hold."""
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
