"""One planned equation at known sizes and strides: a `Kernel`, and what it is launched with.

The second half of choosing a kernel (`views` is the first, `blocks` finds block sizes): the expression becomes leaves
over views, the sum a tile under loops, the result a store. Sizes and strides are arguments of the kernel, so that one
kernel serves all sizes of a kind; what is known of them in the code are zeros and ones, and all of them in a kernel
that is specialised.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ...ir.errors import BackendError
from ...ir.expr import Const, Einsum, Equation, Expr, Map, Position, Read, SizeValue, free_indices, walk
from ...ir.functions import CAST
from ...ir.lookup import split_lookups
from ...ir.semiring import PLUS_TIMES
from ...ir.text_print import print_equation
from ...ir.types import BF16, BOOL, F16, F32, I8, I16, I32, I64, U8, U16, DType
from .blocks import Blocks, Shape, blocks_of, roles
from .bulk import with_descriptors
from .functions import atomic_of
from .nodes import Apply, Coordinate, Kernel, Leaf, Literal, Loop, Nest, Number, Outer, Seq, Slot, Tensor, Tile
from .nodes import Map as MapNode
from .nodes import leaves as leaves_of
from .views import Layout, View, Views

WIDE_SPAN = (1 << 31) - (1 << 16)  # elements that an offset of 32 bits reaches, and a loop's last step beyond them
TITLE_WIDTH = 110
SMALL = 8  # factors and offsets up to this stand in the code
LEAST_SIDE = 8  # extents of M, N and K from which on a product goes to tensor cores


@dataclass(frozen=True)
class Settings:
    """How kernels are made: the precision of products of f32 ("ieee", "tf32", "tf32x3", "bf16", "fp16"), whether
    sizes and strides are written into the code, how many processors share the programs, and whether blocks may be moved
    by tensor descriptors.
    """

    precision: str = "ieee"
    specialise: bool = False
    processors: int = 132
    descriptors: bool = False


@dataclass(frozen=True)
class Chosen:
    """A kernel with its arguments: tensors of the program by parameter, numbers by parameter, and the programs.

    `work` is the type of what it writes, where that is not the equation's own (it is converted afterwards); `dot` says
    whether it is a product for tensor cores. `fill` says what must stand in the result before: anything (None), the 0
    of the semiring ("zero"), or the value of the equation's `update` ("update").
    """

    kernel: Kernel
    tensors: tuple[tuple[str, str], ...]
    numbers: tuple[tuple[str, int], ...]
    programs: int
    work: DType
    fill: str | None = None
    blocks: tuple[tuple[str, int], ...] = ()
    dot: bool = False


@dataclass(frozen=True)
class Chunk:
    """A sum over the index `index` in chunks of `length`, each of which is a position of the free index `number`.

    With length 0 the index is only kept apart from others, so that it has a block of its own.
    """

    index: str
    number: str = ""
    length: int = 0


def choose(
    equation: Equation,
    sizes: Mapping[str, int],
    layouts: Mapping[str, Layout],
    settings: Settings = Settings(),
    chunk: Chunk | None = None,
) -> Chosen:
    """The kernel of a planned equation whose operands and result lie as `layouts` says.

    Raises `BackendError` for what no kernel computes.

    >>> from ...ir.text import parse_ir
    >>> from ...ir.types import F32
    >>> text = "input x: f32[n]\\ny[i]: f32[n] = exp(x[i]) over i<n\\nreturn y"
    >>> layout = Layout.dense((1000,), F32)
    >>> chosen = choose(parse_ir(text).equations[0], {"n": 1000}, {"x": layout, "y": layout})
    >>> chosen.tensors, chosen.numbers, chosen.programs
    ((('x', 'x'), ('y', 'y')), (('n_i', 1000),), 1)
    """
    return _Chooser(equation, sizes, layouts, settings, chunk).chosen()


@dataclass
class _Chooser:
    equation: Equation
    sizes: Mapping[str, int]
    layouts: Mapping[str, Layout]
    settings: Settings
    chunk: Chunk | None = None
    numbers: dict[str, int] = field(default_factory=dict)

    def chosen(self) -> Chosen:
        equation = self.equation
        einsum = next((e for e in walk(equation.expr) if isinstance(e, Einsum)), None)
        factors: tuple[Expr, ...] = () if einsum is None else einsum.factors
        self.views = Views(equation, self.sizes, self.layouts)
        gathers, rest = split_lookups(factors)
        self.views.lookups = {found.index: found for found in gathers}
        looked = {self.views.axes[n] for n in self.views.lookups}
        leaves = [self.leaf(f) for f in rest]
        for found in gathers:
            users = [f for f in rest if found.index in free_indices(f)]
            if (not users and found.index in einsum_bound(einsum)) or not all(isinstance(f, Read) for f in users):
                leaves.append(self.found(found.index))
        collides = self.collides(looked)
        work = scattered_type(equation.dtype) if collides else equation.dtype
        epilogue = None if equation.expr is einsum else self.leaf(equation.expr, einsum)
        old = None
        covered = self.covers(looked, collides)
        if equation.update is not None and not collides:  # where not all is written, the result holds a copy of it
            old = self.views.read(Read(equation.update if covered else equation.name, equation.slots, equation.dtype))
        layout = replace(self.layouts[equation.name], dtype=work)
        self.views.layouts = {**self.views.layouts, equation.name: layout}
        out = self.views.result(equation.name, equation.slots).name
        free = tuple(self.views.axes[n] for n in equation.free if self.views.axes[n] not in looked)
        bound = () if einsum is None else tuple(self.views.axes[n] for n in einsum.bound)
        bound = tuple(a for a in bound if a not in looked)
        lists = tuple(
            self.views.axes[n] for found in gathers for n in found.lists if self.views.axes[n] not in (*free, *bound)
        )
        assert not lists, f"the lists of lookups {lists} are no indices of the equation"
        scattered = tuple(a for a in bound if a in self.views.views[out].strides)
        free, bound = (*free, *scattered), tuple(a for a in bound if a not in scattered)
        fixed = frozenset(a for leaf in (*leaves, epilogue) if leaf is not None for a in numbered(leaf))
        if self.chunk is not None:
            fixed |= {self.views.axes[n] for n in (self.chunk.index, self.chunk.number) if n}
        free, bound = self.views.simplify((free, bound), fixed)
        return self.assemble(einsum, leaves, epilogue, old, out, free, bound, collides, covered, work)

    # --- leaves -------------------------------------------------------------------------------------------------------

    def leaf(self, expr: Expr, total: Einsum | None = None) -> Leaf:
        """An expression as a leaf; `total` stands for the sum of the tile below."""
        if expr is total:
            assert total is not None
            return _cast("total", total.accumulate, total.dtype)
        match expr:
            case Const(value, dtype):
                return Literal(value, dtype)
            case SizeValue(size):
                return Literal(size.evaluate(self.sizes), I64)
            case Position(affine):
                terms = self.views.terms(affine)
                live = tuple((a, c) for a, c in terms if self.views.extents[a] != 1)
                return Coordinate(live, self.views.offset(affine), self.views.modulus(affine))
            case Read():
                return self.views.read(expr)
            case Map(function, args, dtype):
                return Apply(function, tuple(self.leaf(a, total) for a in args), dtype)
            case Einsum():
                raise AssertionError("a planned equation holds one sum")
        raise BackendError(
            f"the GPU target has no kernel for {type(expr).__name__.lower()} in '{self.equation.name}'",
            code="unsupported-node",
            help="target='cpu' has one",
        )

    def found(self, index: str) -> Leaf:
        """The condition that a looked-up position is there: a factor of the sum."""
        value = self.views.lookups[index].value
        assert isinstance(value, Read)
        table, extent = self.views.read(value), self.views.extents[self.views.axes[index]]
        least = Apply("ge", (table, Literal(0, value.dtype)), BOOL)
        return Apply(
            "logical_and", (least, Apply("lt", (Apply(CAST, (table,), I64), Literal(extent, I64)), BOOL)), BOOL
        )

    # --- the result ---------------------------------------------------------------------------------------------------

    def collides(self, looked: set[str]) -> bool:
        """Whether several points may be written to one place."""
        if any(self.views.axes[n] in looked for n in self.equation.free):
            return True
        strides: dict[str, int] = {}
        for slot, stride in zip(self.equation.slots, Layout.dense(self.shape, F32).strides, strict=True):
            for axis, factor in self.views.terms(slot):
                strides[axis] = strides.get(axis, 0) + factor * stride
        reach = 0
        for axis, stride in sorted(strides.items(), key=lambda pair: abs(pair[1])):
            extent = self.views.extents[axis]
            if extent > 1 and abs(stride) <= reach:
                return True
            reach += abs(stride) * (extent - 1)
        return any(
            self.views.extents[self.views.axes[n]] > 1 and self.views.axes[n] not in strides for n in self.equation.free
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layouts[self.equation.name].shape

    def covers(self, looked: set[str], collides: bool) -> bool:
        """Whether every position of the result is written, once."""
        points = elements = 1
        for name in self.equation.free:
            points *= self.views.extents[self.views.axes[name]]
        for extent in self.shape:
            elements *= extent
        return not looked & {self.views.axes[n] for n in self.equation.free} and not collides and points == elements

    # --- the kernel ---------------------------------------------------------------------------------------------------

    def assemble(
        self,
        einsum: Einsum | None,
        leaves: list[Leaf],
        epilogue: Leaf | None,
        old: str | None,
        out: str,
        free: tuple[str, ...],
        bound: tuple[str, ...],
        collides: bool,
        covered: bool,
        work: DType,
    ) -> Chosen:
        equation, views = self.equation, self.views
        shown = views.views
        blocks = self.blocks(einsum, leaves, free, bound, out)
        semiring = equation.semiring
        if old is not None:
            value: Leaf = "total" if epilogue is None else epilogue
            if epilogue is None:
                assert einsum is not None
                value = _cast("total", einsum.accumulate, einsum.dtype)
            value = _cast(value, _leaf_type(value, equation), equation.dtype)
            epilogue = Apply(semiring.add, (old, value), equation.dtype)
        elif epilogue is None and einsum is not None and einsum.dtype != equation.dtype and not collides:
            epilogue = _cast(_cast("total", einsum.accumulate, einsum.dtype), einsum.dtype, equation.dtype)
        leaves = [self.constant(leaf, f"f{k}") for k, leaf in enumerate(leaves)]
        epilogue = None if epilogue is None else self.constant(epilogue, "e")
        order = self.by_stride(free, out)
        nest: Nest
        if einsum is None:
            assert epilogue is not None
            nest = MapNode(out, epilogue, order)
        else:
            name = out if epilogue is None else "total"
            nest = Tile(name, tuple(leaves), order, bound, einsum.semiring, einsum.accumulate)
            for axis, block in reversed(blocks.loops):
                nest = Loop(axis, block, nest, reduced=True, chunk=self.chunk_of(axis))
            if epilogue is not None:
                nest = Seq((nest, MapNode(out, epilogue, order)))
        spans = [self.layouts[v.tensor].span for v in shown.values()] + [views.extents[x] for x in (*free, *bound)]
        tensors = tuple(self.tensor(v, collides and v.name == out) for v in self.used(leaves, epilogue, out))
        if self.settings.descriptors and blocks.dot and max(spans, default=0) <= WIDE_SPAN:
            tensors = with_descriptors(tensors, views, self.settings.precision, dict((*blocks.outer, *blocks.loops)))
        extents = tuple((a, self.number(f"n_{a}", views.extents[a])) for a in (*free, *bound))
        kernel = Kernel(
            tensors,
            extents,
            Outer(tuple(blocks.outer), nest, grouped=blocks.grouped),
            precision=self.settings.precision,
            wide=max(spans, default=0) > WIDE_SPAN,
            title=self.title(),
            warps=blocks.warps,
            stages=blocks.stages,
            fuse_multiply_add=einsum is not None and contracts(einsum, (*leaves, epilogue or "total")),
        )
        programs = 1
        for axis, block in blocks.outer:
            programs *= -(-views.extents[axis] // block)
        arguments = tuple(dict.fromkeys((t.argument, shown[t.name].tensor) for t in tensors))
        fill = None
        if equation.update is not None:
            fill = None if covered else "update"
        elif collides or not covered:
            fill = "zero"
        return Chosen(
            kernel,
            arguments,
            tuple(self.numbers.items()),
            programs,
            work,
            fill,
            (*blocks.outer, *blocks.loops),
            blocks.dot,
        )

    def chunk_of(self, axis: str) -> tuple[str, Number] | None:
        """The chunk that a loop is limited to."""
        chunk = self.chunk
        if chunk is None or not chunk.length or axis != self.views.axes[chunk.index]:
            return None
        return self.views.axes[chunk.number], self.number(f"l_{axis}", chunk.length)

    def blocks(
        self, einsum: Einsum | None, leaves: list[Leaf], free: tuple[str, ...], bound: tuple[str, ...], out: str
    ) -> Blocks:
        """The blocks of the axes."""
        views = self.views
        factors = tuple(frozenset(self.axes(leaf)) for leaf in leaves)
        units = frozenset(a for v in views.views.values() for a, s in v.strides.items() if abs(s) == 1)
        types = [_leaf_type(leaf, self.equation, views.views) for leaf in leaves]
        bits = max((t.bits for t in types), default=32)
        dot = einsum is not None and self.is_dot(einsum, types, factors, free, bound)
        if not einsum:
            factors = ()
        single = frozenset({views.axes[self.chunk.number]} if self.chunk and self.chunk.number else ())
        processors = self.settings.processors
        return blocks_of(Shape(free, bound, views.extents, factors, units, bits, dot, processors, single))

    def is_dot(
        self,
        einsum: Einsum,
        types: list[DType],
        factors: tuple[frozenset[str], ...],
        free: tuple[str, ...],
        bound: tuple[str, ...],
    ) -> bool:
        """Whether a sum is a product of two matrices for tensor cores, and large enough on each side."""
        if einsum.semiring != PLUS_TIMES or len(factors) != 2 or not bound:
            return False
        bytes_only = set(types) == {I8} and einsum.accumulate in (I8, I32)
        if not bytes_only and (einsum.accumulate != F32 or not set(types) <= {F16, BF16, F32}):
            return False
        a, b = factors
        _, rows, columns = roles(free, a, b)
        numbers = {self.views.axes[self.chunk.number]} if self.chunk and self.chunk.number else set()
        if not set(bound) <= a & b or not set(free) - numbers <= a | b:
            return False
        extents = self.views.extents
        return all(prod(extents[x] for x in axes) >= LEAST_SIDE for axes in (rows, columns, bound))

    def axes(self, leaf: Leaf) -> tuple[str, ...]:
        """The axes that a leaf depends on."""
        found: list[str] = []
        for part in leaves_of(leaf):
            if isinstance(part, str) and part in self.views.views:
                found += self.live(self.views.views[part])
            elif isinstance(part, Coordinate):
                found += [a for a, _ in part.terms]
        return tuple(dict.fromkeys(found))

    def live(self, view: View) -> list[str]:
        """The axes of a view: those with a stride, and those of its positions."""
        moved = {a for p in view.positions for a, _ in p.terms}
        for p in view.positions:
            if p.table:
                moved |= set(self.live(self.views.views[p.table]))
        return [a for a, s in view.strides.items() if s != 0 or a in moved]

    def by_stride(self, free: tuple[str, ...], out: str) -> tuple[str, ...]:
        """The axes of the result, the contiguous one last."""
        strides = self.views.views[out].strides
        return tuple(sorted(free, key=lambda a: -abs(strides.get(a, 0))))

    def used(self, leaves: list[Leaf], epilogue: Leaf | None, out: str) -> list[View]:
        """The views of a kernel in order of first use, the result last."""
        names: list[str] = []

        def add(name: str) -> None:
            view = self.views.views[name]
            for p in view.positions:
                if p.table:
                    add(p.table)
            if name not in names:
                names.append(name)

        for leaf in (*leaves, *(() if epilogue is None else (epilogue,))):
            for part in leaves_of(leaf):
                if isinstance(part, str) and part in self.views.views:
                    add(part)
        add(out)
        return [self.views.views[n] for n in names]

    def tensor(self, view: View, added: bool) -> Tensor:
        """The node of a view."""
        axes = self.live(view)
        name = view.name
        strides = tuple(self.number(f"s_{name}_{a}", view.strides[a]) for a in axes)
        slots = []
        for k, p in enumerate(view.positions):
            terms = tuple((a, self.small(f"c_{name}_{k}_{a}", c)) for a, c in p.terms)
            slots.append(
                Slot(
                    self.number(f"s_{name}_{k}", p.stride),
                    terms,
                    self.small(f"o_{name}_{k}", p.offset),
                    None if p.modulus is None else self.number(f"m_{name}_{k}", p.modulus),
                    None if p.extent is None else self.number(f"e_{name}_{k}", p.extent),
                    p.clamp,
                    p.table,
                )
            )
        memory = next(v.name for v in self.views.views.values() if v.tensor == view.tensor)
        offset = self.number(f"o_{name}", view.offset)
        return Tensor(name, tuple(axes), view.dtype, strides, False, memory, offset, tuple(slots), view.pad, added)

    def number(self, name: str, value: int) -> Number:
        """A size, stride or offset: in the code if it is 0 or 1 or all are, else an argument."""
        if self.settings.specialise or value in (0, 1):
            return value
        self.numbers[name] = value
        return name

    def small(self, name: str, value: int) -> Number:
        """A factor or offset of an index expression: small ones belong to the program, not to the sizes."""
        return value if abs(value) <= SMALL else self.number(name, value)

    def constant(self, leaf: Leaf, name: str) -> Leaf:
        """A leaf whose index expressions hold numbers or names of arguments."""
        if isinstance(leaf, Apply):
            return replace(leaf, args=tuple(self.constant(a, f"{name}_{k}") for k, a in enumerate(leaf.args)))
        if isinstance(leaf, Coordinate):
            numbers = [(a, c) for a, c in leaf.terms if isinstance(c, int)]
            assert len(numbers) == len(leaf.terms) and isinstance(leaf.offset, int)
            terms = tuple((a, self.small(f"c_{name}_{a}", c)) for a, c in numbers)
            modulus = leaf.modulus
            if isinstance(modulus, int):
                modulus = self.number(f"m_{name}", modulus)
            return Coordinate(terms, self.small(f"o_{name}", leaf.offset), modulus)
        return leaf

    def title(self) -> str:
        """The equation, for the head of the source."""
        types = {n: layout.dtype for n, layout in self.layouts.items()}
        lines = textwrap.wrap(print_equation(self.equation, types), TITLE_WIDTH, subsequent_indent="    ")
        for index, axis in self.views.axes.items():
            if index != axis:
                lines.append(f"{axis} is the index {index}")
        return "\n".join(lines)


def contracts(einsum: Einsum, leaves: Iterable[Leaf]) -> bool:
    """Whether the sum of an equation takes fused multiply-adds: `leaves`, its factors and its end, are plain values.

    A term then rounds once in place of twice, so the bound of the sum holds as it is (Higham, 2002, section 3.1).
    Elsewhere the contraction is left out: where a factor is computed, or something is computed from the sum, an
    unrounded product could turn up on the other side of a jump, and x*y - y*x would not be 0.
    """
    if einsum.semiring != PLUS_TIMES or einsum.accumulate.kind != "f":
        return False
    return all(not isinstance(part, Apply) or part.function == CAST for leaf in leaves for part in leaves_of(leaf))


def numbered(leaf: Leaf) -> set[str]:
    """Axes that a leaf uses as numbers: they are never merged with others."""
    return {a for part in leaves_of(leaf) if isinstance(part, Coordinate) for a, _ in part.terms}


def einsum_bound(einsum: Einsum | None) -> tuple[str, ...]:
    """The indices that a sum runs over."""
    return () if einsum is None else einsum.bound


def scattered_type(dtype: DType) -> DType:
    """The type in which values that meet at one place are added, by atomic operations."""
    if dtype in (F16, BF16):
        return F32
    if dtype in (BOOL, I8, I16, U8, U16):
        return I32
    return dtype


def check_scatter(equation: Equation, work: DType) -> None:
    """Raise `BackendError` where the GPU has no atomic operation for the sums of an equation."""
    if atomic_of(equation.semiring, work) is None:
        raise BackendError(
            f"the GPU cannot add {equation.dtype} values of '{equation.name}' that meet at one place "
            f"in the semiring {equation.semiring.name}",
            code="unsupported-scatter",
            help="target='cpu' can",
        )


def _cast(leaf: Leaf, have: DType, want: DType) -> Leaf:
    return leaf if have == want else Apply(CAST, (leaf,), want)


def _leaf_type(leaf: Leaf, equation: Equation, views: Mapping[str, View] | None = None) -> DType:
    match leaf:
        case Apply(dtype=dtype) | Literal(dtype=dtype):
            return dtype
        case Coordinate():
            return I64
        case str(name) if views is not None:
            return views[name].dtype
    return equation.expr.dtype
