"""Gathers: reads that need a pad or a modulus become copies, so that every other read is plain affine and in range.

`x[p+u-1]` with pad 0 becomes `x.copy[e] = x[e-1]`, e over the whole span of the slot, and the read `x.copy[p+u]`; a
circulant `c[(i-j) mod n]` the copy `c.copy[e] = c[(e-n+1) mod n]`. Outputs are turned round in the same way: a
modulus on the left becomes a fold of a longer result, and a result that several points meet at becomes a gather where
that is exact.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.expr import Einsum, Equation, Expr, Program, Read, free_indices, transform, walk
from ..ir.index import Affine, Index
from ..ir.rewrite import Trace
from ..ir.semiring import PLUS_TIMES
from ..ir.size import ONE, Size
from ..ir.types import accumulation_type
from .base import Context
from .tools import (
    Hints,
    Names,
    definition,
    fresh_index,
    has_special_slots,
    hints_of,
    is_injective,
    is_plain,
    note,
    points,
    rebuilt,
)


def gather(program: Program, context: Context, trace: Trace) -> Program:
    """Pads and moduli stand only in equations of one read; no output slot has a modulus."""
    if not any(_special(e) for e in program.equations):
        return program
    names, hints = Names(program), hints_of(context)
    shapes = {name: tensor.shape for name, tensor in program.tensors.items()}
    out: list[Equation] = []
    for equation in program.equations:
        for part in _without_modular_output(equation, names, shapes):
            turned = _as_gather(part, hints, shapes) or part
            for final in _without_special_reads(turned, names, hints):
                shapes[final.name] = final.shape
                out.append(final)
                if final.name != equation.name or final.expr is not equation.expr:
                    note(trace, "gather", equation.name, equation.expr, final.expr)
    return replace(program, equations=tuple(out))


def _special(equation: Equation) -> bool:
    if any(isinstance(e, Read) and has_special_slots(e) for e in walk(equation.expr)):
        return True
    return any(s.bare is None and s.terms for s in equation.slots)


# --- reads ------------------------------------------------------------------------------------------------------------


def _without_special_reads(equation: Equation, names: Names, hints: Hints) -> list[Equation]:
    """The copies that an equation needs, and the equation itself, reading from them."""
    bare = is_plain(equation) and all(s.bare is not None for s in equation.slots)
    if isinstance(equation.expr, Read) and bare and equation.expr.dtype == equation.dtype:
        return [equation]
    copies: dict[Read, tuple[Equation, Read]] = {}

    def rule(e: Expr) -> Expr:
        if not isinstance(e, Read) or not has_special_slots(e):
            return e
        if e not in copies:
            copies[e] = copy_of(e, equation, hints, names)
        return copies[e][1]

    expr = transform(equation.expr, rule)
    if not copies:
        return [equation]
    return [*(copy for copy, _ in copies.values()), rebuilt(equation, expr, equation.extents)]


def copy_of(read: Read, equation: Equation, hints: Hints, names: Names) -> tuple[Equation, Read]:
    """The copy equation that serves `read`, and the plain read of it.

    A slot of several indices gets one axis over its span (high - low + 1 positions), a slot of one index that index.
    Where spans are longer than the ranges of all the indices (`x[i+j-k]` under a delta) the copy is indexed by these
    instead.
    """
    sizes, extents = equation.extents, hints.extents(equation)
    several = [k for k, s in enumerate(read.slots) if len(s.indices) > 1]
    single = dict.fromkeys(n for k, s in enumerate(read.slots) if k not in several for n in s.indices)
    spans = 1
    for k in several:
        spans *= 1 + sum(_absolute(c, hints) * (extents[n] - 1) for n, c in read.slots[k].terms)
    every = free_indices(read)
    if spans * points(single, extents) > points(every, extents):
        several, single = [], dict.fromkeys(every)
    copied, shown, shape = list(read.slots), [], dict(sizes)
    axes: list[str] = []
    seen: set[str] = set()
    for k, slot in enumerate(read.slots):
        if k in several:
            plain = Affine(slot.terms, slot.offset)
            low, high = plain.bounds(sizes)
            name = fresh_index("e", (*shape, *axes))
            shape[name] = high - low + 1
            moved = Affine.of(name) + low
            copied[k] = moved if slot.modulus is None else moved.mod(slot.modulus)
            axes.append(name)
            shown.append(plain - low)
            continue
        for name in slot.indices:
            if name in single and name not in seen:
                seen.add(name)
                axes.append(name)
                shown.append(Affine.of(name))
    body = replace(read, slots=tuple(copied))
    copy = definition(names.fresh(f"{read.tensor}.copy"), axes, body, shape, read.dtype, PLUS_TIMES)
    return copy, Read(copy.name, tuple(shown), read.dtype, None, read.span)


def _absolute(coefficient: Size, hints: Hints) -> int:
    return hints.of(coefficient if coefficient.terms[-1][1] > 0 else -coefficient)


# --- outputs ----------------------------------------------------------------------------------------------------------


def _without_modular_output(equation: Equation, names: Names, shapes: dict[str, tuple[Size, ...]]) -> list[Equation]:
    """`y[s mod n] = e` as `t[s - low] = e` and `y[p]` the sum over all w of `t[p - low + w*n]`, 0 outside."""
    if all(s.modulus is None for s in equation.slots):
        return [equation]
    extents = dict(equation.extents)
    slots, shape, shown, bound, axes = [], [], [], [], []
    folded: dict[str, Size] = {}
    for slot, size in zip(equation.slots, equation.shape, strict=True):
        axis = fresh_index("p", (*extents, *folded))
        folded[axis] = size if slot.modulus is None else Size.least([size, slot.modulus])
        axes.append(axis)
        if slot.modulus is None:
            slots.append(slot)
            shape.append(size)
            shown.append(Affine.of(axis))
            continue
        plain = Affine(slot.terms, slot.offset)
        low, high = plain.bounds(extents)
        slots.append(plain - low)
        shape.append(high - low + 1)
        period = slot.modulus
        before = (period - 1 - low) // period
        after = high // period
        turn = fresh_index("w", (*extents, *folded))
        folded[turn] = before + after + 1
        bound.append(turn)
        shown.append(Affine.of(axis) - low + Affine.of(turn) * period - before * period)
    work = accumulation_type(equation.dtype)
    long = replace(
        equation, name=names.numbered(equation.name), slots=tuple(slots), shape=tuple(shape), update=None, dtype=work
    )
    long = rebuilt(long, long.expr, extents)
    shapes[long.name] = long.shape
    zero = equation.semiring.zero_of(work)
    assert not isinstance(zero, complex)
    read = Read(long.name, tuple(shown), work, zero)
    total = Einsum(tuple(bound), (read,), equation.dtype, work, equation.semiring)
    fold = definition(equation.name, axes, total, folded, equation.dtype, equation.semiring)
    return [long, replace(fold, shape=equation.shape, update=equation.update)]


def _as_gather(equation: Equation, hints: Hints, shapes: dict[str, tuple[Size, ...]]) -> Equation | None:
    """`y[i+j] = a[i]*b[j]` as `y[p] = sum[j] a[p-j]*b[j]` with a 0 outside, where that is exact and not more work.

    Only where 0 annihilates exactly (integers and bool): in floating point the zeros would meet NaN and inf of the
    other factors, which the sum as it was written never adds to that position. There the backend scatters.
    """
    expr = equation.expr
    if not isinstance(expr, Einsum) or expr.accumulate.kind not in "biu" or expr.semiring != equation.semiring:
        return None
    exact = expr.semiring.mul in ("mul", "logical_and") and expr.dtype == expr.accumulate == equation.dtype
    if not exact or is_injective(equation):
        return None
    several = [k for k, s in enumerate(equation.slots) if len(s.indices) > 1]
    if len(several) != 1 or equation.slots[several[0]].modulus is not None:
        return None
    slot = equation.slots[several[0]]
    for name, coefficient in slot.terms:
        alone = all(name not in s.indices for k, s in enumerate(equation.slots) if k != several[0])
        if coefficient == ONE and alone:
            turned = _solved_for(name, slot, several[0], equation, expr, hints, shapes)
            if turned is not None:
                return turned
    return None


def _solved_for(
    name: str,
    slot: Affine,
    place: int,
    equation: Equation,
    expr: Einsum,
    hints: Hints,
    shapes: dict[str, tuple[Size, ...]],
) -> Equation | None:
    extents = dict(equation.extents)
    axis = fresh_index("p", extents)
    extents[axis] = equation.shape[place]
    others = tuple(n for n in slot.indices if n != name)
    if any(n in s.indices for k, s in enumerate(equation.slots) if k != place for n in others):
        return None
    if hints.of(extents[axis]) > 4 * hints.of(extents[name]):
        return None
    value = Affine.of(axis) - (slot - Affine.of(name))
    factors: list[Expr] = []
    for factor in expr.factors:
        if name in free_indices(factor):
            if not isinstance(factor, Read) or factor.pad is not None or factor.dtype != expr.accumulate:
                return None
            pairs = zip(factor.slots, shapes[factor.tensor], strict=True)
            if not all(s.bare == name and n == extents[name] for s, n in pairs if name in s.indices):
                return None
            zero = expr.semiring.zero_of(expr.accumulate)
            assert not isinstance(zero, complex)
            moved = tuple(s.substitute({name: value}) for s in factor.slots)
            factor = replace(factor, slots=moved, pad=zero)
        factors.append(factor)
    if all(f is g for f, g in zip(factors, expr.factors, strict=True)):
        return None
    slots = tuple(Affine.of(axis) if k == place else s for k, s in enumerate(equation.slots))
    new = replace(expr, bound=(*expr.bound, *others), factors=tuple(factors))
    indices = tuple(Index(n, e) for n, e in extents.items())
    return rebuilt(replace(equation, indices=indices), new, extents, slots)
