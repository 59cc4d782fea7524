"""Runs the examples and prints one table: the structure that was found, why, flops, and measured ratios.

    python examples/run.py                     # all, at full size
    python examples/run.py monarch blast       # some, with what each of them prints
    python examples/run.py --scale small       # seconds instead of minutes; the ratios mean nothing

Exits with 1 if a result or a finding of any example is not what it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# Some environments export these, which halve NumPy's speed and would flatter every ratio. OpenBLAS reads them when
# NumPy is loaded, which happens with the first example.
HANDICAPS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
FOLDER = Path(__file__).resolve().parent
NOT_RUN = ("run", "demo")  # this file; `make demo` shows the demo


def names() -> list[str]:
    """Every example, by name of its file.

    >>> "monarch" in names() and "run" not in names()
    True
    """
    found = sorted(p.stem for p in FOLDER.glob("[a-z]*.py"))
    return [n for n in found if n not in NOT_RUN]


def run(name: str, scale: str, quiet: bool = True) -> object:
    """What an example's `main` returns: a `Report`, or None for examples of the language. Raises what it raises."""
    module = importlib.import_module(name)
    options = {"scale": scale} if "scale" in inspect.signature(module.main).parameters else {}
    if not quiet:
        return module.main(**options)
    with contextlib.redirect_stdout(io.StringIO()):
        return module.main(**options)


def main(arguments: list[str] | None = None) -> int:
    """Run examples, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help="examples to run; all if none is given")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no example {', '.join(unknown)}; there are {', '.join(names())}")
    for variable in HANDICAPS:
        os.environ.pop(variable, None)
    sys.path.insert(0, str(FOLDER))

    chosen, console, began = options.names or names(), Console(), time.perf_counter()
    reports, passed, failed = [], [], {}
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=bool(options.names)) as progress:
        task = progress.add_task("", total=len(chosen))
        for name in chosen:
            progress.update(task, description=name)
            try:
                report = run(name, options.scale, quiet=not options.names)
            except Exception as error:  # an example may fail in any way; the others still run
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                passed.append(name) if report is None else reports.append(report)
            progress.advance(task)
    if reports:
        wide = Console(width=max(console.width, 150)) if not console.is_terminal else console
        wide.print(table(sorted(reports, key=lambda r: r.row), options.scale))
    if passed:
        console.print(f"Also ran: {', '.join(passed)}.", soft_wrap=True)
    for name, reason in failed.items():
        console.print(f"[red]failed[/] {name}: ", end="")
        console.print(reason, markup=False, soft_wrap=True)
    console.print(
        f"{len(reports) + len(passed)} of {len(chosen)} examples ran and agree with NumPy,"
        f" {time.perf_counter() - began:.0f} s"
    )
    return 1 if failed else 0


def table(reports: list, scale: str) -> Table:  # type: ignore[type-arg]
    """One line for each report."""
    caption = (
        "flops: of the dense product, and of what ran. x dense, x order, x torch: how many times faster stein was than"
        " the dense product, the best contraction order (opt_einsum) and torch, in one interleaved run (medians)."
        " = : the best order is the structured form itself, so the ratio compares kernels; no flop is saved over it."
        " error: the largest, as a share of its derived bound."
    )
    if scale == "small":
        caption = "Small sizes: the ratios mean nothing. " + caption
    found = Table(caption=caption, caption_justify="left", pad_edge=False, collapse_padding=True)
    for name, justify in (
        ("row", "right"),
        ("system", "left"),
        ("structure found", "left"),
        ("evidence", "left"),
        ("form that ran", "left"),
        ("dense", "right"),
        ("structured", "right"),
        ("x dense", "right"),
        ("x order", "right"),
        ("x torch", "right"),
        ("error", "right"),
    ):
        found.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for r in reports:
        same = " =" if r.same_as_order else "  "
        ratio = {k: f"{v:.2f}" if v < 10 else f"{v:.1f}" for k, v in r.faster.items()}
        found.add_row(
            str(r.row),
            r.system,
            ", ".join(r.found) or "-",
            r.evidence or "-",
            r.candidate,
            f"{r.flops_dense:.2g}",
            f"{r.flops:.2g}",
            ratio.get("dense", "-"),
            ratio["order"] + same if "order" in ratio else "-  ",
            ratio.get("torch", "-"),
            f"{r.error:.1g}",
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
