"""Plans every case of the table of linear counts, runs it on exact slots, and prints what was reached.

python tests/ckks/run.py [part of a name ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time

from stein.backends.ckks.planning.planner import plan

sys.path.insert(0, str(Path(__file__).resolve().parent))
import linear_programs as programs


def main(words: list[str]) -> int:
    """Prints the table; the number of cases that exceed their counts."""
    missed = 0
    heads = ("rotations", 12), ("products", 13), ("levels", 7), ("keys MB", 9), ("ms", 8), ("plan s", 7)
    print(f"{'ring 8192':28s} " + " ".join(f"{head:>{width}s}" for head, width in heads))
    for name, (make, wanted) in programs.CASES.items():
        if words and not any(w in name for w in words):
            continue
        program, start = make(), process_time()
        plans = plan(program, rings=(8192,))
        seconds = process_time() - start
        found = programs.by_uploads(plans)
        counts = programs.checked(found)
        reached = (counts.get("rotate", 0), counts.get("multiply plain", 0), found.levels)
        over = any(a > b for a, b in zip(reached, wanted, strict=True))
        missed += over
        cells = [f"{a} ({b})" for a, b in zip(reached, wanted, strict=True)]
        print(
            f"{name:28s} {cells[0]:>12s} {cells[1]:>13s} {cells[2]:>7s} {found.key_bytes / 1e6:9.1f} "
            f"{found.work.milliseconds:8.2f} {seconds:7.2f}{'  MORE' if over else ''}",
            flush=True,
        )
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
