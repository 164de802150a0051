"""``python -m tests.hostile --count 10000 --seed 0``: attack the readers with damaged files, and print a report."""

import argparse
import sys

from tests.hostile.run import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    report = run(options.count, options.seed, workers=options.workers)
    print(report)
    sys.exit(1 if report.failures else 0)
