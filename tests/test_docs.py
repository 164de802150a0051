"""The docs say what the manifest says, and their examples run."""

import re
from pathlib import Path

import pytest
import torch

from dfer_zoo.inference.export import is_supported
from tests.scripts import ROOT, load_script

RUNNABLE = re.compile(r"<!-- runs -->\n```python\n(.*?)```", re.DOTALL)


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def load_tables():
    return load_script("docs/tables.py")


def test_the_tables_are_those_of_the_manifest():
    stale = load_tables().stale_pages()
    assert not stale, f"run `python docs/tables.py`; stale: {[str(p.relative_to(ROOT)) for p in stale]}"


def test_a_changed_number_makes_a_page_stale():
    tables = load_tables()
    page = next(p for p in pages() if "<!-- results: mae_dfer -->" in p.read_text())
    text = page.read_text()
    number = re.search(r"\d\d\.\d\d", text[text.index("<!-- results: mae_dfer -->") :]).group()
    assert tables.rendered(text.replace(number, "99.99", 1)) == text


def test_every_model_has_a_page():
    tables = load_tables()
    from dfer_zoo.registry import MODELS

    for arch in MODELS:
        page = ROOT / "docs" / "models" / f"{tables.page_of(arch)}.md"
        assert arch in page.read_text(encoding="utf-8"), f"{page} does not mention {arch}"


def examples():
    return [(page, code) for page in pages() for code in RUNNABLE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page, code", examples(), ids=lambda v: v.stem if isinstance(v, Path) else None)
def test_the_example_runs(page, code, tmp_path, monkeypatch):
    if "export_onnx" in code and not is_supported(torch.__version__):
        pytest.skip("exporting needs torch 2.9")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
