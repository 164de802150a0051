"""Write the import graph of the package to docs/architecture.md; `--check` only reports whether it is stale.

The layout test imports `folders()` and `edges()`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dfer_zoo"
PAGE = ROOT / "docs" / "architecture.md"

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


def drawing() -> str:
    """Return the graph as mermaid text, without `errors`, `atomic` and `version`, which nearly everything imports."""
    hidden = {"errors", "atomic", "version", "__main__"}
    graph = folders()
    lines = ["```mermaid", "graph TD"]
    for name in sorted(graph.keys() - hidden, key=ORDER.index):
        lines += [f"  {name} --> {other}" for other in sorted(graph[name] - hidden, key=ORDER.index)]
    return "\n".join([*lines, "```"])


def rendered(text: str) -> str:
    return re.sub(
        r"(<!-- import graph -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{drawing()}\n\n{m[2]}", text, flags=re.DOTALL
    )


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    if rendered(text) == text:
        return 0
    if "--check" in sys.argv:
        print(f"stale: {PAGE.relative_to(ROOT)}; run python docs/import_graph.py")
        return 1
    PAGE.write_text(rendered(text), encoding="utf-8")
    print(f"wrote: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
