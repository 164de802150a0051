"""Provenance of weights: training data and their terms, licence, open questions, digests."""

from __future__ import annotations

from .record import Weights

OWN_TERMS = "has its own terms of use; ask its authors"

# data set -> its terms, where we have read them
TERMS = {
    "RAVDESS": "CC BY-NC-SA 4.0",
    "VoxCeleb2": "has its own terms of use",
    "OpenAI CLIP's image-text pairs": "collected from the internet; never released",
    "FER2013": "a research data set of images from a web search; no terms are stated",
    "puppets (a drawn test object)": "drawn by this package; no person is in it",
}


def terms_of(dataset: str) -> str:
    """Return the terms of a data set.

    >>> terms_of("RAVDESS")
    'CC BY-NC-SA 4.0'
    """
    return TERMS.get(dataset, OWN_TERMS)


def provenance(record: Weights) -> list[tuple[str, str]]:
    """Return (name, value) rows about one record, for `dfer-zoo info` and the docs."""
    rows = [("trained on", f"{name}: {terms_of(name)}") for name in record.training_data] or [
        ("trained on", "not stated")
    ]
    rows.append(("licence", f"{record.license} ({record.license_source})"))
    rows += [("not known", question) for question in record.open_questions]
    rows.append(("digest", digest(record)))
    rows.append(("opened by us", "yes" if record.opened else "no, the authors of the zoo have not loaded this file"))
    return rows


def digest(record: Weights) -> str:
    """Say which digest a download is compared with."""
    if record.sha256:
        return f"of the converted file: {record.sha256}"
    if record.origin_sha256:
        return f"of the authors' file: {record.origin_sha256}"
    if record.backbones:
        return "those of its backbones"
    return "unknown: noted at the first use"
