"""The pytest plugin of `make conformance`: puts `stein.einsum` under the tests that NumPy and opt_einsum ship.

It stands outside the compiler. `run.py` starts pytest in a fresh process with `-p stein_conformance`; before any test
module is imported, this plugin replaces `numpy.einsum` (mode "numpy") or `opt_einsum.contract` (mode "opt_einsum") by
the target, counts the calls that reach it, and puts guards around every function that could do the work in its place:
while a call of the target runs, each guard notes a delegated call and, in the mode "raise", stops it.

`opt_einsum.contract_expression` stays opt_einsum's own: it plans, and asks a library for the pairwise steps. Here that
library is the target: `einsum` directly, `tensordot` written as an einsum.

Environment: STEIN_CONFORMANCE_TARGET (`module:function`, default `stein:einsum`), STEIN_CONFORMANCE_MODE (numpy or
opt_einsum), STEIN_CONFORMANCE_GUARD (raise, count or off), STEIN_CONFORMANCE_REPORT (path of the JSON report).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


class DelegatedCall(BaseException):
    """The target asked another einsum for the answer.

    Not an `Exception`, so that a fall-back inside the target (`except Exception`) cannot hide it.
    """


@dataclass
class Ledger:
    """What happened: calls that reached the target, and calls it handed on, by the name of the function."""

    reached: int = 0
    active: int = 0
    delegated: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def total_delegated(self) -> int:
        """The number of calls that were handed on so far."""
        return sum(self.delegated.values())


# One process runs one pytest session, so the ledger is the state of the process.
LEDGER = Ledger()

# Everything that computes (part of) an einsum; NumPy has the same objects under several names, and each is guarded.
GUARDED: dict[str, tuple[str, ...]] = {
    "numpy": ("einsum", "tensordot", "matmul", "dot", "inner", "vdot", "vecdot", "matvec", "vecmat", "kron"),
    "numpy._core.einsumfunc": ("einsum", "c_einsum", "tensordot", "matmul", "bmm_einsum"),
    "numpy._core.multiarray": ("c_einsum", "dot", "inner", "vdot", "matmul"),
    "numpy._core._multiarray_umath": ("c_einsum", "dot", "inner", "vdot", "matmul"),
    "numpy._core.numeric": ("tensordot", "dot", "matmul", "inner", "vdot"),
    "numpy.linalg": ("matmul", "tensordot", "multi_dot", "vecdot"),
    "opt_einsum": ("contract", "contract_expression"),
    "opt_einsum.contract": ("contract", "contract_expression", "_core_contract", "_einsum", "_tensordot"),
    "torch": ("einsum", "matmul", "mm", "bmm", "mv", "dot", "tensordot", "inner", "baddbmm", "addmm"),
    "jax.numpy": ("einsum", "matmul", "dot", "tensordot", "inner", "vdot"),
    "cotengra": ("einsum", "array_contract"),
}
LATE = ("torch", "jax.numpy", "cotengra")  # guarded only once somebody has imported them


class Guard:
    """Stands in for a function: notes the call, and refuses it, while the target is running.

    Attributes pass through, so that `np.matmul.nin` and the like still work for the tests themselves.
    """

    def __init__(self, name: str, function: Callable[..., Any], mode: str) -> None:
        self.name, self.function, self.mode = name, function, mode

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if LEDGER.active:
            with LEDGER.lock:
                LEDGER.delegated[self.name] = LEDGER.delegated.get(self.name, 0) + 1
            if self.mode == "raise":
                raise DelegatedCall(f"the target called {self.name}")
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def install_guards(mode: str, modules: tuple[str, ...]) -> None:
    """Put a `Guard` around every function of `GUARDED[module]` that exists and is not guarded yet."""
    if mode == "off":
        return
    for module_name in modules:
        module = sys.modules.get(module_name)
        if module is None:
            continue
        for name in GUARDED[module_name]:
            function = getattr(module, name, None)
            if callable(function) and not isinstance(function, Guard | Target):
                setattr(module, name, Guard(f"{module_name}.{name}", function, mode))


class Target:
    """The function under test: counts its calls, and marks the time in which the guards bite."""

    def __init__(self, function: Callable[..., Any], guard: str) -> None:
        self.function, self.guard = function, guard

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        install_guards(self.guard, LATE)
        with LEDGER.lock:
            LEDGER.reached += 1
            LEDGER.active += 1
        try:
            return self.function(*args, **kwargs)
        finally:
            with LEDGER.lock:
                LEDGER.active -= 1

    def __repr__(self) -> str:
        return "<the einsum under test>"


def load_target(name: str) -> Callable[..., Any]:
    """The function called `module:function`; raises `pytest.UsageError` if there is none."""
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"the target {name!r} does not exist: {error}") from error
    return function  # type: ignore[no-any-return]


def tensordot_of(target: Target) -> Callable[..., Any]:
    """NumPy's tensordot (with pairs of axis tuples, as opt_einsum calls it), computed by one einsum of `target`."""

    def tensordot(x: Any, y: Any, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
        left, right = axes
        if any(x.shape[i] != y.shape[j] for i, j in zip(left, right, strict=True)):
            raise ValueError("shape-mismatch for sum")
        x_labels = list(range(x.ndim))
        y_labels = list(range(x.ndim, x.ndim + y.ndim))
        for i, j in zip(left, right, strict=True):
            y_labels[j] = x_labels[i]
        kept = [n for n in x_labels if n not in y_labels] + [n for n in y_labels if n not in x_labels]
        return target(x, x_labels, y, y_labels, kept)

    return tensordot


def patch_numpy(target: Target) -> None:
    """`np.einsum` is the target; NumPy's tests know it under this name only."""
    import numpy

    numpy.einsum = target


def patch_opt_einsum(target: Target) -> None:
    """`opt_einsum.contract`, and the library functions that an opt_einsum expression calls, are the target.

    The module `opt_einsum.contract` keeps its own function of that name: `contract_expression` plans with it.
    `np.einsum` stays real, since the tests use it as their reference.
    """
    import opt_einsum
    from opt_einsum.backends import dispatch

    opt_einsum.contract = target
    if target.function.__module__.startswith("opt_einsum"):
        return  # a stand-in that validates this harness; it must not become its own library
    dispatch._cached_funcs[("einsum", "numpy")] = target
    dispatch._cached_funcs[("tensordot", "numpy")] = tensordot_of(target)


@dataclass
class Outcome:
    """One test of a file: passed, failed or skipped; the calls that reached the target and that it handed on."""

    file: str = ""
    status: str = "passed"
    reached: int = 0
    delegated: int = 0
    message: str = ""


class Recorder:
    """Collects one `Outcome` per test and writes the report at the end of the session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        self.errors: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Count what one test adds to the ledger; a test that was delegated has failed, whatever it says."""
        outcome = self.outcomes.setdefault(item.nodeid, Outcome())
        outcome.file = item.path.name
        reached, delegated = LEDGER.reached, LEDGER.total_delegated()
        try:
            return (yield)
        finally:
            outcome.reached = LEDGER.reached - reached
            outcome.delegated = LEDGER.total_delegated() - delegated

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note failures and skips of every phase."""
        outcome = self.outcomes.setdefault(report.nodeid, Outcome())
        if report.failed:
            outcome.status = "failed"
            outcome.message = _last_line(report)
        elif report.skipped and outcome.status == "passed":
            outcome.status = "skipped"
            outcome.message = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note modules that cannot be imported."""
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longreprtext.splitlines()[-1]}")

    def pytest_sessionfinish(self) -> None:
        """Write the report as JSON."""
        data = {
            "outcomes": {name: vars(outcome) for name, outcome in self.outcomes.items()},
            "errors": self.errors,
            "delegated": LEDGER.delegated,
            "reached": LEDGER.reached,
        }
        self.path.write_text(json.dumps(data))


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    lines = [line for line in str(text).splitlines() if line.strip()]
    return " / ".join(lines[:2])[:300]


def pytest_configure(config: pytest.Config) -> None:
    """Patch before the first test module is imported: some take `np.einsum` and `contract` as parameters."""
    environment = os.environ
    guard = environment.get("STEIN_CONFORMANCE_GUARD", "raise")
    mode = environment["STEIN_CONFORMANCE_MODE"]
    import numpy  # noqa: F401  (so that it is in sys.modules)
    import opt_einsum  # noqa: F401

    function = load_target(environment.get("STEIN_CONFORMANCE_TARGET", "stein:einsum"))
    target = Target(function, guard)
    (patch_numpy if mode == "numpy" else patch_opt_einsum)(target)
    install_guards(guard, tuple(name for name in GUARDED if name not in LATE))
    config.pluginmanager.register(Recorder(Path(environment["STEIN_CONFORMANCE_REPORT"])), "stein-conformance-recorder")
