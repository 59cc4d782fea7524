"""Products of structures: a network that falls into factors one after the other, and sums over an index of structures.

`Chain` cuts a network into two groups of operands, of which one has the rows and the other the columns, so that
W = F1 F2 with the cut indices between; digits that a factor lacks pass through it unchanged. It is worth saying only
if a factor has structure of its own (a product of dense operands is what an order of contraction finds). `Superposed`
takes one summed index as a batch: W is the sum over it of operators that have a structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .algebra import Leaf, Structure, Times
from .operator import Operator, unit
from .view import Again, Match, View, leaf

PLAIN = frozenset({"identity", "scaled_identity", "diagonal", "reduction", "trace", "scaled_reduction"})
MOST = 10  # operands; more are left to the order search
SHIFTS = ("toeplitz", "circulant", "hankel", "anticirculant", "strided_convolution", "convolution")
SUMMED = frozenset(
    {"banded", "permutation", "selection", "hadamard", "block_circulant", "block_toeplitz", "block_hankel", *SHIFTS}
    | {f"{k}_scaled" for k in (*SHIFTS, "block_toeplitz", "block_circulant", "block_hankel")}
)


class Chain:
    """The rule for products."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """The first cut, in a canonical order, one of whose factors has structure."""
        if len(view.atoms) < 2 or len(view.atoms) > MOST or view.opaque or not view.rows or not view.cols:
            return None
        if not {*view.rows, *view.cols} <= frozenset[str]().union(*view.touches):
            return None
        for first, second in _cuts(view):
            matches = again(first), again(second)
            if all(m is None or m.kind in PLAIN for m in matches):
                continue
            factors = [(m, v) for m, v in zip(matches, (first, second), strict=True)]
            terms = [(m.term if m and m.term else None) or leaf(v) for m, v in factors]
            kinds = tuple(k for m, _ in factors for k in factors_of(m))
            kind, options = _joint(matches, view)
            return Match(kind, {"factors": kinds, **options}, Times(terms[0], terms[1]), matches)
        return None


def factors_of(match: Match | None) -> tuple[str, ...]:
    """The kinds of the factors of a product, of what is no product its own."""
    if match is None:
        return ("dense",)
    return tuple(match.options["factors"]) if match.kind == "product" else (match.kind,)


def _joint(matches: Sequence[Match | None], view: View) -> tuple[str, dict[str, object]]:
    """What the product of two structures is: bands add, permutations stay; else just a product."""
    if {m.kind if m else "dense" for m in matches} == {"permutation"}:
        return "permutation", {}
    band = joint_band(matches, view)
    return ("banded", {"band": band, "width": sum(band) + 1}) if band is not None else ("product", {})


def joint_band(matches: Sequence[Match | None], view: View) -> tuple[int, int] | None:
    """The band of a product of structures, where each has one and the sum of all is narrower than the matrix."""
    bands = [band_of_match(m) if m and not {"batch", "identity"} & set(m.options) else None for m in matches]
    if None in bands or len(view.rows) != 1 or len(view.cols) != 1:
        return None
    below, above = (sum(b[k] for b in bands if b) for k in (0, 1))
    return (below, above) if below + above + 1 < min(view.dims) else None


def band_of_match(match: Match) -> tuple[int, int] | None:
    """How far the entries of a structure stand below and above the diagonal of its one line, if that is known."""
    if match.kind in ("identity", "diagonal"):
        return 0, 0
    found: tuple[int, int] | None = match.options.get("band")
    return found


def _cuts(view: View) -> list[tuple[View, View]]:
    """Pairs of factors whose product is the view: all operands with rows (with columns) first, then the fewest.

    An operand of row digits only is a diagonal on the left where others have these digits too, and likewise right.
    """
    n = len(view.atoms)
    rows, cols = frozenset(view.rows), frozenset(view.cols)
    found = []
    for chosen in _sides(view):
        rest = [k for k in range(n) if k not in chosen]
        left, right = (frozenset[str]().union(*(view.touches[k] for k in g)) for g in (chosen, rest))
        both = left & right
        scales_left, scales_right = left <= rows and left <= right, right <= cols and right <= left
        if scales_left:
            found.append((_diagonal(view, chosen), _part(view, rest, view.out, view.x)))
        elif scales_right:
            found.append((_part(view, chosen, view.out, view.x), _diagonal(view, rest)))
        elif both and both <= set(view.bound) and left & rows and right & cols:
            middle = (*sorted(both), *(i for i in view.rows if i not in left), *(i for i in view.cols if i in left))
            found.append((_part(view, chosen, view.out, middle), _part(view, rest, middle, view.x)))
    return found


def _sides(view: View) -> list[tuple[int, ...]]:
    """The operands that the first factor may have: what is reached from the rows in some steps, or not from the columns
    in some steps; scalings alone; and single operands.
    """
    n = len(view.atoms)
    from_rows, from_cols = (_layers(view, side) for side in (view.rows, view.cols))
    scale_rows, scale_cols = (
        tuple(k for k in range(n) if view.touches[k] <= frozenset(side)) for side in (view.rows, view.cols)
    )
    rest = [tuple(k for k in range(n) if k not in layer) for layer in (*from_cols, scale_cols)]
    ones = [(k,) for k in range(n)]
    return [
        c for c in dict.fromkeys([*from_rows[:1], *rest[:1], scale_rows, *from_rows, *rest, *ones]) if 0 < len(c) < n
    ]


def _layers(view: View, ends: Sequence[str]) -> list[tuple[int, ...]]:
    """The operands that are reached from some digits in one step, in two, and so on."""
    reached, seen, found = frozenset(ends), frozenset[int](), list[tuple[int, ...]]()
    while True:
        step = frozenset(k for k, t in enumerate(view.touches) if t & reached)
        if step == seen:
            return found
        seen = step
        found.append(tuple(sorted(seen)))
        reached = reached.union(*(view.touches[k] for k in seen)) & {*view.bound, *ends}


def _part(view: View, keep: Sequence[int], out: Sequence[str], x: Sequence[str]) -> View:
    """Some operands of a view between other ends."""
    atoms = tuple(view.atoms[k] for k in keep)
    return replace(view, coefficient=1, out=tuple(out), x=tuple(x), atoms=atoms, notes=())


def _diagonal(view: View, keep: Sequence[int]) -> View:
    """Operands of row digits only (of column digits only) as a diagonal on all rows (columns)."""
    digits = view.out if view.touches[keep[0]] <= set(view.out) else view.x
    return _part(view, keep, digits, digits)


class Superposed:
    """The rule for sums over one index."""

    @staticmethod
    def recognise(view: View, again: Again) -> Match | None:
        """All summed indices as a batch, if the rest is one structure for each value of them."""
        bound = view.bound
        if view.opaque or not view.rows or not view.cols or not bound or not _one_core(view):
            return None
        if any(len(q.terms) > 1 and set(bound) & set(q.indices) for a in view.atoms for q in a.slots):
            return None
        match = again(replace(view, coefficient=1, out=(*bound, *view.out), x=(*bound, *view.x), notes=()))
        if match is None or match.term is None or match.kind not in SUMMED:
            return None
        sizes = tuple(view.extents[d] for d in view.digits(bound))
        ends = tuple(tuple(view.extents[d] for d in view.digits(side)) for side in (view.out, view.x))
        term = Times(_summing(sizes, ends[0]), Times(match.term, _copying(sizes, ends[1])))
        options = {k: v for k, v in match.options.items() if k not in ("batch", "identity")}
        return Match(f"{match.kind}_sum_of", {**options, "terms": view.size(bound)}, term, match.parts)


def _one_core(view: View) -> bool:
    """Whether one operand joins rows and columns, and all others have one digit at most beside the summed indices."""
    sides = [t - set(view.bound) for t in view.touches]
    joins = [s for s in sides if s & set(view.rows) and s & set(view.cols)]
    return len(joins) == 1 and all(len(s) <= 1 for s in sides if s not in joins)


def _summing(sizes: tuple[int, ...], ends: tuple[int, ...]) -> Structure:
    """The operator that sums leading digits and leaves the others."""
    op = unit(ends)
    names = tuple(f"s{k}" for k in range(len(sizes)))
    extents = {**op.extents, **dict(zip(names, sizes, strict=True))}
    return Leaf(Operator(op.rows, names + op.cols, op.terms, extents, {}))


def _copying(sizes: tuple[int, ...], ends: tuple[int, ...]) -> Structure:
    """The operator that repeats its argument for every value of new leading digits."""
    op = _summing(sizes, ends).operator()
    return Leaf(replace(op, rows=op.cols, cols=op.rows))
