"""Read many damaged files in worker processes, and count what happens."""

from __future__ import annotations

import collections
import functools
import os
import resource
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from dfer_zoo.errors import MAX_MESSAGE, DferZooError
from dfer_zoo.media.workers import Workers
from tests.hostile.kinds import KINDS
from tests.hostile.mutate import mutated

SECONDS = 60.0  # for one file; the first one of a process includes the imports
MEMORY = 6 << 30  # bytes of address space of a worker process
LONGEST_MESSAGE = MAX_MESSAGE + 100


@dataclass(frozen=True)
class Case:
    """One damaged file: the seed, the kind, the whole file that it is made of."""

    seed: int
    kind: str
    whole: Path

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.whole.name}:{self.seed}"


@dataclass
class Report:
    """Counts by kind: "answer", "error" (of the family), "failure"."""

    counts: collections.Counter = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def __str__(self) -> str:
        rows = ["| files | results | `DferZooError` | other outcomes |", "|---|---|---|---|"]
        for kind in (*KINDS, "all"):
            row = [sum(n for (k, o), n in self.counts.items() if o == what and kind in (k, "all"))
                   for what in ("answer", "error", "failure")]  # fmt: skip
            rows.append(f"| {kind} | {row[0]:,} | {row[1]:,} | {row[2]:,} |")
        rows.append(f"\nslowest: {self.slowest[0]:.1f} s ({self.slowest[1]})")
        return "\n".join([*rows, *self.failures])


def attack(case: Case) -> tuple[str, str, float]:
    """Write one damaged file and read it: ("answer" | "error" | "failure", what happened, seconds)."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    suffix = "recover" if case.seed % 2 else "strict"
    path = case.whole.parent / f"{os.getpid()}.{suffix}{case.whole.suffix}"
    path.write_bytes(mutated(case.whole.read_bytes(), case.seed))
    begin = time.process_time()
    try:
        KINDS[case.kind][1](path)
        outcome, detail = "answer", ""
    except DferZooError as error:
        text = str(error)
        clean = len(text) <= LONGEST_MESSAGE and all(c.isprintable() or c == "\n" for c in text)
        outcome, detail = ("error", "") if clean else ("failure", f"a message that is long or not printable: {text!r}")
    except BaseException as error:
        outcome, detail = "failure", f"{type(error).__name__}: {error}"[:300]
    finally:
        path.unlink(missing_ok=True)
    return outcome, detail, time.process_time() - begin


def run(count: int, seed: int, *, workers: int = 2) -> Report:
    """Attack with `count` damaged files, the kinds in turn."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="hostile") as folder:
        wholes = {kind: _wholes(kind, Path(folder) / kind) for kind in KINDS}
        kinds = list(KINDS)
        cases = [
            Case(seed * 1_000_003 + n, kinds[n % len(kinds)], _nth(wholes[kinds[n % len(kinds)]], n // len(kinds)))
            for n in range(count)
        ]
        with Workers(functools.partial(attack), workers, timeout=SECONDS) as pool:
            for case, result in zip(cases, pool.map(cases)):
                if isinstance(result, DferZooError):  # the worker died, or was too slow
                    result = ("failure", str(result), SECONDS)
                outcome, detail, seconds = result
                report.counts[case.kind, outcome] += 1
                report.slowest = max(report.slowest, (seconds, case.name))
                if outcome == "failure":
                    report.failures.append(f"{case.name}: {detail}")
    return report


def _wholes(kind: str, folder: Path) -> list[Path]:
    folder.mkdir()
    KINDS[kind][0](folder)
    return sorted(folder.iterdir())


def _nth(items: list[Path], number: int) -> Path:
    return items[number % len(items)]
