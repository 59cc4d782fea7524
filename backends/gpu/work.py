"""What the programs of a kernel do: rounds, bytes, arithmetic and registers, counted on its tree.

Part of tuning, below `predict`, which makes a time of it. Everything is counted for the numbers of a launch and for the
blocks that the tree has, with the positions of tiles that lie past the ends of axes where these cost something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, prod

from ...ir.semiring import PLUS_TIMES
from ...ir.types import F32, F64, I8, I32, DType, accumulation_type, promote
from .frame import Frame, ceil_pow2
from .nodes import (
    Apply,
    Coordinate,
    Index,
    Kernel,
    Leaf,
    Load,
    Local,
    Loop,
    Map,
    Nest,
    Number,
    Outer,
    Seq,
    Stream,
    Tile,
    inputs_of,
    leaves,
    names_of,
    walk,
)
from .roofline import Device, rate
from .tile import DOT_TYPES, GROUP_ROWS, LEAST_DOT

SECTOR = 32  # bytes that memory moves at least
VECTOR = 16  # bytes that a thread loads at a time
ADDRESS = 16  # operations of such a load without a descriptor: an address, a mask, the copy itself
WARP_GROUP = 4  # warps that share an instruction of Hopper's matrix units
SHARED_LINE = 128  # bytes that shared memory gives in a cycle, of which an instruction takes half of one a column
INSTRUCTION_ROW = 32  # bytes of K that it takes of each row and column


@dataclass(frozen=True)
class Product:
    """A tile that is a product of matrices: the positions of M, N and K that a program multiplies at a time.

    `unit` is the instruction of NVIDIA's matrix units that takes it: that of a warp group ("HGMMA"; the operands are
    exchanged if need be), that of a warp ("HMMA"), or none ("", products of exact f32).
    """

    rows: int
    columns: int
    summed: int
    dtype: DType
    unit: str


@dataclass(frozen=True)
class Work:
    """What the programs of a kernel do.

    The grid has `blocks`, of which a persistent program takes several. For a block a program goes through `rounds` of
    its loops; in one it asks for `step` bytes, outside of them for `once`, beside what it has `kept` from the blocks
    before. `asked` are the bytes that all programs ask of the cache, in whole sectors. `matrix` and `vector` are
    seconds of arithmetic of the whole device, in products of matrices and elsewhere. `held` are the registers of a
    program, of 32 bits, that hold sums.
    """

    blocks: int
    rounds: int
    step: int
    once: int
    kept: int
    asked: int
    matrix: float
    vector: float
    held: int
    products: tuple[Product, ...] = ()


def work_of(kernel: Kernel, numbers: Mapping[str, int], device: Device) -> Work:
    """What a kernel does, for the numbers that it is launched with; one that is missing counts as 1.

    >>> from .nodes import Tensor
    >>> from .roofline import H200
    >>> x, y = (Tensor(n, ("i",), F32, (1,)) for n in "xy")
    >>> work = work_of(Kernel((x, y), (("i", "n_i"),), Outer((("i", 64),), Map("y", "x"))), {"n_i": 1000}, H200)
    >>> work.blocks, work.rounds, work.once, work.asked
    (16, 0, 256, 8192)
    """
    return _Counter(kernel, numbers, device).work()


@dataclass(frozen=True)
class _At:
    """Where the walk is: what a program does `times` times, among sums in `carried` registers, in the loop number
    `inside` (-1: in none). `moved` are the axes that this loop moves, `around` is where it stands itself.
    """

    times: float = 1
    carried: int = 0
    inside: int = -1
    moved: frozenset[str] = frozenset()
    around: _At | None = None


@dataclass
class _Counter:
    """One walk over the tree. `widths` has the positions of each axis in a tile, 0 where it stands at one; `finished`
    how often a sum is stored.
    """

    kernel: Kernel
    numbers: Mapping[str, int]
    device: Device
    widths: dict[str, int] = field(default_factory=dict)
    values: dict[str, tuple[tuple[str, ...], DType]] = field(default_factory=dict)
    types: dict[str, DType] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    blocks: int = 1
    rounds: float = 0
    once: int = 0
    kept: int = 0
    asked: float = 0.0
    matrix: float = 0.0
    vector: float = 0.0
    held: int = 0

    def __post_init__(self) -> None:
        self.extents = {a: self.known(n) for a, n in self.kernel.sizes}
        self.tensors = {t.name: t for t in self.kernel.tensors}
        self.strides = {t.name: Frame.of(self.kernel).strides(t) for t in self.kernel.tensors}

    def work(self) -> Work:
        self.visit(self.kernel.nest, _At(), frozenset())
        total = self.blocks
        return Work(
            total, ceil(self.rounds), max(self.steps, default=0), self.once, self.kept, ceil(self.asked * total),
            self.matrix * total, self.vector * total, self.held, tuple(self.products),
        )  # fmt: skip

    def known(self, number: Number) -> int:
        return number if isinstance(number, int) else self.numbers.get(number, 1)

    # --- axes ---------------------------------------------------------------------------------------------------------

    def wide(self, axis: str) -> int:
        return self.widths[axis] if axis in self.widths else ceil_pow2(self.extents[axis])

    def vectors(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Those of `axes` that are dimensions of a tile, each once."""
        return tuple(a for a in dict.fromkeys(axes) if self.wide(a))

    def positions(self, axes: Iterable[str]) -> int:
        return prod(self.wide(a) for a in self.vectors(axes))

    def axes(self, leaf: Leaf) -> tuple[str, ...]:
        """The axes of a leaf that are dimensions of a tile here."""
        match leaf:
            case str(name):
                return self.values[name][0] if name in self.values else self.vectors(self.tensors[name].axes)
            case Coordinate(terms):
                return self.vectors(a for a, _ in terms)
            case Apply(_, args):
                return self.vectors(a for arg in args for a in self.axes(arg))
        return ()

    def dtype(self, leaf: Leaf) -> DType:
        match leaf:
            case str(name):
                return self.values[name][1] if name in self.values else self.tensors[name].dtype
            case Apply(dtype=dtype):
                return dtype
        return F32

    # --- the walk -----------------------------------------------------------------------------------------------------

    def visit(self, nest: Nest, at: _At, loaded: frozenset[str]) -> frozenset[str]:
        """Count below `nest`; returns what is loaded afterwards."""
        match nest:
            case Outer(axes, body, share):
                self.widths |= {a: b if b > 1 else 0 for a, b in axes}
                self.blocks = prod(-(-self.extents[a] // b) for a, b in axes)
                while share and isinstance(body, Load):  # once by each persistent program
                    self.kept += self.move(body.tensor, min(1.0, share / self.blocks))
                    loaded |= {body.tensor}
                    body = body.body
                self.visit(body, at, loaded)
            case Loop():
                self.loop(nest, at, loaded)
            case Seq(bodies):
                for body in bodies:
                    loaded = self.visit(body, at, loaded)
            case Index(axis, _, by, body):
                self.widths[axis] = 0
                self.visit(body, replace(at, moved=at.moved | {axis} if by in at.moved else at.moved), loaded)
            case Local(name, dtype, body):
                self.types[name] = dtype
                return self.visit(body, at, loaded)
            case Load(tensor, _, body):
                self.load(tensor, at)
                self.visit(body, at, loaded | {tensor})
            case Tile() | Map() | Stream():
                return self.statement(nest, at, loaded)
        return loaded

    def loop(self, node: Loop, at: _At, loaded: frozenset[str]) -> None:
        extent = self.extents[node.axis]
        if node.chunk is not None:
            extent = min(extent, self.known(node.chunk[1]))
        count: float = -(-extent // node.block)
        if node.rows is not None:  # on average
            count = max(1.0, extent / self.extents[node.rows[1]])
        before = dict(self.widths)
        self.widths[node.axis] = node.block if node.block > 1 else 0
        below = list(walk(node.body))
        if not any(isinstance(n, Loop) for n in below):
            self.rounds += at.times * count
        sums = [n for n in below if isinstance(n, Tile) and node.reduced and node.axis in n.reduced]
        fresh = {n.out: self.positions(n.free) for n in sums if n.out not in self.finished}
        self.finished |= dict.fromkeys(fresh, at.times)
        self.steps.append(0)
        carried = at.carried + sum(fresh.values())
        self.visit(node.body, _At(at.times * count, carried, len(self.steps) - 1, frozenset({node.axis}), at), loaded)
        self.widths = before

    def statement(self, node: Tile | Map | Stream, at: _At, loaded: frozenset[str]) -> frozenset[str]:
        used = inputs_of(node)
        names = tuple(dict.fromkeys(n for leaf in used for n in names_of(leaf)))
        for name in names:
            if name not in self.values and name not in loaded:
                self.load(name, at)
                loaded |= {name}
        joint = self.vectors(a for leaf in used for a in self.axes(leaf))
        free = joint if isinstance(node, Stream) else self.vectors(node.free) or joint
        if isinstance(node, Tile) and node.reduced:
            free = self.vectors(node.free)
        points = self.positions((*free, *joint))
        product = self.product(node) if isinstance(node, Tile) else None
        if product is not None:
            self.products.append(product)
            self.matrix += at.times * 2 * points / self.rate(product)
            inputs = [self.values[n] for n in names if n in self.values]
            own = self.positions(free) + sum(self.positions(a) * t.bits // 32 for a, t in inputs)
        else:
            operations = 2 + sum(isinstance(part, Apply) for leaf in used for part in leaves(leaf))
            wide = any(self.dtype(n) == F64 for n in names)
            self.vector += at.times * operations * points / (self.device.double if wide else self.device.single)
            own = points
        counted = node.out in self.finished and product is not None  # among those that are carried
        self.held = max(self.held, at.carried + own - (self.positions(free) if counted and at.carried else 0))
        self.values[node.out] = free, self.types.get(node.out, F32)
        if isinstance(node, Stream):
            rows = tuple(a for a in free if a not in node.along)
            self.values |= {node.greatest: (rows, F32), node.total: (rows, F32)}
        if node.out in self.tensors:
            self.move(node.out, self.finished.get(node.out, at.times))
        return loaded

    # --- parts of it --------------------------------------------------------------------------------------------------

    def load(self, name: str, at: _At) -> None:
        """A tile of a tensor is read; above the loops that do not move it, where Triton moves the load to."""
        axes = {*self.tensors[name].axes}
        while at.around is not None and not axes & at.moved:
            at = at.around
        size = self.move(name, at.times)
        if not self.tensors[name].descriptor:
            self.vector += at.times * ADDRESS * size / VECTOR / self.device.single
        if at.inside >= 0:
            self.steps[at.inside] += size
        else:
            self.once += size

    def move(self, name: str, times: float) -> int:
        """A tile of a tensor is read or written `times` times for each block; returns its bytes."""
        tensor = self.tensors[name]
        strides = self.strides[name]
        slots = {a: (f, s.stride) for s in tensor.slots for a, f in s.terms}
        axes = [a for a in self.vectors(tensor.axes) if strides.get(a) != 0 or a in slots]
        held = {a: min(self.wide(a), self.extents[a]) for a in axes}
        elements = prod(held.values())
        run = max((n for a, n in held.items() if strides.get(a) == 1 or slots.get(a) == (1, 1)), default=1)
        size = elements * tensor.dtype.itemsize
        sectors = max(1.0, SECTOR / (run * tensor.dtype.itemsize)) if elements > 1 else 1.0
        self.asked += times * size * sectors
        return size

    def product(self, tile: Tile) -> Product | None:
        """The tile as a product of matrices; None where it is multiplied and summed up."""
        if tile.semiring != PLUS_TIMES or len(tile.factors) != 2:
            return None
        kind = promote(*(self.dtype(f) for f in tile.factors))
        bytes_only = kind == I8
        sums = tile.accumulate or accumulation_type(kind)
        if sums not in (I8, I32) if bytes_only else (kind not in DOT_TYPES or sums != F32):
            return None
        a, b = (self.axes(f) for f in tile.factors)
        free = self.vectors(tile.free)
        batch, rows = ([x for x in a if x in free and (x in b) == both] for both in (True, False))
        columns = [x for x in b if x in free and x not in a]
        summed = [x for x in a if x in b and x not in free]
        if {*a, *b} - {*free, *summed} or {*rows, *columns, *batch} != {*free}:
            return None
        m, n, k = (self.positions(g) for g in (rows, columns, summed))
        if min(m, n, k) < LEAST_DOT or (bytes_only and k < 2 * LEAST_DOT):
            return None
        group = not batch and max(m, n) >= GROUP_ROWS and self.kernel.warps >= WARP_GROUP
        exact = kind == F32 and self.kernel.precision == "ieee"
        unit = "HGMMA" if group and self.device.architecture == "sm_90" else "HMMA"
        return Product(m, n, k, kind, "" if exact else unit)

    def rate(self, product: Product) -> float:
        """Operations per second of a product. Instructions of warp groups take both operands from shared memory, 64
        rows of the one and all columns of the other; narrow ones wait for it.
        """
        device = self.device
        full = device.half if product.dtype == I8 else rate(device, product.dtype, self.kernel.precision)
        if product.unit != "HGMMA":
            return full
        columns = product.columns if product.rows >= GROUP_ROWS else product.rows
        return full * min(1.0, columns / 2 * SHARED_LINE / (INSTRUCTION_ROW * (GROUP_ROWS + columns)))
