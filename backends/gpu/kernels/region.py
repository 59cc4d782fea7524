"""A region: equations of a planned program that one plan may compute together, seen with one set of axes.

An index of an equation means nothing outside of it. Here, what one equation writes and another reads is followed, so
that an axis has one name throughout; reads become tensors of a kernel, expressions become its leaves. Matchers look at
regions, plans are made of their tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ....ir.expr import Const, Einsum, Equation, Expr, Map, Position, Program, Read, SizeValue, reads, walk
from ....ir.functions import CAST
from ....ir.semiring import PLUS_TIMES
from ....ir.types import F32, I64
from .. import nodes
from ..nodes import Apply, Coordinate, Leaf, Literal, Nest, Number, Tensor, Tile
from ..views import Layout, Names

Place = tuple[int, str]  # an equation of the region, and one of its indices


@dataclass(frozen=True)
class Product:
    """The sum `einsum` in equation number `equation`: a product of two tensors, summed."""

    equation: int
    einsum: Einsum
    operands: tuple[Read, Read]


@dataclass
class Region:
    """Equations in order, of which the last is stored, at known sizes and layouts.

    `same` are places of one axis beside those that follow from the program. `avoid` are names that a plan uses itself.
    `running` are axes whose extent the kernel takes as an argument.
    """

    program: Program
    equations: tuple[Equation, ...]
    sizes: Mapping[str, int]
    layouts: Mapping[str, Layout]
    same: tuple[tuple[Place, Place], ...] = ()
    avoid: tuple[str, ...] = ()
    running: frozenset[str] = frozenset()
    numbers: dict[str, int] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)
    _axes: dict[Place, str] = field(default_factory=dict)
    _views: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = {e.name: k for k, e in enumerate(self.equations)}
        self._names = Names()
        for name in self.avoid:
            self._names.of(name)
        parent: dict[Place, Place] = {}

        def root(place: Place) -> Place:
            while place in parent:
                place = parent[place]
            return place

        def join(a: Place, b: Place) -> None:
            a, b = root(a), root(b)
            if a != b:
                parent[max(a, b)] = min(a, b)

        for k, equation in enumerate(self.equations):
            for read in reads(equation.expr):
                if read.tensor in self.inside:
                    made = self.equations[self.inside[read.tensor]]
                    for mine, theirs in zip(read.slots, made.slots, strict=True):
                        if mine.bare is not None and theirs.bare is not None:
                            join((k, mine.bare), (self.inside[read.tensor], theirs.bare))
        for a, b in self.same:
            join(a, b)
        names: dict[Place, str] = {}
        last = len(self.equations) - 1
        # The names of the result are those that a reader of the kernel knows.
        places = [(k, i) for k in (last, *range(last)) for i in self.equations[k].indices]
        for k, index in places:
            place = root((k, index.name))
            if place not in names:
                names[place] = self._names.of(index.name)
                self.extents[names[place]] = index.extent.evaluate(self.sizes)
            self._axes[k, index.name] = names[place]

    # --- what it looks like -------------------------------------------------------------------------------------------

    @property
    def regular(self) -> bool:
        """Whether every slot is a bare index, no axis is met twice, and every value is made and used as a whole."""
        for k, equation in enumerate(self.equations):
            own = [self._axes[k, i.name] for i in equation.indices]
            if len({*own}) < len(own) or equation.update is not None or equation.semiring != PLUS_TIMES:
                return False
            if any(s.bare is None for s in equation.slots):
                return False
            if tuple(self.extents[a] for a in self.result(k)) != tuple(n.evaluate(self.sizes) for n in equation.shape):
                return False  # the rest of the result would stay as it is
            for read in reads(equation.expr):
                if read.pad is not None or any(s.bare is None for s in read.slots):
                    return False
                if len({s.bare for s in read.slots}) < len(read.slots):
                    return False
        return True

    def axis(self, equation: int, index: str) -> str:
        """The axis of an index."""
        return self._axes[equation, index]

    def axes(self, equation: int, read: Read) -> tuple[str, ...]:
        """The axes of a read, slot by slot."""
        return tuple(self.axis(equation, s.bare or "") for s in read.slots)

    def result(self, equation: int) -> tuple[str, ...]:
        """The axes of the value of an equation, slot by slot."""
        return tuple(self.axis(equation, s.bare or "") for s in self.equations[equation].slots)

    def product(self, equation: int, einsum: Einsum | None = None) -> Product | None:
        """The one sum of an equation (or the one given) as a product of two tensors, None where it is none."""
        sums = [e for e in walk(self.equations[equation].expr) if isinstance(e, Einsum)]
        if einsum is None and len(sums) == 1:
            einsum = sums[0]
        if einsum is None or einsum.semiring != PLUS_TIMES or len(einsum.factors) != 2 or not einsum.bound:
            return None
        left, right = einsum.factors
        if not isinstance(left, Read) or not isinstance(right, Read):
            return None
        return Product(equation, einsum, (left, right))

    # --- what kernels are made of -------------------------------------------------------------------------------------

    def run_over(self, axes: Iterable[str]) -> None:
        """Take the extents of these axes as arguments."""
        self.running |= {*axes}

    def size(self, axis: str) -> Number:
        """The size of an axis: an argument, or known."""
        if axis not in self.running:
            return self.extents[axis]
        self.numbers[f"n_{axis}"] = self.extents[axis]
        return f"n_{axis}"

    def all_sizes(self) -> dict[str, Number]:
        """The size of every axis."""
        return {a: self.size(a) for a in self.extents}

    def tensor(self, name: str, axes: tuple[str, ...]) -> Tensor:
        """A tensor of the program, read or written at these axes.

        A stride is an argument where it depends on a size that is one.
        """
        layout = self.layouts[name]
        parameter = self.parameter(name)
        strides: list[Number] = []
        for axis, stride in zip(axes, layout.strides, strict=True):
            inner = [a for a, s in zip(axes, layout.strides, strict=True) if 0 < abs(s) < abs(stride)]
            if stride in (0, 1) or not self.running & {*inner}:
                strides.append(stride)
            else:
                self.numbers[f"s_{parameter}_{axis}"] = stride
                strides.append(f"s_{parameter}_{axis}")
        view = self._views.setdefault((name, axes), "")
        if not view:  # the same memory at other axes is another view of it
            again = any(n == name and v for (n, _), v in self._views.items())
            view = self._views[name, axes] = self._names.of(parameter) if again else parameter
        memory = "" if view == parameter else parameter
        return Tensor(view, axes, layout.dtype, tuple(strides), memory=memory)

    def read(self, equation: int, read: Read) -> Tensor:
        """The tensor of a read."""
        return self.tensor(read.tensor, self.axes(equation, read))

    def stored(self, equation: int) -> Tensor:
        """The tensor that the value of an equation is stored in."""
        return self.tensor(self.equations[equation].name, self.result(equation))

    def parameter(self, name: str) -> str:
        """The parameter that holds a tensor of the program."""
        known = {tensor: parameter for parameter, tensor in self.arguments.items()}
        if name not in known:
            known[name] = self._names.of(name)
            self.arguments[known[name]] = name
        return known[name]

    def local(self, wanted: str) -> str:
        """A new name for a value inside of the kernel."""
        return self._names.of(wanted)

    def leaf(self, equation: int, expr: Expr, values: Mapping[Expr | str, str], found: dict[str, Tensor]) -> Leaf:
        """An expression as a leaf. `values` names what is there already: sums by their expression, tensors by name.

        Tensors that are read are added to `found`.
        """
        if expr in values:
            return cast(values[expr], expr)
        match expr:
            case Const(value, dtype):
                return Literal(value, dtype)
            case SizeValue(size):
                return Literal(size.evaluate(self.sizes), I64)
            case Position(affine):
                terms = tuple((self.axis(equation, n), c.evaluate(self.sizes)) for n, c in affine.terms)
                modulus = None if affine.modulus is None else affine.modulus.evaluate(self.sizes)
                return Coordinate(terms, affine.offset.evaluate(self.sizes), modulus)
            case Read():
                if expr.tensor in values:
                    return values[expr.tensor]
                tensor = self.read(equation, expr)
                found[tensor.name] = tensor
                return tensor.name
            case Map(function, args, dtype):
                return Apply(function, tuple(self.leaf(equation, a, values, found) for a in args), dtype)
        raise AssertionError(f"{type(expr).__name__} is no leaf")

    def statements(
        self, equation: int, out: str, values: dict[Expr | str, str], found: dict[str, Tensor]
    ) -> tuple[Nest, ...]:
        """An equation as statements that make the value `out`: a tile for each sum, then a map of these.

        `values` and `found` are those of `leaf`, and are added to.
        """
        expr = self.equations[equation].expr
        made: list[Nest] = []
        for einsum in (e for e in walk(expr) if isinstance(e, Einsum) and e not in values):
            name = self.local(f"{out}_sum")
            factors = tuple(self.leaf(equation, f, values, found) for f in einsum.factors)
            bound = tuple(self.axis(equation, n) for n in einsum.bound)
            shown = {self.axis(equation, n) for f in einsum.factors for r in reads(f) for n in _indices(r)}
            free = tuple(a for a in self.result(equation) if a in shown)
            made.append(Tile(name, factors, free, bound, einsum.semiring, einsum.accumulate))
            values[einsum] = name
        made.append(nodes.Map(out, self.leaf(equation, expr, values, found), self.result(equation)))
        values[self.equations[equation].name] = out
        return tuple(made)


def cast(name: str, expr: Expr) -> Leaf:
    """The value of a sum, or of a part of an expression that was summed in f32, in the type of the expression."""
    made = expr.accumulate if isinstance(expr, Einsum) else F32
    return name if expr.dtype == made else Apply(CAST, (name,), expr.dtype)


def _indices(read: Read) -> tuple[str, ...]:
    return tuple(n for s in read.slots for n in s.indices)
