"""The layout of the package: few top-level modules, imports in one direction, no cycle, no long model file."""

from pathlib import Path

import dfer_zoo
from tests.scripts import load_script

PACKAGE = Path(dfer_zoo.__file__).parent
graph = load_script("docs/import_graph.py")


def test_imports_point_downwards():
    place = {name: number for number, name in enumerate(graph.ORDER)}
    upwards = {
        f"{importing} imports {imported}"
        for importing, imported in graph.edges()
        if importing and imported and place[graph.room(importing)] > place[graph.room(imported)]
    }
    assert not upwards


def test_imports_have_no_cycle():
    imports: dict[str, set[str]] = {}
    for importing, imported in graph.edges():
        if importing != imported and not importing.startswith(f"{imported}."):  # a package may import its files
            imports.setdefault(importing, set()).add(imported)
    finished: set[str] = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for other in imports.get(name, ()):
                if not other.startswith(f"{name}."):
                    visit(other, [*path, name])
            finished.add(name)

    for name in list(imports):
        visit(name, [])


def test_the_package_has_at_most_twenty_top_level_modules():
    rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and (p / "__init__.py").exists())}
    assert len(rooms) <= 20, sorted(rooms)
    assert rooms - {"__init__"} == set(graph.ORDER)


def test_no_model_file_is_longer_than_500_lines():
    lengths = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in (PACKAGE / "models").glob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 500}


def test_the_import_graph_in_the_docs_is_up_to_date():
    stale = [path.name for path, svg in graph.pictures().items() if path.read_text(encoding="utf-8") != svg]
    assert not stale, "run python docs/import_graph.py"
