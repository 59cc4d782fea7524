"""The rewrite rules on one Einsum or Map node: small pure functions with the numbers of language.md, section 1.

A rule takes a node whose children are already simplified and the `Scope` of its equation, and returns an equal node
or None. `NORMAL_RULES` is what `normalise` applies to a fixpoint; the other functions here are rules that a plan or a
proof uses in one chosen place. Floating point is no semiring: rules that change rounding are left out of
`EXACT_RULES`, the table of strict mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..ir.expr import Const, Einsum, Expr, Map, Position, Read, SizeValue, free_indices, substitute
from ..ir.index import Affine
from ..ir.rewrite import Rule, Scope
from ..ir.semiring import Semiring
from ..ir.size import ONE, ZERO
from ..ir.types import BOOL, I64, DType
from .common import key
from .scope import within
from .tools import bound_indices, cast


def may_subtract(semiring: Semiring, dtype: DType) -> bool:
    """R21: whether subtraction, hence Strassen-like methods, gradients and factoring of differences, exists.

    It does not for bools, whose sum is their disjunction; integers are the ring modulo a power of two.
    """
    return semiring.ring and dtype != BOOL


def may_divide(semiring: Semiring, dtype: DType) -> bool:
    """R21: whether division exists, which integers do not have."""
    return semiring.field and dtype.kind in "fc"


# --- R4, R5: nesting --------------------------------------------------------------------------------------------------


def nest(einsum: Einsum, chosen: Iterable[int], keep: Iterable[str] = ()) -> Einsum:
    """R4: the factors at positions `chosen` become an inner Einsum, which sums what nothing else uses.

    Indices in `keep`, those free in the whole and those of other factors stay free in the inner Einsum, which carries
    the accumulation type, so that mixed types are promoted before the first product.
    """
    inside = sorted(set(chosen))
    outside = [f for k, f in enumerate(einsum.factors) if k not in inside]
    used = {n for f in outside for n in free_indices(f)} | set(keep)
    own = {n for k in inside for n in free_indices(einsum.factors[k])}
    summed = tuple(b for b in einsum.bound if b in own and b not in used)
    inner = Einsum(
        summed, tuple(einsum.factors[k] for k in inside), einsum.accumulate, einsum.accumulate, einsum.semiring
    )
    factors = list(outside)
    factors.insert(inside[0] if inside else 0, inner)
    return replace(einsum, bound=tuple(b for b in einsum.bound if b not in summed), factors=tuple(factors))


def mergeable(inner: Einsum, outer: Einsum) -> bool:
    """Whether an inner Einsum may dissolve in the outer: one semiring, one accumulation type, nothing lost between
    them.

    An inexact inner type narrower than its accumulation type (f16 in f32) is passed over: that only saves a rounding.
    """
    same = inner.semiring == outer.semiring and inner.accumulate == outer.accumulate
    kept = inner.dtype == inner.accumulate or (inner.dtype.kind == inner.accumulate.kind and inner.dtype.kind in "fc")
    return same and kept and (inner.semiring.mul != "" or len(outer.factors) == 1)


def denest(expr: Expr, scope: Scope) -> Expr | None:
    """R5: factors that are Einsums of the same semiring dissolve (their bound names already differ from all others)."""
    if not isinstance(expr, Einsum) or not any(isinstance(f, Einsum) and mergeable(f, expr) for f in expr.factors):
        return None
    bound: list[str] = list(expr.bound)
    factors: list[Expr] = []
    for f in expr.factors:
        if isinstance(f, Einsum) and mergeable(f, expr):
            bound.extend(f.bound)
            factors.extend(f.factors)
        else:
            factors.append(f)
    return replace(expr, bound=tuple(bound), factors=tuple(factors))


# --- R6, R7: deltas ---------------------------------------------------------------------------------------------------


def delta_of(factor: Expr) -> Affine | None:
    """The difference that a delta factor `(a == b)` says is 0; None if the factor is no delta."""
    match factor:
        case Map("eq", (Position(affine=a), Position(affine=b))) if a.modulus is None and b.modulus is None:
            return a - b
    return None


def substitute_delta(expr: Expr, scope: Scope) -> Expr | None:
    """R6: a delta that fixes a summed index goes, and the index with it.

    `sum[j] (i == j)*x[j]` is `x[i]` where i provably stays in the range of j. Where it may leave it, every factor that
    uses j must be a read with j alone on an axis of j's extent: those reads get the semiring's 0 outside.
    """
    if not isinstance(expr, Einsum) or not expr.semiring.mul:
        return None
    for position, factor in enumerate(expr.factors):
        difference = delta_of(factor)
        if difference is None:
            continue
        rest = expr.factors[:position] + expr.factors[position + 1 :]
        if not difference.terms and difference.offset == ZERO:
            return replace(expr, factors=rest)
        for name, coefficient in difference.terms:
            if name not in expr.bound or coefficient not in (ONE, -ONE):
                continue
            other = difference - Affine.of(name) * coefficient
            value = other * -1 if coefficient == ONE else other
            bound = tuple(b for b in expr.bound if b != name)
            fitted = rest if within(value, scope.extents[name], scope.extents) else _padded(rest, name, expr, scope)
            if fitted is not None:
                return replace(expr, bound=bound, factors=tuple(substitute(f, {name: value}) for f in fitted))
    return None


def _padded(factors: tuple[Expr, ...], name: str, expr: Einsum, scope: Scope) -> tuple[Expr, ...] | None:
    """The factors with 0 outside of the range of index `name`; None where that is not the same."""
    zero = expr.semiring.zero_of(expr.accumulate)
    exact = expr.accumulate.kind in "fc" or expr.semiring.mul in (
        "mul",
        "logical_and",
    )  # 0 annihilates: no wrapped -inf
    if not exact or isinstance(zero, complex):
        return None
    out: list[Expr] = []
    for factor in factors:
        if name not in free_indices(factor):
            out.append(factor)
            continue
        if not isinstance(factor, Read) or factor.pad is not None or factor.dtype.kind != expr.accumulate.kind:
            return None
        shape = scope.program.tensors[factor.tensor].shape
        using = [(s, n) for s, n in zip(factor.slots, shape, strict=True) if name in s.indices]
        if not all(s.bare == name and n == scope.extents[name] for s, n in using):
            return None
        others = [(s, n) for s, n in zip(factor.slots, shape, strict=True) if name not in s.indices]
        if not all(within(s, n, scope.extents) for s, n in others):
            return None
        out.append(replace(factor, pad=zero))
    return tuple(out) if out != list(factors) else None


def spread_repeats(expr: Einsum, scope: Scope) -> Einsum:
    """R7: every repeated index inside a read becomes a fresh one and a delta (the inverse of R6)."""
    bound: list[str] = list(expr.bound)
    factors: list[Expr] = []
    deltas: list[Expr] = []
    for factor in expr.factors:
        if not isinstance(factor, Read):
            factors.append(factor)
            continue
        seen: set[str] = set()
        slots = []
        for slot in factor.slots:
            name = slot.bare
            if name is not None and name in seen:
                new = scope.fresh(name, scope.extents[name])
                bound.append(new)
                deltas.append(Map("eq", (Position(Affine.of(name)), Position(Affine.of(new))), BOOL))
                slot = Affine.of(new)
            seen.update(slot.indices)
            slots.append(slot)
        factors.append(replace(factor, slots=tuple(slots)))
    return replace(expr, bound=tuple(bound), factors=(*factors, *deltas))


# --- R8, R9, R22: ones, zeros, duplicates -----------------------------------------------------------------------------


def drop_ones(expr: Expr, scope: Scope) -> Expr | None:
    """R8: a factor that is the constant 1 of the semiring goes."""
    if not isinstance(expr, Einsum) or not expr.semiring.mul:
        return None
    rest = tuple(f for f in expr.factors if not _is_one(f, expr))
    return replace(expr, factors=rest) if len(rest) < len(expr.factors) else None


def _is_one(factor: Expr, expr: Einsum) -> bool:
    if not isinstance(factor, Const):
        return False
    if factor.dtype == BOOL:
        return factor.value is True or (expr.accumulate == BOOL and expr.semiring.one_of(BOOL) == bool(factor.value))
    lossless = expr.accumulate.kind in "fc" or factor.dtype.kind in "iu"
    return lossless and factor.value == expr.semiring.one_of(expr.accumulate)


def sum_of_nothing(expr: Expr, scope: Scope) -> Expr | None:
    """R8: a summed index that no factor uses.

    In + and x its sum is a multiplication by the extent; in an idempotent semiring it goes, if its range is known not
    to be empty (an empty sum is 0). In any other semiring (logsumexp, a bare product) it stays.
    """
    if not isinstance(expr, Einsum):
        return None
    used = {n for f in expr.factors for n in free_indices(f)}
    idle = [b for b in expr.bound if b not in used]
    idempotent = expr.semiring.idempotent or (expr.accumulate == BOOL and expr.semiring.add == "add")
    for name in idle:
        extent = scope.extents[name]
        bound = tuple(b for b in expr.bound if b != name)
        if extent == ONE or (idempotent and extent.at_least(1, lowest=0)):
            return replace(expr, bound=bound)
        counts = expr.semiring.add == "add" and expr.semiring.mul == "mul" and expr.accumulate != BOOL
        if counts:
            return replace(expr, bound=bound, factors=(*expr.factors, SizeValue(extent)))
    return None


def zero_factor(expr: Expr, scope: Scope) -> Expr | None:
    """R9: a product with the semiring's 0, written as a constant, is 0.

    In exact arithmetic only: in floating point 0*NaN, 0*inf and (in max-plus) -inf + inf are NaN.
    """
    if not isinstance(expr, Einsum) or expr.accumulate.kind not in "biu" or not _annihilates(expr):
        return None
    zero = Const(expr.semiring.zero_of(expr.accumulate), expr.accumulate)
    return cast(zero, expr.dtype) if any(_is_zero(f, expr) for f in expr.factors) else None


def _annihilates(expr: Einsum) -> bool:
    """Whether the 0 of an exact semiring annihilates as machines compute (a semiring of a user may lack the law)."""
    zero = expr.semiring.zero
    match expr.semiring.mul:
        case "mul" | "logical_and":
            return not zero
        case "minimum":
            return zero == "-inf"
        case "maximum":
            return zero == "inf"
    return expr.semiring.annihilates(expr.accumulate)


def _is_zero(factor: Expr, expr: Einsum) -> bool:
    if not isinstance(factor, Const) or factor.dtype.kind not in "biu":
        return False
    if factor.dtype == BOOL and expr.accumulate != BOOL:  # a bool selects 1 or 0
        return not factor.value
    value = bool(factor.value) if expr.accumulate == BOOL else factor.value
    return value == expr.semiring.zero_of(expr.accumulate)


_IDEMPOTENT = ("maximum", "minimum", "logical_or", "logical_and")


def drop_duplicates(expr: Expr, scope: Scope) -> Expr | None:
    """R22: in an idempotent sum equal summands count once: max(e, e) is e."""
    if not isinstance(expr, Map) or expr.function not in _IDEMPOTENT or len(expr.args) != 2:
        return None
    left, right = expr.args
    if left.dtype != expr.dtype or right.dtype != expr.dtype:
        return None
    terms = _terms(expr, expr.function)
    kept: dict[str, Expr] = {}
    for term in terms:
        kept.setdefault(key(term, scope.extents), term)
    if len(kept) == len(terms):
        return None
    total, *rest = kept.values()
    for term in rest:
        total = Map(expr.function, (total, term), expr.dtype)
    return total


def _terms(expr: Expr, function: str) -> list[Expr]:
    if isinstance(expr, Map) and expr.function == function and all(a.dtype == expr.dtype for a in expr.args):
        return [t for a in expr.args for t in _terms(a, function)]
    return [expr]


# --- pads and moduli that do nothing ----------------------------------------------------------------------------------


def plain_slots(expr: Expr, scope: Scope) -> Expr | None:
    """A modulus over a range inside one period goes; a pad goes where every slot provably stays inside."""
    if not isinstance(expr, Read) or (expr.pad is None and all(s.modulus is None for s in expr.slots)):
        return None
    slots = tuple(_without_modulus(s, scope) for s in expr.slots)
    shape = scope.program.tensors[expr.tensor].shape
    inside = expr.pad is not None and all(within(s, n, scope.extents) for s, n in zip(slots, shape, strict=True))
    if slots == expr.slots and not inside:
        return None
    return replace(expr, slots=slots, pad=None if inside else expr.pad)


def _without_modulus(slot: Affine, scope: Scope) -> Affine:
    if slot.modulus is None:
        return slot
    plain = Affine(slot.terms, slot.offset)
    return plain if within(plain, slot.modulus, scope.extents) else slot


def fold_positions(expr: Expr, scope: Scope) -> Expr | None:
    """Sums and multiples of index values are index values: `i + j`, of two positions, is the position `i+j`."""
    if not isinstance(expr, Map) or expr.dtype != I64 or not any(isinstance(a, Position) for a in expr.args):
        return None
    values = [_affine_value(a) for a in expr.args]
    if any(v is None or v.modulus is not None for v in values):
        return None
    match expr.function, values:
        case "add", [Affine() as a, Affine() as b]:
            return Position(a + b)
        case "sub", [Affine() as a, Affine() as b]:
            return Position(a - b)
        case "neg", [Affine() as a]:
            return Position(a * -1)
        case "mul", [Affine() as a, Affine() as b] if not a.terms or not b.terms:
            return Position(a * b.offset if not b.terms else b * a.offset)
    return None


def _affine_value(expr: Expr) -> Affine | None:
    """An integer expression as an index expression: a position, a size, a whole number."""
    match expr:
        case Position(affine=affine):
            return affine
        case SizeValue(size=size):
            return Affine.constant(size)
        case Const(value=int() as value) if not isinstance(value, bool) and expr.dtype.kind in "iu":
            return Affine.constant(value)
    return None


# --- R11, R12, R14: chosen by a plan ----------------------------------------------------------------------------------


def distribute(einsum: Einsum, position: int, scope: Scope) -> Expr | None:
    """R11 forwards: a factor that is a sum (a difference, in a ring) splits the Einsum into the sum of two."""
    factor = einsum.factors[position]
    if not isinstance(factor, Map) or factor.function not in (einsum.semiring.add, "sub"):
        return None
    if factor.function == "sub" and not may_subtract(einsum.semiring, einsum.accumulate):
        return None
    mixed = einsum.accumulate != BOOL and any(a.dtype == BOOL for a in factor.args)  # a bool selects: 1 or 0
    if mixed or factor.dtype != einsum.accumulate:
        return None
    parts: list[Expr] = []
    for term in factor.args:
        factors = (*einsum.factors[:position], cast(term, factor.dtype), *einsum.factors[position + 1 :])
        part = replace(einsum, factors=factors)
        if parts:  # the second sum gets indices of its own
            part_names = {b: Affine.of(scope.fresh(b, scope.extents[b])) for b in bound_indices(part)}
            parts.append(substitute(part, part_names))
        else:
            parts.append(part)
    return Map(factor.function, tuple(parts), einsum.dtype)


def split_single(einsum: Einsum, scope: Scope) -> Einsum:
    """R12: indices that one factor alone uses are summed there first."""
    for position, factor in enumerate(einsum.factors):
        others = {n for k, f in enumerate(einsum.factors) if k != position for n in free_indices(f)}
        own = [b for b in free_indices(factor) if b in einsum.bound and b not in others]
        if own and len(einsum.factors) > 1:
            return split_single(nest(einsum, [position], free_indices(einsum)), scope)
    return einsum


def merge_equal(einsum: Einsum, scope: Scope) -> Einsum:
    """R13: factors with the same set of indices are multiplied with each other first, elementwise."""
    groups: dict[frozenset[str], list[int]] = {}
    for k, factor in enumerate(einsum.factors):
        groups.setdefault(frozenset(free_indices(factor)), []).append(k)
    for members in groups.values():
        if 1 < len(members) < len(einsum.factors):
            keep = {n for k in members for n in free_indices(einsum.factors[k])}
            return merge_equal(nest(einsum, members, keep), scope)
    return einsum


def split_components(einsum: Einsum, scope: Scope) -> Einsum:
    """R14: groups of factors that share no summed index are Einsums of their own, joined by an outer product."""
    groups = components([set(free_indices(f)) & set(einsum.bound) for f in einsum.factors])
    if len(groups) < 2:
        return einsum
    factors: list[Expr] = []
    bound: set[str] = set()
    for group in groups:
        if len(group) == 1 and not set(free_indices(einsum.factors[group[0]])) & set(einsum.bound):
            factors.append(einsum.factors[group[0]])
            continue
        chosen = tuple(einsum.factors[k] for k in group)
        own = tuple(b for b in einsum.bound if any(b in free_indices(f) for f in chosen))
        bound.update(own)
        factors.append(Einsum(own, chosen, einsum.accumulate, einsum.accumulate, einsum.semiring))
    return replace(einsum, bound=tuple(b for b in einsum.bound if b not in bound), factors=tuple(factors))


def components(sets: list[set[str]]) -> list[list[int]]:
    """The connected components of sets that are joined where they meet; an empty set is one of its own."""
    groups: list[tuple[set[str], list[int]]] = []
    for k, members in enumerate(sets):
        touching = [g for g in groups if g[0] & members]
        joined = set(members).union(*(g[0] for g in touching))
        numbers = sorted(n for g in touching for n in g[1])
        groups = [g for g in groups if g not in touching] + [(joined, [*numbers, k])]
    return sorted(sorted(g[1]) for g in groups)


# --- R19, R20 ---------------------------------------------------------------------------------------------------------


def structure_tensor(einsum: Einsum, position: int, scope: Scope) -> Einsum:
    """R20: the read t[i-j+c] at `position` as t[d] times the 0/1 tensor (d == i-j+c), with d summed (R6 undoes it)."""
    read = einsum.factors[position]
    assert isinstance(read, Read) and read.pad is None
    slots, deltas, new = [], [], []
    for slot, extent in zip(read.slots, scope.program.tensors[read.tensor].shape, strict=True):
        if slot.bare is None and slot.indices:
            name = scope.fresh("d", extent)
            new.append(name)
            deltas.append(Map("eq", (Position(Affine.of(name)), Position(slot)), BOOL))
            slot = Affine.of(name)
        slots.append(slot)
    factors = (*einsum.factors[:position], replace(read, slots=tuple(slots)), *einsum.factors[position + 1 :], *deltas)
    return replace(einsum, bound=(*einsum.bound, *new), factors=factors)


def is_view(expr: Expr) -> bool:
    """Whether an expression only moves elements: one read, or one bare product of one read (R19 holds below it)."""
    match expr:
        case Read():
            return True
        case Einsum(bound=(), factors=(Read() as read,)):
            return read.dtype == expr.dtype == expr.accumulate
    return False


def bare_product(expr: Expr, scope: Scope) -> Expr | None:
    """An Einsum of one factor without a sum, of that factor's type, is the factor."""
    match expr:
        case Einsum(bound=(), factors=(factor,)) if factor.dtype == expr.dtype == expr.accumulate:
            return factor
    return None


def pass_widening(expr: Expr, scope: Scope) -> Expr | None:
    """A conversion into a wider type of the same kind and out of it again rounds once: `bf16(f32(x))` is `bf16(x)`."""
    match expr:
        case Map("cast", (Map("cast", (inner,), wide),), dtype) if wide.kind == inner.dtype.kind:
            return cast(inner, dtype) if wide.bits > inner.dtype.bits else None
    return None


EXACT_RULES: tuple[Rule, ...] = (
    Rule("plain slots", plain_slots),
    Rule("positions", fold_positions),
    Rule("R6 delta", substitute_delta),
    Rule("R8 ones", drop_ones),
    Rule("R9 zero", zero_factor),
    Rule("R22 duplicates", drop_duplicates),
    Rule("view", bare_product),
    Rule("casts", pass_widening),
)
NORMAL_RULES: tuple[Rule, ...] = (Rule("R5 denest", denest), Rule("R8 count", sum_of_nothing), *EXACT_RULES)
