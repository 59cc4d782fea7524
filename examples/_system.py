"""What the examples of published systems have in common: compile, check against dense NumPy, look, measure, report.

No part of the compiler, and not shipped. An example states its einsum, its data and the dense matrix that the system
replaces; `study` does the rest and returns a `Report`, which `run.py` gathers into one table.

The check. In floating point, a sum of K products of m factors, evaluated in any order, lies within
(K + m) * u * sum|terms| of the exact value, to first order in the unit roundoff u (Higham, "Accuracy and Stability of
Numerical Algorithms", chapter 3). The reference is evaluated in twice the precision, sum|terms| by the same dense
product of absolute values; K is `summands`, the longest chain of additions behind one entry. `eps` = 2u covers what is
left: the second order, and the rounding of the reference itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
from _race import race, ratios

import stein

Array: TypeAlias = Any  # NumPy's or torch's; the examples are typed loosely, to be read
BOUND = "(K + operands) * eps * sum|terms|"


@dataclass(frozen=True)
class Report:
    """What one example found and measured. Seconds are medians, `faster` says how many times stein is faster."""

    row: int
    system: str
    found: tuple[str, ...]
    evidence: str
    candidate: str  # the form that ran
    flops_dense: float
    flops: float
    flops_order: float | None
    error: float  # the largest error, as a share of its bound
    faster: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def same_as_order(self) -> bool:
        """Whether the best contraction order of the plain einsum costs what the structured form costs."""
        return self.flops_order is not None and self.flops_order <= 1.1 * self.flops


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    """Standard normal numbers, divided by the square root of the last extent so that products keep their size."""
    rng = np.random.default_rng((seed, *shape))
    values = rng.standard_normal(shape) / np.sqrt(shape[-1] if shape else 1)
    return np.asarray(values, dtype)


def study(
    row: int,
    system: str,
    scale: str,
    program: str,
    operands: Mapping[str, Array],
    expected: Sequence[str],
    *,
    matrix: Callable[..., Array],
    magnitude: Callable[..., Array] | None = None,
    apply: Callable[[Array, Array], Array] | None = None,
    spec: str | None = None,
    spec_operands: Mapping[str, Array] | None = None,
    torch: Callable[..., Callable[[], Any]] | None = None,
    argument: str = "x",
    value: str | None = None,
    summands: int = 0,
    constants: Sequence[str] = (),
    slack: Callable[..., Any] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Compile `program`, check it, print what was found, and time it against its peers.

    `matrix(**others)` is the dense matrix, of shape (..., rows, cols), that all operands but `argument` stand for;
    `magnitude` the same with every subtraction turned into an addition, where `matrix` has any. The argument has the
    shape (batch..., cols...) unless `apply(W, x)` says how W acts. `spec` is the classic einsum string over the
    operands in order (over `spec_operands` where the program says it in other ones), for opt_einsum and torch;
    `torch(**tensors)` returns a thunk that does it torch's best way.
    `summands` are additions beyond the columns of W, `constants` operands that are known ahead. `slack(**operands)` is
    a further error bound, for algorithms that are not sums of the terms (FFT).

    Raises `AssertionError` where a result or a finding is not what it should be.
    """
    others = {n: v for n, v in operands.items() if n != argument}
    x = operands[argument]
    act = apply or by_rows
    dense = matrix(**others)
    wide = {n: _widened(v) for n, v in operands.items()}
    exact = act(matrix(**{n: wide[n] for n in others}), wide[argument])
    absolute = {n: _absolute(v) for n, v in wide.items()}
    terms = act((magnitude or matrix)(**{n: absolute[n] for n in others}), absolute[argument])
    chain = dense.shape[-1] + summands
    bound = (chain + len(operands)) * np.finfo(x.dtype).eps * terms
    if slack is not None:
        bound = bound + slack(**wide)
    blocks = prod(dense.shape[:-2])
    batch = x.size // (blocks * dense.shape[-1])
    return examine(
        row,
        system,
        scale,
        program,
        operands,
        expected,
        exact=exact,
        bound=bound,
        dense=lambda: act(dense, x),
        flops_dense=2.0 * prod(dense.shape) * batch,
        spec=spec,
        spec_operands=spec_operands,
        torch=torch,
        argument=argument,
        value=value,
        constants=constants,
        notes=notes,
        rule=f"{BOUND}, K = {chain}" + (", and the bound of the transform" if slack else ""),
    )


def examine(
    row: int,
    system: str,
    scale: str,
    program: str,
    operands: Mapping[str, Array],
    expected: Sequence[str],
    *,
    exact: Array,
    bound: Array | float,
    dense: Callable[[], Array] | None,
    flops_dense: float,
    rule: str,
    spec: str | None = None,
    spec_operands: Mapping[str, Array] | None = None,
    torch: Callable[..., Callable[[], Any]] | None = None,
    argument: str = "x",
    value: str | None = None,
    constants: Sequence[str] = (),
    runs: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """`study` for a program whose exact result and error bound are known already.

    `runs` are words that must stand in the name of the form that ran.
    """
    declared: dict[str, Any] = {n: v.shape for n, v in operands.items()}
    declared |= {n: stein.constant(operands[n]) for n in constants}
    f = stein.compile(program, dtype=_common(operands), **declared)
    arguments = {n: v for n, v in operands.items() if n not in constants}
    result = f(**arguments)
    y = result[value] if isinstance(result, dict) and value else result
    error = share(y, exact, bound)
    found = [g for g in f.findings if g.argument in (argument, "")]
    kinds = tuple(dict.fromkeys(g.kind for g in found))
    print(f"{system} (row {row})")
    for line in program.strip().splitlines():
        print(f"    {line.strip()}")
    for g in [g for g in found if g.kind in expected] or found[:4]:
        print(f"  found  {_described(g, program)}")
    missing = [k for k in expected if k not in kinds]
    if missing:
        raise AssertionError(f"{system}: {', '.join(missing)} not found; found {', '.join(kinds) or 'nothing'}")
    _checked(f"{system}, stein", error)
    print(f"  check  largest error {error:.2g} of the bound {rule}")

    given = operands if spec_operands is None else spec_operands
    order, flops_order = _order(spec, given)
    contestants: dict[str, Callable[[], Any]] = {"stein": lambda: f(**arguments)}
    peers = {"dense": dense, "order": order, "torch": _torch(torch, spec, given)}
    for name, peer in peers.items():
        if peer is not None:
            _checked(f"{system}, {name}", share(np.asarray(peer()), exact, bound))
            contestants[name] = peer
    times = race(contestants, *((5, 0.02) if scale == "full" else (1, 0.0)))
    flops, faster = float(f.stats["flops"]), ratios(times, "stein")
    evidence = next((_evidence(g) for g in found if g.kind in expected), "")
    kinds = tuple(expected)
    form = str(f.stats["candidate"])
    if runs not in form:
        raise AssertionError(f"{system}: {form} ran, not {runs}")
    report = Report(row, system, kinds, evidence, form, flops_dense, flops, flops_order, error, faster, tuple(notes))
    _print_figures(report, sorted(times["stein"])[len(times["stein"]) // 2])
    return report


def by_rows(W: Array, x: Array) -> Array:
    """W applied to the vectors of x: (batch..., cols...) -> (batch, rows)."""
    return np.matmul(x.reshape(-1, W.shape[1]), W.T)


def share(y: Array, exact: Array, bound: Array | float) -> float:
    """The largest error as a share of its bound; infinite where something is not a number, or the bound is 0.

    >>> share(np.array([1.0, 2.0]), np.array([1.0, 2.5]), 1.0)
    0.5
    """
    difference = np.abs(np.asarray(y).reshape(np.shape(exact)) - exact)
    limit = np.broadcast_to(np.reshape(bound, np.shape(exact)) if np.ndim(bound) else bound, difference.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(difference == 0, 0.0, difference / limit)
    worst = float(np.max(parts, initial=0.0))
    return worst if worst == worst else inf


def softmax_error(scores: float, length: int, dtype: type) -> float:
    """The relative error of a sum weighted by softmax over `length` scores, each off by at most `scores` roundings.

    exp turns the absolute error of a score into a relative one, in numerator and denominator; the sums add `length`
    roundings each, and exp, shift and quotient a few.

    >>> softmax_error(10.0, 4, np.float64) < 1e-14
    True
    """
    eps = float(np.finfo(dtype).eps)
    return float(np.expm1(2 * scores * eps)) + (2 * length + 16) * eps


def transform_error(length: int, dtype: type) -> float:
    """What a convolution of `length` points by transforms may be off by, as a share of |t| |x|, in 2-norms.

    A transform as two dense stages of orders a*b >= length is off by (a^1.5 + b^1.5 + 8) eps of its norm: a stage of
    order a adds a roundings to sums of absolute values, which exceed the norm by at most sqrt(a). Two transforms, their
    product and the way back make three such errors, of which the last is bounded entry by entry. A fast transform does
    better.

    >>> transform_error(64, np.float64) < 1e-12
    True
    """
    order = np.ceil(np.sqrt(length)) + 1
    return float(3 * (2 * order**1.5 + 8) * np.finfo(dtype).eps)


# --- the peers --------------------------------------------------------------------------------------------------------


def _order(spec: str | None, operands: Mapping[str, Array]) -> tuple[Callable[[], Any] | None, float | None]:
    """The product in the best contraction order that opt_einsum finds, and its flops."""
    if spec is None:
        return None, None
    import opt_einsum

    arrays = list(operands.values())
    shapes = [a.shape for a in arrays]
    search = "optimal" if len(arrays) <= 7 else "auto-hq"  # "auto" alone may miss the best order by a factor of ten
    path, info = opt_einsum.contract_path(spec, *shapes, shapes=True, optimize=search)
    expression = opt_einsum.contract_expression(spec, *shapes, optimize=path)
    return (lambda: expression(*arrays)), float(info.opt_cost)


def _torch(
    make: Callable[..., Callable[[], Any]] | None, spec: str | None, operands: Mapping[str, Array]
) -> Callable[[], Any] | None:
    """The product in torch: its own best way where an example gives one, else `torch.einsum`."""
    if make is None and spec is None:
        return None
    try:
        import torch
    except ImportError:
        return None
    tensors = {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in operands.items()}
    if make is not None:
        return make(**tensors)
    given = list(tensors.values())
    return lambda: torch.einsum(spec, *given)


# --- words ------------------------------------------------------------------------------------------------------------


def _remark(report: Report) -> str:
    if report.same_as_order:
        return "the best contraction order is the structured form: no flop is saved over it, the ratio is kernels"
    assert report.flops_order is not None
    times = report.flops_order / report.flops if report.flops else inf
    return (
        f"the best contraction order of the plain einsum costs {report.flops_order:.2g} flops, {times:.1f} times more"
    )


def _described(g: Any, program: str) -> str:
    term = "" if g.number is None else f", term {g.number + 1}"
    options = ", ".join(f"{k} {_plain(v)}" for k, v in g.options.items())
    argument = f" in {g.argument}" if g.argument else ""
    why = "; ".join(filter(None, (_evidence(g) + _place(g, program), options)))
    return f"{g.value} is {g.kind}{argument}{term} ({why})"


def _plain(v: object) -> str:
    return " x ".join(map(str, v)) if isinstance(v, tuple) else str(v)


def _place(g: Any, program: str) -> str:
    start = g.evidence.span.start
    return f" at {program.count(chr(10), 0, start) + 1}:{start - program.rfind(chr(10), 0, start)}"


def _evidence(g: Any) -> str:
    return type(g.evidence).__name__.lower()


def _print_figures(report: Report, seconds: float) -> None:
    print(f"  runs   {report.candidate}: {report.flops:.3g} flops, {report.flops_dense:.3g} dense, {_ratio(report)}")
    names = {"dense": "the dense product", "order": "the best order (opt_einsum)", "torch": "torch"}
    measured = ", ".join(f"{v:.2f}x {names[n]}" for n, v in report.faster.items())
    print(f"  time   {seconds * 1e3:.3g} ms; {measured}")
    for note in (*report.notes, *([] if report.flops_order is None else [_remark(report)])):
        print(f"  note   {note}")


def _ratio(report: Report) -> str:
    if not report.flops or not report.flops_dense:
        return "nothing to compare"
    ratio = report.flops_dense / report.flops
    return f"{ratio:.1f} times fewer" if ratio >= 1 else f"{1 / ratio:.1f} times more"


def _checked(what: str, error: float) -> None:
    if not error <= 1:
        raise AssertionError(f"{what}: the largest error is {error:.3g} times its bound")


def _common(operands: Mapping[str, Array]) -> str:
    return str(np.result_type(*(v.dtype for v in operands.values() if v.dtype.kind in "fc")))


def _widened(v: Array) -> Array:
    return v.astype(np.result_type(v.dtype, np.float64)) if v.dtype.kind in "fc" else v


def _absolute(v: Array) -> Array:
    return np.abs(v) if v.dtype.kind in "fc" else v
