"""`make conformance`: NumPy's shipped einsum tests and opt_einsum's shipped tests of `contract`, run against stein.

Outside the compiler. Each suite runs in its own pytest process with the plugin `stein_conformance` (beside this file),
which replaces the peer's function by `stein.einsum` and refuses delegation. This command prints a table per file, the
failures grouped by message, and exits non-zero if a test failed or a call was handed to another einsum.

    python tests/conformance/run.py                    # everything, one optimiser per expression of opt_einsum
    python tests/conformance/run.py --full             # all thirteen optimisers (7 600 tests)
    python tests/conformance/run.py --suite numpy -k broadcast
    STEIN_CONFORMANCE_TARGET=numpy:einsum python tests/conformance/run.py --guard off     # the harness itself
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

# pytest's -k expression for one optimiser per expression string: the suites repeat every string for each of thirteen.
OTHER_OPTIMISERS = (
    "auto-hq", "optimal", "branch-all", "branch-2", "branch-1", "eager", "opportunistic", "dp-",
    "dynamic-programming", "greedy-", "random-greedy",
)  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """Test files of one peer: the package they lie in, the file names, and what the plugin replaces."""

    name: str
    package: str
    files: tuple[str, ...]


SUITES = (
    Suite("numpy", "numpy._core.tests", ("test_einsum",)),
    Suite(
        "opt_einsum",
        "opt_einsum.tests",
        ("test_contract", "test_input", "test_edge_cases", "test_blas", "test_sharing"),
    ),
)


@dataclass
class Totals:
    """Counts for one file. `reaching` tests called the target at least once; `delegated` ones were handed on."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reaching: int = 0
    reaching_passed: int = 0
    delegated: int = 0
    calls: int = 0


def missing_files(suite: Suite) -> str:
    """Why the suite cannot run ("" if it can): some builds of a peer ship no tests."""
    try:
        spec = importlib.util.find_spec(suite.package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return f"this build of {suite.name} ships no tests ({suite.package} is not installed)"
    folder = Path(next(iter(spec.submodule_search_locations)))
    absent = [f for f in suite.files if not (folder / f"{f}.py").exists()]
    return f"{suite.package} lacks {', '.join(absent)}" if absent else ""


def run_suite(suite: Suite, options: argparse.Namespace, report: Path) -> dict[str, Any]:
    """Run one suite in a fresh process and read its report; raises `RuntimeError` if pytest did not get to run."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        p for p in (str(HERE), str(REPOSITORY / ".typing"), environment.get("PYTHONPATH", "")) if p
    )
    environment |= {
        "STEIN_CONFORMANCE_MODE": suite.name,
        "STEIN_CONFORMANCE_GUARD": options.guard,
        "STEIN_CONFORMANCE_REPORT": str(report),
    }
    command = [
        sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-p",
        "stein_conformance", "--noconftest", "-c", os.devnull, "--rootdir", str(HERE), "-W", "ignore", "--pyargs",
        *(f"{suite.package}.{f}" for f in suite.files),
    ]  # fmt: skip
    selection = " and ".join(f"({k})" for k in (_one_optimiser(suite, options), options.k) if k)
    if selection:
        command += ["-k", selection]
    if options.exitfirst:
        command.append("-x")
    done = subprocess.run(command, env=environment, cwd=HERE, capture_output=not options.verbose, text=True)
    if not report.exists():
        text = "" if options.verbose else (done.stdout + done.stderr)
        raise RuntimeError(f"pytest stopped with status {done.returncode} before it wrote its report\n{text[-4000:]}")
    data: dict[str, Any] = json.loads(report.read_text())
    data["status"], data["output"] = done.returncode, done.stdout or ""
    return data


def _one_optimiser(suite: Suite, options: argparse.Namespace) -> str:
    if options.full or suite.name != "opt_einsum":
        return ""
    return "not (" + " or ".join(OTHER_OPTIMISERS) + ")" + " or test_rand_equation"


def totals_of(data: dict[str, Any]) -> dict[str, Totals]:
    """Totals per file of one report."""
    table: dict[str, Totals] = {}
    for outcome in data["outcomes"].values():
        total = table.setdefault(outcome["file"] or "(skipped before the call)", Totals())
        status = "failed" if outcome["delegated"] else outcome["status"]
        setattr(total, status, getattr(total, status) + 1)
        total.calls += outcome["reached"]
        total.delegated += outcome["delegated"]
        if outcome["reached"]:
            total.reaching += 1
            total.reaching_passed += status == "passed"
    return table


def print_table(rows: list[tuple[str, Totals]]) -> None:
    """One line per file and a sum."""
    head = ("file", "passed", "failed", "skipped", "reach stein", "of them passed", "calls", "delegated")
    body = [(n, t.passed, t.failed, t.skipped, t.reaching, t.reaching_passed, t.calls, t.delegated) for n, t in rows]
    total = ("total", *(sum(int(r[i]) for r in body) for i in range(1, len(head))))
    lines = [head, *body, total]
    widths = [max(len(str(line[i])) for line in lines) for i in range(len(head))]
    for line in lines:
        name, *counts = (str(cell) for cell in line)
        print("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(counts, widths[1:], strict=True))]))


def print_failures(data: dict[str, Any], limit: int) -> None:
    """The failures, grouped by message, with up to `limit` names in all."""
    groups: dict[str, list[str]] = {}
    for name, outcome in data["outcomes"].items():
        if outcome["status"] == "failed" or outcome["delegated"]:
            message = outcome["message"] or "passed, but a call was delegated"
            groups.setdefault(message, []).append(name.split("::", 1)[1])
    for message, names in sorted(groups.items(), key=lambda g: -len(g[1])):
        print(f"\n{len(names)} x {message}")
        for name in names[:limit]:
            print(f"    {name}")
        if len(names) > limit:
            print(f"    ... and {len(names) - limit} more")
    for error in data["errors"]:
        print(f"\nnot imported: {error}")
    if data["delegated"]:
        print("\ndelegated: " + ", ".join(f"{n} {c}x" for n, c in Counter(data["delegated"]).most_common()))


def main(arguments: list[str] | None = None) -> int:
    """Run the suites that were asked for; 0 if every test passed and nothing was delegated."""
    parser = argparse.ArgumentParser(description="peers' own einsum tests, run against stein")
    parser.add_argument("--suite", choices=[s.name for s in SUITES], help="only this peer's tests")
    parser.add_argument("--full", action="store_true", help="every optimiser of opt_einsum for every expression")
    parser.add_argument("-k", default="", help="only tests that match, as in pytest")
    parser.add_argument("-x", dest="exitfirst", action="store_true", help="stop at the first failure")
    parser.add_argument("--guard", choices=("raise", "count", "off"), default="raise", help="what delegation does")
    parser.add_argument("--names", type=int, default=8, help="names printed per group of failures")
    parser.add_argument("--verbose", action="store_true", help="show pytest's own output")
    options = parser.parse_args(arguments)

    print(f"target: {os.environ.get('STEIN_CONFORMANCE_TARGET', 'stein:einsum')}, guard: {options.guard}")
    rows: list[tuple[str, Totals]] = []
    reports: list[dict[str, Any]] = []
    broken = False
    for suite in SUITES:
        if options.suite not in (None, suite.name):
            continue
        reason = missing_files(suite)
        if reason:
            print(f"{suite.name}: {reason}; nothing was checked")
            broken = True
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                data = run_suite(suite, options, Path(folder) / "report.json")
            except RuntimeError as error:
                print(f"{suite.name}: {error}")
                broken = True
                continue
        reports.append(data)
        rows += [(f"{suite.name}/{name}", total) for name, total in sorted(totals_of(data).items())]
    print_table(rows)
    for data in reports:
        print_failures(data, options.names)
    failed = sum(t.failed + t.delegated for _, t in rows) or any(d["errors"] for d in reports)
    return 1 if failed or broken or not any(t.reaching for _, t in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
