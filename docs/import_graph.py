"""Draw which folder of the package imports which, light and dark; `--check` only reports stale files.

The tests of the layout import `folders()` and `edges()`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dfer_zoo"
sys.path.insert(0, str(ROOT / "docs"))

from diagrams import FOLDER, FONT, THEMES, text, write  # noqa: E402

CELL, LEFT, TOP, SIZE = 27, 118, 104, 14  # of the drawing, in pixels
HIDDEN = {"errors", "atomic", "version", "__main__"}  # nearly everything imports the first three

# From top to bottom: a folder or file imports only lower ones. Files that nothing else imports come first.
ORDER = (
    "__main__",
    "cli",
    "app",
    "demo",
    "training",
    "inference",
    "data",
    "transforms",
    "factory",
    "checkpoints",
    "saving",
    "convert",
    "models",
    "media",
    "registry",
    "weights",
    "atomic",
    "errors",
    "version",
)


def modules() -> dict[str, Path]:
    """Return {dotted name below dfer_zoo: file}; a package has the name of its folder."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def edges() -> Iterator[tuple[str, str]]:
    """Yield (importing module, imported module) for every import inside the package, including those in functions.

    Imports under `TYPE_CHECKING` are ignored.
    """
    known = modules()
    for name, path in known.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level or node in typing_only:
                continue
            base = [part for part in package if part]
            base = base[: len(base) - node.level + 1] + (node.module.split(".") if node.module else [])
            source = ".".join(base)
            for alias in node.names:
                inner = f"{source}.{alias.name}".lstrip(".")
                yield name, inner if inner in known else source


def room(module: str) -> str:
    return module.split(".")[0]


def folders() -> dict[str, set[str]]:
    """Return {folder or top-level file: the folders and files that it imports}."""
    found: dict[str, set[str]] = {}
    for importing, imported in edges():
        if importing and imported and room(importing) != room(imported):
            found.setdefault(room(importing), set()).add(room(imported))
    return found


def draw(theme: str) -> str:
    """Return the imports as a square of dots: the folder of a row imports the folders of its dots.

    Without cycles, all dots are above the diagonal.
    """
    colour, graph = THEMES[theme], folders()
    names = [name for name in ORDER if name not in HIDDEN]
    width, height = LEFT + CELL * len(names) + 40, TOP + CELL * len(names) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{FONT}">',
        "<title>Which folder imports which</title>",
    ]
    right, bottom = LEFT + CELL * len(names), TOP + CELL * len(names)
    for row in range(len(names)):
        start, middle = CELL * row, CELL * row + CELL / 2
        if row % 2 == 0:
            parts.append(f'<rect x="0" y="{TOP + start}" width="{right}" height="{CELL}" fill="{colour["fixed"]}"/>')
        parts.append(
            f'<rect x="{LEFT + start}" y="{TOP + start}" width="{CELL}" height="{CELL}" fill="{colour["input"]}"/>'
        )
        parts.append(f'<path d="M{LEFT + middle} {TOP - 4} V{bottom}" stroke="{colour["frame"]}" stroke-width="0.5"/>')
    for row, name in enumerate(names):
        middle = CELL * row + CELL / 2
        parts += [
            text(LEFT - 12, TOP + middle + 5, name, colour["text"], SIZE, anchor="end"),
            f'<g transform="translate({LEFT + middle + 5} {TOP - 10}) rotate(-60)">'
            f"{text(0, 0, name, colour['text'], SIZE)}</g>",
        ]
        parts += [
            f'<circle cx="{LEFT + CELL * names.index(other) + CELL / 2}" cy="{TOP + middle}" r="6" '
            f'fill="{colour["soft"]}"><title>{name} imports {other}</title></circle>'
            for other in sorted(graph.get(name, set()) - HIDDEN, key=ORDER.index)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def pictures() -> dict[Path, str]:
    """Return {file: content} for both themes."""
    return {FOLDER / f"import_graph_{theme}.svg": draw(theme) for theme in THEMES}


if __name__ == "__main__":
    sys.exit(write(pictures()))
