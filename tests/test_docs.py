"""The docs say what the manifest says, and their code runs."""

import ast
import re

import pytest
import torch

import dfer_zoo
from dfer_zoo.inference.export import is_supported
from dfer_zoo.registry import MODELS, manifest
from tests import docs_world
from tests.docs_world import RUN, SHOWN, blocks, commands, pages, run_page
from tests.scripts import ROOT, load_script


@pytest.fixture(scope="module")
def tables():
    return load_script("docs/tables.py")


def test_the_tables_are_those_of_the_manifest(tables):
    stale = tables.stale_pages()
    assert not stale, f"run `python docs/tables.py`; stale: {[str(p.relative_to(ROOT)) for p in stale]}"


def test_a_changed_number_makes_a_page_stale(tables):
    page = ROOT / "docs" / "models" / "mae_dfer.md"
    text = page.read_text(encoding="utf-8")
    number = re.search(r"\d\d\.\d\d", text[text.index("<!-- results: mae_dfer -->") :]).group()
    assert tables.rendered(text.replace(number, "99.99", 1)) == text


# -- systems -----------------------------------------------------------------------------------------------------------


def test_every_model_has_a_page_with_its_drawing_and_its_provenance(tables):
    for arch in MODELS:
        text = (ROOT / "docs" / "models" / f"{tables.page_of(arch)}.md").read_text(encoding="utf-8")
        assert f"`{arch}`" in text or arch in text
        for theme in ("light", "dark"):
            assert f"(../pictures/{arch}_{theme}.svg#only-{theme})" in text, (
                f"{arch} has no {theme} drawing on its page"
            )
        if any(record.arch == arch for record in manifest().values()):
            assert f"<!-- provenance: {arch} -->" in text, f"{arch} has no provenance on its page"


def test_the_drawings_are_those_of_the_script():
    diagrams = load_script("docs/diagrams.py")
    assert set(diagrams.DIAGRAMS) == set(MODELS)
    stale = [path.name for path, svg in diagrams.pictures().items() if path.read_text(encoding="utf-8") != svg]
    assert not stale, f"run `python docs/diagrams.py`; stale: {stale}"


def test_the_drawn_layers_are_those_of_the_imports():
    rows = load_script("docs/diagrams.py").OTHERS["imports"].rows
    row_of = {box.name: number for number, row in enumerate(rows) for box in row}
    graph = load_script("docs/import_graph.py")
    arrows = [(above, below) for above, lower in graph.folders().items() for below in lower]
    for above, below in ((a, b) for a, b in arrows if not {a, b} & graph.HIDDEN):
        assert row_of[above] < row_of[below], f"{above} imports {below}: move it up in docs/diagrams.py"


def test_no_text_of_a_drawing_is_wider_than_its_box():
    diagrams = load_script("docs/diagrams.py")
    for name, diagram in (diagrams.DIAGRAMS | diagrams.OTHERS).items():
        diagram.place()
        for box in diagram.boxes().values():
            room = box.right - box.left - 8
            assert len(box.title) * diagrams.TITLE * 0.6 <= room, f"{name}: {box.title}"
            assert all(len(line) * diagrams.LINE * 0.5 <= room for line in box.lines), f"{name}: {box.lines}"


def test_every_label_order_is_in_the_comparison(tables):
    text = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    for record in manifest().values():
        name = tables.dataset_of(record)
        assert name is None or "puppets" in name or f"<!-- orders: {name} -->" in text, record.name


# -- the reference -----------------------------------------------------------------------------------------------------


def test_every_public_name_is_on_a_reference_page():
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    snapshot = (ROOT / "tests" / "api.txt").read_text(encoding="utf-8")
    names = {match[1] for match in re.finditer(r"^(\w+)\(", snapshot, re.MULTILINE)}
    assert names == set(dfer_zoo.__all__) - {"__version__"}
    for name in sorted(names):
        home = getattr(dfer_zoo, name).__module__
        is_error = home == "dfer_zoo.errors" and f"{name}" in reference
        assert is_error or f"::: {home}.{name}\n" in reference + "\n", f"{name} is on no reference page"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = set(re.findall(r"([\w/]+\.md)$", navigation, re.MULTILINE))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == there


def test_the_site_loads_nothing_from_other_hosts():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "\n  font: false\n" in settings  # else the theme loads fonts of Google
    assert "mermaid" not in settings  # the theme loads it from a CDN
    style = (ROOT / "docs" / "style.css").read_text(encoding="utf-8")
    site = [page.read_text(encoding="utf-8") for page in pages() if page.is_relative_to(ROOT / "docs")]
    for text in (settings, style, *site):
        loads = re.search(r"""(?:src|srcset)=["']?https?:|url\(["']?https?:|@import|!\[[^\]]*\]\(https?:""", text)
        assert loads is None, loads.group()


def test_no_page_is_too_long():
    for page in pages():
        text = re.sub(r"^\|.*\n|<!-- commands -->.*", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert len(text.split()) < 2200, f"{page.name} has {len(text.split())} words besides its tables; split it"


def test_every_model_has_its_paper_in_the_readme_and_the_citation_file():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Citation")[2]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").partition("references:")[2]
    for arch in MODELS:
        assert f"`{arch}`" in readme and re.search(rf'notes: ".*\b{arch}\b', citation), arch


def test_the_files_that_the_readme_links_exist():
    for path in re.findall(r"\]\(([\w/.]+)(?:#[\w-]+)?\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_block_runs_or_says_why_not(page):
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        assert block.language in RUN + SHOWN, f"{where}: name the language of the block ({', '.join(RUN + SHOWN)})"
        if block.language == "python":
            ast.parse(block.code)
        if block.reason is not None:
            assert len(block.reason) >= 4, f"{where}: say why the block does not run"
        elif block.language in ("bash", "console"):
            assert commands(block), f"{where}: there is no command in the block"


def test_a_reason_that_names_a_test_names_one_that_exists():
    for page in pages():
        for block in blocks(page):
            for path in re.findall(r"tests/[\w/]+\.py", block.reason or ""):
                assert (ROOT / path).exists(), f"{page.name}, line {block.line}: there is no {path}"


def test_the_extras_of_the_docs_exist():
    known = set(re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text().partition("extras_require")[2], re.MULTILINE))
    for page in pages():
        for extras in re.findall(r"(?:dfer-zoo|'\.)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= known, f"{page.name}: {extras}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    pytest.importorskip("av")
    return docs_world.draw_folder(tmp_path_factory.mktemp("drawn"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in pages() if any(b.runs for b in blocks(p))], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, drawn, tmp_path):
    if page.stem == "export" and not is_supported(torch.__version__):
        pytest.skip("exporting needs torch 2.9")
    run_page(page, drawn, tmp_path)
