"""Statements on tiles: products and sums (`Tile`), as `tl.dot` where they are that, elementwise functions (`Map`)."""

from __future__ import annotations

from dataclasses import replace

from ...ir.semiring import PLUS_TIMES, Scalar
from ...ir.types import BF16, BOOL, F16, F32, I8, I32, DType, accumulation_type, promote
from .emit import bare
from .functions import combine, product_of, reduced
from .nodes import Group, Leaf, Map, Tile, names_of, walk
from .scope import Scope
from .values import Value, convert, expand, literal, number_text, regroup, typed

DOT_TYPES = (F16, BF16, F32)
LEAST_DOT = 16  # positions that each of M, N and K must have in a `tl.dot`, in all versions of Triton
GROUP_ROWS = 64  # rows of M that one instruction of Hopper's warp-group products takes


def emit_tile(scope: Scope, tile: Tile) -> None:
    """Compute a tile and store it, if it is a tensor in memory that no loop around accumulates."""
    free = scope.frame.vectors(tile.free)
    held = scope.values.get(tile.out) if tile.add or tile.out in scope.carried else None
    dot = _dot_groups(scope, tile, free)
    if dot is not None:
        value = _dot(scope, tile, dot, held)
    else:
        value = _reduce(scope, tile, free, held)
    name = held.code if held is not None else scope.code.fresh(_stem(scope, tile.out))
    scope.code.do(f"{name} = {bare(value.code)}")
    if held is not None:  # a new value under an old name
        scope.code.known = {t: n for t, n in scope.code.known.items() if name not in t}
    scope.values[tile.out] = replace(value, code=name)
    finish(scope, tile.out, tile)


def _stem(scope: Scope, out: str) -> str:
    """How the value of a statement is called: a tensor in memory has its name already."""
    return f"{out}_out" if out in scope.tensors else out


def finish(scope: Scope, out: str, tile: Tile | None = None) -> None:
    """Store a result that is complete."""
    if out in scope.tensors and out not in scope.carried:
        value = scope.values.pop(out)
        scope.store(out, value, tile.semiring if tile is not None else PLUS_TIMES)


def emit_map(scope: Scope, node: Map) -> None:
    """Evaluate a leaf element by element."""
    first = next((scope.values[n] for n in names_of(node.leaf) if n in scope.values), None)
    axes = scope.frame.vectors(node.free) if node.free else scope.axes(node.leaf)
    if first is not None and set(axes) <= set(first.axes):
        groups = first.groups if set(axes) == set(first.axes) else tuple((a,) for a in axes)
    else:
        groups = tuple((a,) for a in axes)
    value = expand(scope.code, scope.frame, typed(scope.evaluate(node.leaf, groups)), groups)
    name = scope.code.fresh(_stem(scope, node.out))
    scope.code.do(f"{name} = {bare(value.code)}")
    scope.values[node.out] = replace(value, code=name, filled=None)
    finish(scope, node.out)


def accumulation(scope: Scope, tile: Tile) -> DType:
    """The type in which a tile sums."""
    if tile.accumulate is not None:
        return tile.accumulate
    joint = promote(*(scope.dtype(f) for f in tile.factors)) if tile.factors else F32
    return accumulation_type(joint)


# --- tl.dot -----------------------------------------------------------------------------------------------------------


def _dot_groups(scope: Scope, tile: Tile, free: tuple[str, ...]) -> tuple[Group, Group, Group, Group] | None:
    """(batch, M, K, N) where the tile is a product of matrices that tensor cores may take, else None."""
    if tile.semiring != PLUS_TIMES or len(tile.factors) != 2 or dot_type(scope, tile) is None:
        return None
    a, b = (scope.axes(f) for f in tile.factors)
    left, right = (_held_order(scope, f, free) for f in tile.factors)
    batch = tuple(x for x in left if x in free and x in b)
    rows = tuple(x for x in left if x in free and x not in b)
    columns = tuple(x for x in right if x in free and x not in a)
    summed = tuple(x for x in a if x in b and x not in free)
    if _is_held(scope, tile.factors[1]) and not _is_held(scope, tile.factors[0]):
        summed = tuple(x for x in b if x in summed)
    lone = [x for x in (*a, *b) if x not in free and x not in summed]
    if lone or not (rows and columns and summed) or set(batch + rows + columns) != set(free):
        return None
    least = min(scope.frame.width(g) for g in (rows, columns, summed))
    if least < LEAST_DOT or (dot_type(scope, tile) == I8 and scope.frame.width(summed) < 2 * LEAST_DOT):
        return None
    return batch, rows, summed, columns


def _is_held(scope: Scope, leaf: Leaf) -> bool:
    return isinstance(leaf, str) and leaf in scope.values


def _held_order(scope: Scope, leaf: Leaf, free: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of a leaf: in the order of a value in registers, or in that of the result."""
    axes = scope.axes(leaf)
    return axes if _is_held(scope, leaf) else tuple(x for x in free if x in axes)


def dot_type(scope: Scope, tile: Tile) -> DType | None:
    """The type of the operands of a `tl.dot`, None where sums or operands are of types that it has not."""
    found = tuple(dict.fromkeys(scope.dtype(f) for f in tile.factors))
    sums = accumulation(scope, tile)
    if found == (I8,) and sums in (I8, I32):
        return I8
    if sums != F32 or not set(found) <= set(DOT_TYPES):
        return None
    return found[0] if len(found) == 1 else F32


def _dot(scope: Scope, tile: Tile, dims: tuple[Group, Group, Group, Group], held: Value | None) -> Value:
    batch, rows, summed, columns = dims
    factors = tile.factors
    if not batch and (_gains(scope, tile, rows, columns) if held is None else held.groups == (columns, rows)):
        factors, rows, columns = factors[::-1], columns, rows
    outer = (batch,) if batch else ()
    kind = dot_type(scope, tile)
    assert kind is not None
    a = _dot_operand(scope, factors[0], (*outer, rows, summed), summed, kind)
    b = _dot_operand(scope, factors[1], (*outer, summed, columns), summed, kind)
    result = I32 if kind == I8 else F32
    groups = (*outer, rows, columns)
    accumulator = ""
    sums = accumulation(scope, tile)
    if held is not None:
        assert held.groups == groups, f"{tile.out} is carried as {held.groups}, the product gives {groups}"
        accumulator = f", {held.code}" if held.dtype == result else ""
    extra = f', input_precision="{scope.kernel.precision}"' if a.dtype == F32 else ""
    if kind == I8:
        extra = ", out_dtype=tl.int32"
    text = f"tl.dot({a.code}, {b.code}{accumulator}{extra})"
    value = convert(Value(text, groups, result), sums)
    if held is not None and not accumulator:
        value = replace(value, code=f"{held.code} + {value.code}")
    return value


def _gains(scope: Scope, tile: Tile, rows: Group, columns: Group) -> bool:
    """Whether the transposed product suits Hopper better: it has enough rows for a warp group, and this one has not.

    Operands that are in registers already have their places, and so has a result that is multiplied further.
    """
    if any(_is_held(scope, f) for f in tile.factors) or scope.frame.width(columns) < GROUP_ROWS:
        return False
    others = (n.factors for n in walk(scope.kernel.nest) if isinstance(n, Tile))
    multiplied = any(tile.out in names_of(f) for factors in others for f in factors)
    return scope.frame.width(rows) < GROUP_ROWS and not multiplied


def _dot_operand(scope: Scope, leaf: Leaf, groups: tuple[Group, ...], summed: Group, kind: DType) -> Value:
    """A factor with all of its dimensions, 0 beyond the ends of the axes that are summed."""
    value = expand(scope.code, scope.frame, typed(scope.evaluate(leaf, groups, 0)), groups)
    if value.filled != 0:
        value = _zeroed(scope, value, summed, 0, kind)
    value = convert(value, kind)
    if kind == F32 and scope.kernel.precision in ("bf16", "fp16"):
        value = convert(value, BF16 if scope.kernel.precision == "bf16" else F16)
    return value


def _zeroed(scope: Scope, value: Value, summed: Group, zero: Scalar, kind: DType) -> Value:
    """The value, `zero` beyond the ends of the summed axes."""
    mask = scope.inside(summed, value.groups)
    if not mask:
        return value
    value = typed(value)
    return replace(value, code=f"tl.where({mask}, {value.code}, {number_text(zero)})", filled=zero)


# --- multiply and reduce ----------------------------------------------------------------------------------------------


def _reduce(scope: Scope, tile: Tile, free: tuple[str, ...], held: Value | None) -> Value:
    code, frame, semiring = scope.code, scope.frame, tile.semiring
    summed = frame.vectors(tile.reduced)
    groups = tuple((a,) for a in (*free, *summed))
    sums = accumulation(scope, tile)
    zero, one = semiring.zero_of(sums), semiring.one_of(sums)
    factors = []
    for leaf in tile.factors:
        value = scope.evaluate(leaf, groups, zero)
        if value.dtype == BOOL and sums != BOOL:
            value = replace(
                typed(value),
                code=f"tl.where({value.code}, {typed(literal(one, sums)).code}, {number_text(zero)})",
                dtype=sums,
                filled=None,
            )
        factors.append(convert(value, sums))
    total = product_of(code, semiring, factors, sums)
    if summed:
        total = expand(code, frame, typed(total), groups)
        clean = all(f.filled == zero and set(summed) <= set(f.axes) for f in factors) and semiring in (PLUS_TIMES,)
        if not clean:
            total = _zeroed(scope, total, summed, zero, sums)
        total = reduced(code, semiring, total, len(summed), sums)
    kept = tuple((a,) for a in free)
    total = expand(code, frame, typed(total), kept)
    if held is not None:
        if held.groups != kept:
            total = regroup(code, frame, total, held.groups)
        total = combine(code, semiring.add, held, total, sums)
    return replace(total, dtype=sums, filled=None)
