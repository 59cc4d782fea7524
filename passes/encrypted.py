"""Programs on encrypted values: the ways to split their products into steps.

Under encryption nothing is fused, and what one step multiplies decides rotations and depth. A product of one encrypted
value with several clear factors is a chain of linear maps: the factors are applied in groups, one group after the
other, each multiplied out ahead (`A[i,j]*B[k,l]*x[j,l]`: B and then A, A and then B, or the whole matrix at once). A
product of several encrypted values is contracted in pairs. The target prices the variants; nothing is chosen here but
their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations, pairwise
from math import prod, sqrt

from ..ir.expr import Einsum, Equation, Expr, Map, Program, Read, children, free_indices, reads, walk, with_children
from ..ir.semiring import PLUS_TIMES
from .base import Context, run_passes
from .common import equation_key, with_names
from .lifted import lifted
from .paths import find_path
from .pipeline import NORMAL_PASSES
from .recognise import Finding, NearMiss, examine
from .structured import rewritten
from .tools import Names, definition, read_of, rebuilt

MOST_WAYS = 8  # ways to split one product that become variants
MOST_FACTORS = 5  # clear factors of one product that are split in every way; of more, neighbours stay together
ROOM = 4  # how many times the larger of argument and result an encrypted value between steps may hold
SMALL = 1 << 12  # elements that an encrypted value between steps may always hold
LANES = 1 << 12  # products of numbers that one product of ciphertexts does, for the order of the variants only


@dataclass(frozen=True)
class Variant:
    """An equal program, each of whose equations on encrypted values is one step. `name` tells how it differs.

    `effort` is a rough figure of what its steps take, in milliseconds: good for an order, and for no more.
    """

    name: str
    program: Program
    finding: Finding | None = None
    effort: float = 0.0


@dataclass(frozen=True)
class Variants:
    """All variants, the most promising first, and what was proved of the program on the way."""

    variants: tuple[Variant, ...]
    findings: tuple[Finding, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()


def variants(program: Program, context: Context, structure: bool = True) -> Variants:
    """The variants of a program whose sizes are all numbers.

    Without `structure` nothing is recognised, and every product is multiplied out in one step.

    >>> from ..ir.text import parse_ir
    >>> inputs = "input A: f64[32, 32]\\ninput B: f64[32, 32]\\ninput encrypted x: f64[32, 32]\\n"
    >>> product = "y[i, k]: f64[32, 32] = einsum[plustimes, f64](j, l; A[i, j], B[k, l], x[j, l])"
    >>> text = inputs + product + " over i<32, j<32, k<32, l<32\\nreturn y"
    >>> [v.name for v in variants(parse_ir(text), Context()).variants]
    ['kronecker: A, then B', 'kronecker: B, then A', 'kronecker: A B as one matrix']
    """
    normal, _ = run_passes(program, NORMAL_PASSES, context)
    if not structure:
        return Variants((Variant("dense", normal),))
    whole = lifted(program)
    found, missed = examine(whole, None, context.sizes)
    secret = {i.name for i in program.inputs if i.encrypted}
    table = _Table(secret)
    values = table.values(whole)
    mine = [f for f in found if f.term is not None and f.number is None and f.argument in values]
    table.add(normal, mine[0] if mine and table.sites(normal) else None)
    for rewrite, finding in _rewrites(whole, mine, context):
        table.add(run_passes(rewrite, NORMAL_PASSES, context)[0], finding)
    return Variants(tuple(table.ranked()), found, missed)


def _rewrites(program: Program, found: Sequence[Finding], context: Context) -> Iterator[tuple[Program, Finding]]:
    """The program in which every value is computed through what was found of it; then one value after the other."""
    joint, first = program, None
    for finding in found:
        if first is None or finding.value != first.value:
            plain = dict(rewritten(joint, finding, context.sizes)).get("contraction")
            joint, first = (joint, first) if plain is None else (plain, first or finding)
    if first is not None:
        yield joint, first
    for finding in found:
        plain = dict(rewritten(program, finding, context.sizes)).get("contraction")
        if plain is not None:
            yield plain, finding


class _Table:
    """Variants so far, each program once, with a figure to order them by."""

    def __init__(self, encrypted: Set[str]) -> None:
        self.encrypted = encrypted
        self.found: dict[str, Variant] = {}
        self.seen: set[tuple[tuple[str, ...], ...]] = set()

    def add(self, normal: Program, finding: Finding | None) -> None:
        """Adds the ways to split a normal program: the best way for each product, and each other way for one."""
        sites = self.sites(normal)
        factors = tuple(sorted(tuple(sorted(map(_name, (*s.secret, *s.clear)))) for s in sites))
        if sites and factors in self.seen:  # the same products as before, with another order of digits in between
            return
        self.seen.add(factors)
        ways = [[*_ways(s)][:MOST_WAYS] for s in sites]
        chosen = [w[0] for w in ways]
        picks = [chosen] + [[*chosen[:k], w, *chosen[k + 1 :]] for k, own in enumerate(ways) for w in own[1:]]
        for pick in picks:
            program = _split(normal, sites, pick)
            label = _label(program)
            text = "; ".join(dict.fromkeys(_way_text(s, w) for s, w in zip(sites, pick, strict=True)))
            kind = finding.kind.replace("_", " ") if finding is not None else ""
            effort = sum(_effort(e, self.values(program)) for e in program.equations)
            variant = Variant(": ".join(w for w in (kind, text) if w) or "as written", program, finding, effort)
            known = self.found.get(label)
            if known is None or known.finding is None:
                self.found[label] = variant

    def sites(self, program: Program) -> list[_Site]:
        """The products of a normal program that can be split."""
        return [s for e in program.equations for s in _sites(e, self.values(program))]

    def values(self, program: Program) -> set[str]:
        """The encrypted tensors of a program."""
        found = set(self.encrypted)
        for equation in program.equations:
            if found & {r.tensor for r in reads(equation.expr)} or equation.update in found:
                found.add(equation.name)
        return found

    def ranked(self) -> list[Variant]:
        """The variants, those of the least effort first."""
        return sorted(self.found.values(), key=lambda v: v.effort)


def _effort(equation: Equation, encrypted: Set[str]) -> float:
    """Roughly the milliseconds of the products of an equation; nothing for one that only moves or adds."""
    extents = {i.name: i.extent.evaluate({}) for i in equation.indices}
    total = 0.0
    for node in walk(equation.expr):
        if isinstance(node, Einsum) or (isinstance(node, Map) and node.function == "mul"):
            below = [r for f in children(node) for r in reads(f)]
            hidden = [r for r in below if r.tensor in encrypted]
            if hidden and len(children(node)) > 1:
                names = {n for r in hidden for n in free_indices(r)} | set(free_indices(node))
                total += _step_effort(_points(names, extents))
    return total


def _step_effort(points: int) -> float:
    """The same for one step that does so many products of numbers."""
    return 8 + 3 * sqrt(points / LANES) + 0.13 * points / LANES


def _label(program: Program) -> str:
    """A text that programs of the same steps share, whatever their values and indices are called."""
    names: dict[str, str] = {}
    for equation in program.equations:
        text = equation_key(with_names(equation, names))
        names[equation.name] = blake2b(text.encode(), digest_size=12).hexdigest()
    return " ".join((*(names.get(n, n) for n in program.outputs), "|", *sorted(names.values())))


# --- products that can be split ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Site:
    """A product in an equation: the encrypted factors and the clear ones, and the indices that are left over."""

    equation: Equation
    einsum: Einsum
    secret: tuple[Expr, ...]
    clear: tuple[Expr, ...]
    extents: Mapping[str, int]

    @property
    def kept(self) -> frozenset[str]:
        """The indices of the result."""
        return frozenset(free_indices(self.einsum))


@dataclass(frozen=True)
class _Way:
    """Groups of factors, as numbers in `secret + clear`: each group is multiplied with the result of the one before.

    With several encrypted factors (`tree`) the groups are pairs of positions, as a path has them. `sizes` are the
    products of numbers in each step, and the elements of its result.
    """

    groups: tuple[tuple[int, ...], ...]
    price: float = 0.0
    tree: bool = False
    sizes: tuple[tuple[int, int], ...] = ()


def _sites(equation: Equation, encrypted: Set[str]) -> Iterator[_Site]:
    """The outermost products of an equation that have an encrypted factor and at least three factors."""

    def secret(expr: Expr) -> bool:
        return any(r.tensor in encrypted for r in reads(expr))

    def visit(expr: Expr) -> Iterator[_Site]:
        if isinstance(expr, Einsum) and expr.semiring == PLUS_TIMES and expr.bound and len(expr.factors) > 2:
            hidden = tuple(f for f in expr.factors if secret(f))
            clear = tuple(f for f in expr.factors if not secret(f))
            if hidden:
                extents = {i.name: i.extent.evaluate({}) for i in equation.indices}
                yield _Site(equation, expr, hidden, clear, extents)
            return
        for child in children(expr):
            yield from visit(child)

    yield from visit(equation.expr)


def _ways(site: _Site) -> list[_Way]:
    """The ways to split a product, cheapest first."""
    if len(site.secret) > 1:
        factors = (*site.secret, *site.clear)
        sets = [frozenset(free_indices(f)) for f in factors]
        path = find_path(sets, site.kept, dict(site.extents))
        return [_Way(path, tree=True)]
    ways = sorted(_chains(site), key=lambda w: w.price)
    first = {w.sizes: w for w in reversed(ways)}  # of ways whose steps have the same sizes
    return [*(w for w in ways if first[w.sizes] is w), *(w for w in ways if first[w.sizes] is not w)]


def _chains(site: _Site) -> Iterator[_Way]:
    """Every order of groups of the clear factors that keeps the values between steps small."""
    sets = [frozenset(free_indices(f)) for f in site.clear]
    start = frozenset(free_indices(site.secret[0]))
    limit = max(SMALL, ROOM * max(_points(start, site.extents), _points(site.kept, site.extents)))
    blocks = _blocks(len(sets))

    def after(value: frozenset[str], group: frozenset[int], left: frozenset[int]) -> frozenset[str]:
        joint = value.union(*(sets[b] for k in group for b in blocks[k]))
        rest = site.kept.union(*(sets[b] for k in left for b in blocks[k]))
        return joint & rest

    def extend(value: frozenset[str], left: frozenset[int], way: _Way) -> Iterator[_Way]:
        if not left:
            yield way
            return
        for count in range(1, len(left) + 1):
            for chosen in combinations(sorted(left), count):
                group = frozenset(chosen)
                factors = tuple(b for k in chosen for b in blocks[k])
                result = after(value, group, left - group)
                scaled = result == value and (way.groups or left - group)
                if scaled or (left - group and _points(result, site.extents) > limit):
                    continue
                used = value.union(*(sets[b] for b in factors))
                points = _points(used & (value | result), site.extents)
                price = way.price + _step_effort(points)
                sizes = (*way.sizes, (points, _points(result, site.extents)))
                yield from extend(result, left - group, _Way((*way.groups, factors), price, False, sizes))

    found = [*extend(start, frozenset(range(len(blocks))), _Way(()))]
    return iter(found or [_Way((tuple(range(len(sets))),))])


def _blocks(count: int) -> list[tuple[int, ...]]:
    """The factors in at most `MOST_FACTORS` runs of neighbours."""
    number = min(count, MOST_FACTORS)
    bounds = [round(k * count / number) for k in range(number + 1)] if number else [0]
    return [tuple(range(a, b)) for a, b in pairwise(bounds)]


def _points(names: Set[str], extents: Mapping[str, int]) -> int:
    return prod(extents[n] for n in names)


def _way_text(site: _Site, way: _Way) -> str:
    """`A, then B C`: what is multiplied in which step."""
    if way.tree:
        return "in pairs"
    names = [" ".join(_name(site.clear[k]) for k in group) for group in way.groups]
    return ", then ".join(names) if len(names) > 1 else f"{names[0]} as one matrix"


def _name(factor: Expr) -> str:
    found = dict.fromkeys(r.tensor for r in reads(factor))
    return "*".join(found) or "1"


# --- splitting --------------------------------------------------------------------------------------------------------


def _split(program: Program, sites: Sequence[_Site], ways: Sequence[_Way]) -> Program:
    """The program in which each site is split in its way."""
    names = Names(program)
    out: list[Equation] = []
    for equation in program.equations:
        expr = equation.expr
        for site, way in zip(sites, ways, strict=True):
            if site.equation is equation:
                made = _tree(site, way, names, out) if way.tree else _chain(site, way, names, out)
                expr = _swapped(expr, site.einsum, made)
        out.append(equation if expr is equation.expr else rebuilt(equation, expr, equation.extents))
    return replace(program, equations=tuple(out))


def _chain(site: _Site, way: _Way, names: Names, out: list[Equation]) -> Expr:
    value = site.secret[0]
    for k, group in enumerate(way.groups):
        factors = (*(site.clear[f] for f in group), value)
        if k == len(way.groups) - 1:
            return _product(site, factors, site.kept, last=True)
        rest = [f for g in way.groups[k + 1 :] for f in g]
        need = site.kept.union(*(free_indices(site.clear[f]) for f in rest))
        value = _stored(site, _product(site, factors, need), need, names, out)
    raise AssertionError("a chain without a step")


def _tree(site: _Site, way: _Way, names: Names, out: list[Equation]) -> Expr:
    left: list[Expr] = [*site.secret, *site.clear]
    for number, step in enumerate(way.groups):
        chosen = tuple(left[k] for k in step)
        left = [f for k, f in enumerate(left) if k not in step]
        if number == len(way.groups) - 1 and not left:
            return _product(site, chosen, site.kept, last=True)
        need = site.kept.union(*(free_indices(f) for f in left))
        left.append(_stored(site, _product(site, chosen, need), need, names, out))
    raise AssertionError("a path that does not end")


def _product(site: _Site, factors: tuple[Expr, ...], need: Set[str], last: bool = False) -> Einsum:
    inside = {n for f in factors for n in free_indices(f)}
    used = {n for f in (*site.secret, *site.clear) for n in free_indices(f)}
    bound = tuple(b for b in site.einsum.bound if b not in need and (b in inside or (last and b not in used)))
    dtype = site.einsum.dtype if last else site.einsum.accumulate
    return replace(site.einsum, bound=bound, factors=factors, dtype=dtype)


def _stored(site: _Site, product: Einsum, need: Set[str], names: Names, out: list[Equation]) -> Read:
    axes = [n for n in site.equation.extents if n in free_indices(product) and n in need]
    name = names.numbered(site.equation.name)
    made = definition(name, axes, product, site.equation.extents, product.dtype, site.equation.semiring)
    out.append(replace(made, span=site.einsum.span if site.einsum.span.end else site.equation.span))
    return read_of(made)


def _swapped(expr: Expr, old: Expr, new: Expr) -> Expr:
    """`expr` with one node of it replaced."""
    if expr is old:
        return new
    below = children(expr)
    made = tuple(_swapped(c, old, new) for c in below)
    return expr if all(a is b for a, b in zip(below, made, strict=True)) else with_children(expr, made)
