"""From a `Choice` to a `Kernel` and the arguments of its call.

Kernels are built from a `Recipe`, which holds classes of strides instead of sizes, so equal recipes share one kernel.
The order of the argument words is that of `lower`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ...ir.loops import RUN_TIME, TABLE, Kernel, Load, Loop, Nest, Outer, Pack, Share, Tile
from .choose import LONG_SUM, Choice, nanoseconds
from .machine import Machine
from .plan import Stage
from .problem import Form, Line, Problem

Stride = int | str
_Pairs = tuple[tuple[int, int], ...]
_Triples = tuple[tuple[int, int, int], ...]
_Tables = tuple[tuple[int, _Pairs], ...]
_SHARES = 4  # outer positions from which on they are what threads share
_BLOCKS = 8  # of the vector axis from which on threads may share it
_WORTH_SHARING = 60_000.0  # cycles from which on a specialised kernel is split among threads
_DEPTH_BYTES = 2048  # of one row of a panel: 512 steps in single precision
_PAGE = 4096


@dataclass(frozen=True)
class Recipe:
    """A kernel but for its sizes. `names` are the axes in order; `steps` are names of block arguments."""

    form: Form
    family: str
    names: tuple[str, ...]
    extents: tuple[int | None, ...]
    strides: tuple[tuple[Stride, ...], ...]
    free: tuple[str, ...]
    reduced: tuple[str, ...]
    lanes: int
    height: int
    width: int
    vectors: int
    flip: bool
    rows_first: bool
    blocked: tuple[str, ...]
    outer: str  # "", "shared" or "all"
    share: str
    grain: int


def ladder(size: int) -> tuple[int, ...]:
    """Heights of the blocks of rows: 8, 2, 1 is as fast as 8, 4, 2, 1 with a quarter less code.

    >>> ladder(8), ladder(4), ladder(1)
    ((8, 2, 1), (4, 1), (1,))
    """
    return tuple(dict.fromkeys([*(size >> k for k in (0, 2) if size >> k), 1]))


@lru_cache(maxsize=4096)
def kernel_of(recipe: Recipe) -> Kernel:
    """The kernel of a recipe."""
    form, across = recipe.form, "v" in recipe.reduced
    packed = recipe.family == "packed"
    factors = form.factors
    panels = {f: len(form.dtypes) + i for i, f in enumerate(_panel_order(recipe))} if packed else {}
    if packed:
        factors = tuple(Load(panels[f] - 1) for f in range(len(form.factors)))
    few = not across and "u" not in recipe.free and len(form.inputs) <= 2 and not form.streaming
    unroll = 2 if few or (packed and not form.bytewise) else 1
    tile = Tile(
        factors, recipe.free, recipe.reduced, "v", recipe.lanes, form.accumulate, form.semiring, form.epilogue,
        vectors=recipe.vectors, unroll=unroll, flip="u" if recipe.flip else "", blocked=recipe.blocked,
        update=form.update,
    )  # fmt: skip
    nest = _packed_nest(recipe, tile, panels) if packed else _direct_nest(recipe, tile)
    if recipe.outer:
        nest = Outer(nest, shared=recipe.outer == "shared")
    if recipe.share:
        nest = Share(recipe.share, recipe.grain, nest)
    return Kernel(form.dtypes, recipe.names, recipe.extents, recipe.strides, nest, slots=2 if packed else 0)


def _vector_steps(recipe: Recipe) -> tuple[int, ...]:
    lanes = recipe.lanes
    if recipe.flip:
        return (lanes, lanes)
    return (recipe.vectors * lanes, lanes) if recipe.vectors > 1 else (lanes,)


def _direct_nest(recipe: Recipe, tile: Tile) -> Nest:
    nest: Nest = tile
    across = "v" in recipe.reduced
    vector_inside = recipe.rows_first
    if vector_inside and not across:
        nest = Loop("v", _vector_steps(recipe), nest, cut=True)
    if "u" in recipe.free:
        nest = Loop("u", (recipe.height, 1) if recipe.flip else ladder(recipe.height), nest)
    if "x" in recipe.free:
        nest = Loop("x", ladder(recipe.width), nest)
    if not vector_inside and not across:
        nest = Loop("v", _vector_steps(recipe), nest, cut=recipe.lanes > 1)
    if recipe.family == "stream":
        nest = Loop(recipe.reduced[0], ("kc",), nest, cut=True, reduced=True)
    return nest


def _panel_order(recipe: Recipe) -> tuple[int, int]:
    """(the factor that lacks v: the left one; the one that has it)."""
    v = recipe.names.index("v")
    right = next(f for f, ts in enumerate(recipe.form.tensors_of) if any(recipe.strides[t][v] != 0 for t in ts))
    return 1 - right, right


def _packed_nest(recipe: Recipe, tile: Tile, panels: dict[int, int]) -> Nest:
    """Goto and van de Geijn's loops ("Anatomy of high-performance matrix multiplication", 2008) around a register
    tile.
    """
    left, right = _panel_order(recipe)
    form, inner = recipe.form, recipe.reduced
    nest: Nest = Loop("v", _vector_steps(recipe), Loop("u", ladder(recipe.height), tile), cut=True)
    nest = Pack(form.factors[left], panels[left], form.accumulate, "u", ladder(recipe.height), inner, 1, nest)
    nest = Loop("u", ("mc",), nest, cut=True)
    nest = Pack(form.factors[right], panels[right], form.accumulate, "v", _vector_steps(recipe), inner, 0, nest)
    if form.partial:
        for axis in reversed(inner):
            nest = Loop(axis, (_depth_name(axis),), nest, cut=True, reduced=True)
    return Loop("v", ("nc",), nest, cut=True)


# --- arguments -------------------------------------------------------------------------------------------------------


def stage_of(
    problem: Problem,
    choice: Choice,
    machine: Machine,
    constants: bool,
    buffers: tuple[int, ...],
    kernels: dict[tuple[str, int, str], Kernel] | None = None,
) -> Stage:
    """The kernel of a choice with its arguments; `buffers` says where each tensor lies.

    `kernels` holds those made before for the same choice and classes of strides, and takes a new one.
    """
    form = problem.form
    lines = problem.lines or (Line(1, (form.sizes[0], *(0,) * (len(form.sizes) - 1)), False),)
    names = _names(choice)
    inside = list(names)
    blocks = _blocks(form, lines, choice, machine)
    sizes = [lines[i].extent for i in inside] + [size for _, size in blocks]
    count = prod([lines[i].extent for i in choice.outer])
    share, grain = (
        ("", 1) if constants and choice.cycles < _WORTH_SHARING else share_of(form, lines, choice, names, count)
    )
    outer = "" if not choice.outer else "all" if share or form.collides else "shared"
    kernel = kernels.get((share, grain, outer)) if kernels is not None else None
    if kernel is None:
        fixed = sizes if constants else None
        kernel = kernel_of(_recipe(form, lines, choice, names, blocks, fixed, share, grain, outer))
        if kernels is not None:
            kernels[share, grain, outer] = kernel
    shares = count if outer == "shared" else 1
    if share:
        extent = next(lines[i].extent for i, name in names.items() if name == share)
        shares = -(-extent // grain)
    words, pointers, scratch, tables = _words(problem, lines, choice, kernel, inside, sizes, blocks, buffers)
    time = nanoseconds(problem, choice, machine)
    return Stage(kernel, choice.family, words, pointers, scratch, shares, time, tables)


def base_kernel(problem: Problem, choice: Choice, machine: Machine) -> tuple[Kernel, tuple[int, ...], dict[int, str]]:
    """The kernel of one position of the outer axes, for any sizes; its extents in order, and names of the axes."""
    names = _names(choice)
    blocks = _blocks(problem.form, problem.lines, choice, machine)
    sizes = (*(problem.lines[i].extent for i in names), *(size for _, size in blocks))
    recipe = _recipe(problem.form, problem.lines, choice, names, blocks, None, "", 1, "")
    return kernel_of(recipe), sizes, names


def _recipe(
    form: Form,
    lines: tuple[Line, ...],
    choice: Choice,
    names: dict[int, str],
    blocks: list[tuple[str, int]],
    fixed: list[int] | None,
    share: str,
    grain: int,
    outer: str,
) -> Recipe:
    """What of a choice goes into the kernel; `fixed` are the sizes of a specialised one."""
    inside = list(names)
    rows = tuple(
        tuple(_stride_class(form, lines, choice, names, i, t, fixed is not None) for i in inside)
        + tuple(TABLE if name == "kt" and t in form.inputs else 0 for name, _ in blocks)
        for t in range(len(form.dtypes))
    )
    axes = (*(names[i] for i in inside), *(name for name, _ in blocks))
    extents = (
        tuple(n if name != "kt" else None for n, name in zip(fixed, axes, strict=True))
        if fixed
        else (None,) * len(axes)
    )
    reduced = (("kt",) if choice.table else ()) + tuple(names[i] for i in choice.loops)
    if lines[choice.vector].reduced:
        reduced = (*reduced, "v")
    free = tuple(
        names[i] for i in (choice.rows, choice.columns, choice.vector) if i is not None and not lines[i].reduced
    )
    blocked = tuple("kt" if i < 0 else names[i] for i in choice.blocked)
    return Recipe(
        form, choice.family, axes, extents, rows, free, reduced, choice.lanes, choice.height, choice.width,
        choice.vectors, choice.flip, choice.rows_first, blocked, outer, share, grain,
    )  # fmt: skip


def _names(choice: Choice) -> dict[int, str]:
    names = {choice.vector: "v"}
    if choice.rows is not None:
        names[choice.rows] = "u"
    if choice.columns is not None:
        names[choice.columns] = "x"
    for j, i in enumerate(choice.loops):
        names[i] = f"k{j}"
    return names


def share_of(form: Form, lines: tuple[Line, ...], choice: Choice, names: dict[int, str], count: int) -> tuple[str, int]:
    """What lo..hi counts where outer positions are too few: blocks of the register axis that has most of them.

    Where operands are packed, every thread packs the whole of the operand that lacks the shared axis: the axis is taken
    for which that is the smaller one, if it has blocks enough.
    """
    if choice.family == "serial" or count >= _SHARES:
        return "", 1
    if choice.family == "packed" and choice.rows is not None:
        wide, (rows, columns) = choice.vectors * choice.lanes, (lines[choice.rows], lines[choice.vector])
        whole_left = sum(not columns.strides[t] for t in form.inputs) * rows.extent
        whole_right = sum(not rows.strides[t] for t in form.inputs) * columns.extent
        if whole_left < whole_right and columns.extent >= _BLOCKS * wide:
            return "v", wide
    best, most = ("", 1), 1
    whole = {"v": choice.vectors * choice.lanes, "u": choice.height, "x": choice.width}
    for i, name in names.items():
        if name in whole and not lines[i].reduced:
            blocks = -(-lines[i].extent // whole[name])
            if blocks > most or (not best[0] and not choice.outer):
                best, most = (name, whole[name]), blocks
    return best


def _blocks(form: Form, lines: tuple[Line, ...], choice: Choice, machine: Machine) -> list[tuple[str, int]]:
    """Arguments that are no axes of the problem: cache blocks, and the length of the offset table."""
    if choice.table:
        return [("kt", prod(lines[i].extent for i in choice.table))]
    if choice.family == "stream":
        longest = lines[choice.loops[0]].extent
        return [("kc", 8 if longest <= LONG_SUM else int(longest**0.5))]  # as many blocks as terms in one: accuracy
    if choice.family != "packed":
        return []
    size = form.accumulate.itemsize
    deep = _DEPTH_BYTES // size if form.partial else None
    depths = _depths([lines[i].extent for i in choice.loops], deep)
    depth = prod(depths)
    tall, wide = choice.height, choice.vectors * choice.lanes
    mc = max(tall, machine.level2 // 3 // (depth * size) // tall * tall)
    nc = max(wide, (5 << 20) // (depth * size) // wide * wide)
    named = [(_depth_name(f"k{j}"), n) for j, n in enumerate(depths)]
    return [("mc", min(mc, 512 // tall * tall)), ("nc", min(nc, 4080 // wide * wide)), *named]


def _depth_name(axis: str) -> str:
    """The name of the block of a reduced axis."""
    return axis.replace("k", "kc")


def _depths(extents: list[int], budget: int | None) -> list[int]:
    """Even blocks of nested reductions, innermost filled first, of about `budget` steps together (None: no blocks)."""
    depths: list[int] = []
    for extent in reversed(extents):
        if budget is None:
            depths.insert(0, extent)
            continue
        rounds = -(-extent // max(1, budget))
        block = min(extent, -(-extent // (4 * rounds)) * 4) if budget >= 4 else 1
        depths.insert(0, block)
        budget //= block
    return depths


def _stride_class(
    form: Form, lines: tuple[Line, ...], choice: Choice, names: dict[int, str], i: int, tensor: int, constants: bool
) -> Stride:
    """How a stride appears in the kernel: 0 and "contiguous" are part of its shape, others are arguments."""
    stride, size, name = lines[i].strides[tensor], form.sizes[tensor], names[i]
    if constants:
        return stride
    if name == "v":
        if choice.cold:
            return 0 if tensor == 0 and lines[i].reduced else RUN_TIME
        return stride if stride in (0, size) else RUN_TIME
    if stride == size and tensor:
        if choice.flip and name == "u":
            return stride
        if choice.family == "packed" and lines[choice.vector].strides[tensor] != size:
            return stride
    return 0 if stride == 0 and (name in "ux" or tensor == 0 or choice.family == "packed") else RUN_TIME


def _words(
    problem: Problem,
    lines: tuple[Line, ...],
    choice: Choice,
    kernel: Kernel,
    inside: list[int],
    sizes: list[int],
    blocks: list[tuple[str, int]],
    buffers: tuple[int, ...],
) -> tuple[tuple[int, ...], _Triples, _Pairs, _Tables]:
    tensors = range(len(kernel.dtypes))
    pointers = tuple((t, buffers[t], problem.offsets[t]) for t in tensors)
    words = [0] * (len(kernel.dtypes) + kernel.slots)
    words += [n for n, fixed in zip(sizes, kernel.extents, strict=True) if fixed is None]
    tables = []
    for t in tensors:
        row = kernel.strides[t]
        words += [lines[i].strides[t] for i, stride in zip(inside, row, strict=False) if stride == RUN_TIME]
        if TABLE in row:
            tables.append((len(words), tuple((lines[i].extent, lines[i].strides[t]) for i in choice.table)))
            words.append(0)
    if choice.outer:
        extents = [lines[i].extent for i in choice.outer]
        words += [len(extents), prod(extents), *extents]
        for t in tensors:
            words += [lines[i].strides[t] for i in choice.outer]
    scratch: tuple[tuple[int, int], ...] = ()
    if choice.family == "packed":
        named, bytes_ = dict(blocks), problem.form.accumulate.itemsize
        depth = prod(size for name, size in blocks if name.startswith("kc"))
        wide, tall = choice.vectors * choice.lanes, choice.height
        columns = min(named["nc"], -(-lines[choice.vector].extent // wide) * wide) + wide
        height = min(named["mc"], -(-lines[choice.rows or 0].extent // tall) * tall) + tall
        first = len(kernel.dtypes)
        scratch = ((first, columns * depth * bytes_ + _PAGE), (first + 1, height * depth * bytes_ + _PAGE))
    return tuple(words), pointers, scratch, tuple(tables)
