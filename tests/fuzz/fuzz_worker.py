"""The worker of the fuzz: makes scenarios, calls the target, checks, and writes one JSON line before and after each.

Outside the compiler; started by `run.py`. Results are kept until the whole scenario has run, so that a later call that
spoils an earlier result is seen; operands are compared with copies, so that a call that writes to one is seen.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from fuzz_call import Call, Scenario
from fuzz_classes import CLASSES, STEIN_ONLY
from fuzz_malformed import Malformed, malformed
from fuzz_operands import Array
from fuzz_oracle import Expected, Verdict, expected_of, interpreted, judge
from fuzz_programs import program


@dataclass
class Report:
    """The outcome of one scenario."""

    calls: int
    ratio: float
    failures: list[dict[str, str]]


@dataclass
class Prepared:
    """A call with its arrays, copies of them, its `out=` and the right answer."""

    call: Call
    operands: list[Any]
    arrays: list[Array]
    copies: list[Array]
    out: Array | None
    expected: Expected
    result: Any = None
    error: BaseException | None = None


class Target:
    """The einsum under test."""

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        self.function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        self.is_stein = module.split(".")[0] == "stein"

    def __call__(self, args: tuple[Any, ...], keywords: dict[str, Any], operands: int) -> Any:
        if not self.is_stein and operands > 5:  # a stand-in; NumPy's default would loop over all labels at once
            keywords = {"optimize": "greedy", **keywords}
        return self.function(*args, **keywords)


def prepare(call: Call) -> Prepared:
    """Build the operands and the right answer; the answer comes from copies."""
    operands = [o.build() for o in call.operands]
    arrays = [np.asarray(o) for o in operands]
    copies = [a.copy() for a in arrays]
    out = operands[call.out] if isinstance(call.out, int) else call.out.build() if call.out is not None else None
    return Prepared(call, operands, arrays, copies, out, expected_of(call, copies))


def perform(target: Target, prepared: Prepared) -> None:
    """Make the call; keep its result or its exception."""
    args, keywords = prepared.call.arguments(prepared.operands, prepared.out)
    try:
        prepared.result = target(args, keywords, len(prepared.operands))
    except Exception as error:  # any exception of a correct call is a failure
        prepared.error = error


def check(prepared: Prepared) -> Verdict:
    """Everything that must hold of one call."""
    call = prepared.call
    if prepared.error is not None:
        return Verdict(False, message=f"raised {type(prepared.error).__name__}: {prepared.error}")
    if call.out is not None and prepared.result is not prepared.out:
        return Verdict(False, message="the result is not the array given as out=")
    verdict = judge(prepared.result, prepared.expected)
    if not verdict.ok:
        return verdict
    for k, (array, copy) in enumerate(zip(prepared.arrays, prepared.copies, strict=True)):
        if call.out != k and not np.array_equal(array, copy, equal_nan=array.dtype.kind in "fc"):
            return Verdict(False, message=f"operand {k} was written to")
    return _check_order(call, np.asarray(prepared.result)) or _check_interpreter(prepared) or verdict


def _check_order(call: Call, result: Array) -> Verdict | None:
    order = str(dict(call.keywords).get("order", "K")).upper()
    if len(call.terms) == 1 and set(call.terms[0]) == set(call.output):
        return None  # a view keeps its layout, in NumPy too
    if order == "A":
        order = "F" if all(np.asarray(o.build()).flags.f_contiguous for o in call.operands) else "C"
    good = {"C": result.flags.c_contiguous, "F": result.flags.f_contiguous}.get(order, True)
    return None if good else Verdict(False, message=f"order={order!r} was asked for, strides are {result.strides}")


def _check_interpreter(prepared: Prepared) -> Verdict | None:
    if prepared.call.semiring == "plustimes":
        return None
    verdict = judge(interpreted(prepared.call, prepared.copies), prepared.expected)
    return None if verdict.ok else Verdict(False, message=f"the IR interpreter disagrees with NumPy: {verdict.message}")


def run_scenario(target: Target, scenario: Scenario) -> Report:
    """Make all calls of a scenario, then check all."""
    prepared = [prepare(call) for call in scenario.calls]
    if scenario.threads > 1:
        with ThreadPoolExecutor(scenario.threads) as pool:
            list(pool.map(lambda p: perform(target, p), prepared))
    else:
        for p in prepared:
            perform(target, p)
            if scenario.mutate:
                _spoil(p)
    failures, worst = [], 0.0
    for p in prepared:
        verdict = check(p)
        worst = max(worst, verdict.ratio)
        if not verdict.ok:
            failures.append({"message": verdict.message, "code": p.call.code()})
    return Report(len(prepared), worst, failures)


def _spoil(prepared: Prepared) -> None:
    """Overwrite the operands after their call (and their copies, so that the check of operands holds)."""
    for array, copy in zip(prepared.arrays, prepared.copies, strict=True):
        if array.flags.writeable:
            array[...] = 77
            copy[...] = 77


def run_malformed(target: Target, rng: np.random.Generator) -> Report:
    """Four wrong calls."""
    failures = []
    for _ in range(4):
        wrong = malformed(rng)
        message = misbehaviour(target, wrong)
        if message:
            failures.append({"message": f"{wrong.kind}: {message}", "code": wrong.code()})
    return Report(4, 0.0, failures)


def misbehaviour(target: Target, wrong: Malformed) -> str:
    """What is wrong with how a malformed call was received ("" if it was refused as it should be)."""
    try:
        result = target.function(*wrong.args, **wrong.keywords)
    except (ValueError, TypeError) as error:
        text = str(error)
        named = not wrong.names or any(name.lower() in text.lower() for name in wrong.names)
        return "" if named else f"the message names none of {wrong.names}: {text!r}"
    except Exception as error:  # neither of the two types that a user can expect
        return f"raised {type(error).__name__}: {error}"
    return f"accepted, returned {result!r}"[:400]


def run_program(rng: np.random.Generator) -> Report:
    """One program of the named language, compiled once and called with new values."""
    import stein

    call = program(rng)
    failures, worst = [], 0.0
    try:
        shapes: dict[str, Any] = dict(call.shapes())
        compiled = stein.compile(call.template.text, dtype="float64", **shapes)
        results = [compiled(**call.arrays(k)) for k in range(call.calls)]
    except Exception as error:  # any exception of a correct program is a failure
        message = f"{call.kind}: raised {type(error).__name__}: {error}"
        return Report(call.calls, 0.0, [{"message": message, "code": call.code()}])
    for k, result in enumerate(results):
        verdict = judge(result, call.expected(call.arrays(k)))
        worst = max(worst, verdict.ratio)
        if not verdict.ok:
            failures.append({"message": f"{call.kind}: {verdict.message}", "code": call.code()})
    return Report(call.calls, worst, failures)


NAMES = (*CLASSES, "programs", "malformed")


def scenarios(names: tuple[str, ...], seed: int, start: int) -> Iterator[tuple[int, str, np.random.Generator]]:
    """Number, class and generator of every scenario from `start`; the class follows from the number alone.

    With a selection, the numbers of other classes are skipped, so that a number means the same with and without it.
    """
    case = start
    while True:
        name = NAMES[case % len(NAMES)]
        if name in names:
            yield case, name, np.random.default_rng([seed, case])
        case += 1


def work(options: argparse.Namespace) -> None:
    """Run scenarios until enough calls are made."""
    target = Target(os.environ.get("STEIN_FUZZ_TARGET", "stein:einsum"))
    names = tuple(options.only or NAMES)
    if not target.is_stein:
        names = tuple(n for n in names if n not in STEIN_ONLY)
    if not names:
        print("a stand-in is not asked for these classes", file=sys.stderr)
        return
    made = 0
    for case, name, rng in scenarios(names, options.seed, options.start):
        if made >= options.calls:
            return
        began = time.perf_counter()
        if name in CLASSES:
            scenario = CLASSES[name](rng)
            code = "\n\n".join(c.code() for c in scenario.calls)
            _say({"case": case, "name": name, "calls": len(scenario.calls), "code": code})
            report = run_scenario(target, scenario)
        else:
            _say(
                {
                    "case": case,
                    "name": name,
                    "calls": 1,
                    "code": f"# python tests/fuzz/run.py --seed {options.seed} --case {case}",
                }
            )
            report = run_malformed(target, rng) if name == "malformed" else run_program(rng)
        seconds = time.perf_counter() - began
        _say({"case": case, "name": name, "seconds": seconds, **vars(report)})
        made += report.calls


def _say(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def main() -> int:
    """Parse the parent's request and work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--only", action="append", choices=NAMES)
    warnings.simplefilter("ignore")
    work(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
