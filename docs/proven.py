"""Run all parity cases, and write the largest error of each system with the date: `make proven`.

The table replaces the text between `<!-- proven -->` and `<!-- end -->` in the docs.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.parity.runner import case_files, check_file  # noqa: E402

MARK = re.compile(r"(<!-- proven -->\n).*?(<!-- end -->)", re.DOTALL)


def measure(system: Path) -> list[str]:
    """Return the row of one system: cases, comparisons, failures, and the comparison closest to its tolerance."""
    files = list(case_files([system]))
    found = [comparison for path in files for comparison in check_file(path)]
    worst = max(found, key=lambda c: c.error / c.tolerance if c.tolerance else float(c.error > 0))
    largest = max(c.error for c in found)
    failed = sum(not c.ok for c in found)
    return [
        f"`{system.name}`", str(len(files)), str(len(found)), str(failed), f"{largest:.1e}",
        f"{worst.error:.1e} of {worst.tolerance:.0e}",
    ]  # fmt: skip


def table(systems: list[Path]) -> str:
    """Return the block for the pages."""
    import torch

    head = ["system", "cases", "comparisons", "failed", "largest error", "nearest to its tolerance"]
    rows = [head, ["---"] * len(head), *map(measure, systems)]
    date = datetime.date.today().isoformat()
    note = f"Distances from the authors' code, in the measure of each comparison (mostly relative L2), run on {date} with torch {torch.__version__} on a CPU.\n\n"
    return "\n" + note + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def main() -> int:
    cases = ROOT / "tests" / "parity"
    block = table(sorted(path.parent for path in cases.glob("*/README.md")))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if (new := MARK.sub(lambda found: found[1] + block + found[2], text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote: {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
