"""Griffe extension for the reference: turn every doctest into an "Examples" section."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Rewrite docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_examples(obj.docstring.value)

    on_instance = on_object  # its name in older versions of griffe


def with_examples(text: str) -> str:
    """Add "Examples:" headings: without one, the Google parser renders a doctest as a quotation."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    if "Examples:" in text or not re.search(r"^>>> ", text, re.MULTILINE):
        return text
    before, doctest, after = re.split(
        r"(^>>> .*?)(?=\n\n(?!>>> )|\Z)", text, maxsplit=1, flags=re.MULTILINE | re.DOTALL
    )
    indented = re.sub(r"^(?=.)", "    ", doctest, flags=re.MULTILINE)
    return f"{before.rstrip()}\n{after.rstrip()}\n\nExamples:\n{indented}\n"
