"""Questions about the views of a matrix that its forms hang on: digits, symmetry, bands, common groups, low rank.

A view is one term of the matrix as seen from a vector put beside it (`ir.structures.view`). Nothing here knows of
solvers; `solve_read` turns the answers into forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ir.expr import Einsum, Equation, Input, Program, Read
from ..ir.index import Affine, Index
from ..ir.size import Size
from ..ir.structures.operator import Operator
from ..ir.structures.slot import Slot, composite
from ..ir.structures.view import DELTA, STEP, View, between, operator_of
from .canonical import NotLinear, label_of, views
from .facts import facts_of
from .network import networks
from .recognise import recognise_view


def matrix_views(program: Program, name: str) -> tuple[View, ...] | None:
    """The views of a matrix as a linear function of a vector that is put beside it."""
    tensor = program.tensors[name]
    if tensor.dtype.kind not in "fc" or len(tensor.shape) != 2:  # a batch of matrices is what a solver made
        return None
    rows, cols = (s.evaluate({}) for s in tensor.shape)
    if min(rows, cols) < 2:
        return None
    x, y = "x'", "y'"
    i, j = Affine.of("i"), Affine.of("j")
    reads = (Read(name, (i, j), tensor.dtype), Read(x, (j,), tensor.dtype))
    value = Einsum(("j",), reads, tensor.dtype, tensor.dtype)
    sizes = (Size.of(rows), Size.of(cols))
    product = Equation(y, (i,), sizes[:1], (Index("i", sizes[0]), Index("j", sizes[1])), value, tensor.dtype)
    vector = Input(x, sizes[1:], tensor.dtype)
    aside = replace(program, inputs=(*program.inputs, vector), equations=(*program.equations, product), outputs=(y,))
    network = next(n for n in networks(aside, {}) if n.name == y)
    if network.opaques:
        return None
    try:
        found = views(network, x)
    except NotLinear:
        return None
    return found or None


def is_touched(view: View) -> bool:
    """Whether some operand (a scalar is none) is in the term."""
    return any(a.touch for a in view.atoms)


def selects(view: View) -> bool:
    """Whether a delta or a guard is left, or a digit of the argument stands twice."""
    return view.opaque or len(set(view.x)) < len(view.x)


def is_square(view: View) -> bool:
    """Whether the term has as many rows as columns, each digit of the argument once."""
    return view.size(view.out) == view.size(view.x) and len(set(view.x)) == len(view.x)


def factor_digits(view: View, side: str) -> tuple[str, ...]:
    """The fine digits of a factor as its form has them: those of a batch first, if it has rows too."""
    ends = view.out if side == "out" else view.x
    if view.rows or view.cols:
        ends = (*view.batch, *(i for i in ends if i not in view.batch))
    return view.digits(ends)


def with_lead(view: View) -> Operator | None:
    """A block diagonal factor as an operator whose first digits are those of the batch, tied by deltas."""
    lead = view.batch
    if view.opaque or len(set(view.out)) < len(view.out):
        return None
    rest = [tuple(i for i in side if i not in lead) for side in (view.out, view.x)]
    return operator_of(replace(view, out=(*lead, *rest[0]), x=(*lead, *rest[1])))


def joined(found: Sequence[View]) -> Operator:
    """A sum of views as one operator."""
    op = operator_of(found[0])
    for v in found[1:]:
        op = op.plus(operator_of(v))
    return op


def cut_view(view: View, keep: Sequence[int], out: Sequence[str], x: Sequence[str]) -> View:
    """Some operands of a view between other digits."""
    atoms = tuple(view.atoms[k] for k in keep)
    return replace(view, coefficient=1, out=tuple(out), x=tuple(x), atoms=atoms, notes=())


# --- facts ------------------------------------------------------------------------------------------------------------


def is_symmetric(found: Sequence[View]) -> bool:
    """Whether the sum equals its transpose: declared of its one operand, or proved by its label."""
    one_by_one = all((not v.rows and not v.cols) or _declared_symmetric(v) or _proved_symmetric([v]) for v in found)
    return one_by_one or (len(found) > 1 and _proved_symmetric(found))


def _proved_symmetric(found: Sequence[View]) -> bool:
    return any(f.kind == "symmetric_operator" for f in facts_of(found))


def _declared_symmetric(view: View) -> bool:
    atoms = [k for k, a in enumerate(view.atoms) if a.touch]
    if len(atoms) != 1 or len(view.rows) != 1 or len(view.cols) != 1 or view.batch:
        return False
    bare = all(q.bare is not None for q in view.atoms[atoms[0]].slots)
    return "symmetric" in view.known(atoms[0]) and bare and len(view.atoms[atoms[0]].ports) == 2


def triangle(view: View) -> str | None:
    """`lower` or `upper` by a guard of the term, `both` for a diagonal one; None if nothing is known."""
    if not view.rows and not view.cols:
        return "both"
    rows, cols = (composite(view.digits(side), view.extents) for side in (view.out, view.x))
    below = rows.plus(cols, -1)
    for a in view.atoms:
        if a.name == STEP and not a.slots[0].modulus:
            guard = a.slots[0]
            for name, form in (("lower", below), ("upper", below.times(-1))):
                if guard.terms == form.terms and guard.offset <= 0:
                    return name
    return None


# --- one digit --------------------------------------------------------------------------------------------------------


def one_digit(found: Sequence[View]) -> bool:
    """Whether every term has one fine digit of rows and one of columns."""
    return all(len(v.digits(v.out)) == 1 == len(v.digits(v.x)) for v in found)


def first_column(found: Sequence[View]) -> Operator:
    """The first column of a sum of circulants."""
    op = joined(found)
    (i,), (j,) = op.rows, op.cols
    terms = tuple(t.put(j, Slot()) for t in op.terms)
    return Operator((), (i,), terms, op.extents, op.operands)


def band_of(view: View) -> tuple[int, int] | None:
    """How many diagonals below and above the main one a term has; None if it may fill more than a band."""
    if not view.rows:
        return 0, 0
    (i,), (j,) = view.out, view.x
    low, high = None, None  # of j - i
    for a in view.atoms:
        bounds = [_offset_range(q, i, j, _length(view, a.name, keys[0][0])) for keys, q in a.ports]
        if a.name == STEP:
            bounds = [_offset_range(a.slots[0], i, j, None)]
        elif a.name == DELTA:
            return None
        for found in bounds:
            if found is not None:
                low = found[0] if low is None else low if found[0] is None else max(low, found[0])
                high = found[1] if high is None else high if found[1] is None else min(high, found[1])
    return None if low is None or high is None else (max(0, -low), max(0, high))


def _length(view: View, name: str, axis: int) -> int | None:
    return view.shapes[name][axis] if name in view.shapes else None


def _offset_range(q: Slot, i: str, j: str, length: int | None) -> tuple[int | None, int | None] | None:
    """The range of j - i in which a slot c*(j - i) + o with c = 1 or -1 is not negative, and below a length."""
    if q.modulus or dict(q.terms) not in ({i: 1, j: -1}, {i: -1, j: 1}):
        return None
    if q.coefficient(j) > 0:  # 0 <= j - i + o < length
        return -q.offset, None if length is None else length - 1 - q.offset
    return None if length is None else q.offset - length + 1, q.offset


# --- groups of digits -------------------------------------------------------------------------------------------------


def common_groups(found: Sequence[View]) -> list[tuple[int, ...]] | None:
    """Places of digits that no term joins: two groups or more, each term square on each; None if there are none.

    A place stands for the row digit and the column digit there, which must agree in extent, and be one in a term that
    leaves them alone.
    """
    first = found[0]
    count = len(first.out)
    for v in found:
        sides = [[v.extents[i] for i in side] for side in (v.out, v.x)]
        if len(v.out) != count or sides[0] != sides[1] or v.opaque:
            return None
        if [v.extents[i] for i in v.out] != [first.extents[i] for i in first.out]:
            return None
        if any(v.out.index(i) != v.x.index(i) for i in v.batch):
            return None
    parent = list(range(count))

    def root(k: int) -> int:
        while parent[k] != k:
            k = parent[k]
        return k

    busy: set[int] = set()
    for v in found:
        for g in v.components():
            places = [k for k in range(count) if v.out[k] in g.touch or v.x[k] in g.touch]
            busy.update(places)
            for k in places[1:]:
                parent[root(k)] = root(places[0])
    groups: dict[int, list[int]] = {}
    for k in sorted(busy):
        groups.setdefault(root(k), []).append(k)
    if len(groups) < 2:
        return None
    return [tuple(g) for g in groups.values()]


def batch_places(found: Sequence[View]) -> list[int]:
    """The places of digits that every term has on both sides, there."""
    first = found[0]
    extents = [first.extents[i] for i in first.out]
    for v in found:
        if [v.extents[i] for i in v.out] != extents or [v.extents[i] for i in v.x] != extents:
            return []
    return [k for k in range(len(extents)) if all(v.out[k] == v.x[k] for v in found)]


def fine_places(view: View, places: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The extents of all fine row digits, and the places of those that some digits were merged from."""
    rows = view.digits(view.out)
    return tuple(view.extents[d] for d in rows), tuple(
        rows.index(d) for k in places for d in view.digits((view.out[k],))
    )


def on_places(view: View, places: Sequence[int]) -> View:
    """A term without the digits at other places, which have no operand."""
    out, x = (tuple(side[k] for k in places) for side in (view.out, view.x))
    return replace(view, out=out, x=x, notes=())


def on_group(view: View, group: tuple[int, ...]) -> View | None:
    """What a term has on a group of places; None for the identity."""
    names = {view.out[k] for k in group} | {view.x[k] for k in group}
    keep = [k for k, t in enumerate(view.touches) if t & names]
    reached = {i for g in view.components() if set(g.atoms) & set(keep) for i in g.touch}
    keep = [k for k, t in enumerate(view.touches) if t & (names | reached)]
    if not keep:
        return None
    atoms = tuple(view.atoms[k] for k in keep)
    out, x = (tuple(side[k] for k in group) for side in (view.out, view.x))
    return replace(view, coefficient=1, out=out, x=x, atoms=atoms, notes=())


def without(view: View, part: View | None) -> View:
    """A term without one of its factors."""
    assert part is not None
    gone = set(part.atoms)
    out, x = (tuple(i for i in side if i not in own) for side, own in ((view.out, part.out), (view.x, part.x)))
    return replace(view, out=out, x=x, atoms=tuple(a for a in view.atoms if a not in gone), notes=())


def all_equal(found: Sequence[View]) -> bool:
    """Whether all views are provably one matrix."""
    first = label_of([found[0]], True)
    return all(label_of([v], True) == first for v in found[1:])


# --- low rank ---------------------------------------------------------------------------------------------------------


def thin_factors(view: View) -> tuple[Operator, Operator] | None:
    """The two factors of a term of low rank."""
    match = recognise_view(view)
    if match is None or match.kind not in ("low_rank", "outer_product") or view.batch:
        return None
    for _, cut in [(1, ()), *view.cuts()]:
        groups = view.components(cut)
        sides = {g.side for g in groups if g.side}
        if sides != {"R", "C"} or "RC" in sides:
            continue
        left = [k for g in groups if g.side != "C" for k in g.atoms]
        right = [k for g in groups if g.side == "C" for k in g.atoms]
        first, second = between(view, left, view.out, cut), between(view, right, cut, view.x)
        scaled = tuple(t._replace(coefficient=view.coefficient) for t in first.terms)
        return replace(first, terms=scaled), second
    return None


def rank_of(parts: tuple[Operator, Operator]) -> int:
    """The rank of two factors as `thin_factors` gives them."""
    return parts[0].size[1]
