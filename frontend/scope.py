"""The tensors of a program under elaboration: what the text and the keywords say about each, merged.

A tensor is an argument, a result (it is assigned) or special (`identity`, `zeros`, `ones`: known without a value). An
argument whose shape nobody gave gets one free size per axis when it is first indexed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from ..ir.errors import NOWHERE, DTypeError, EinsumSyntaxError, ShapeError, Source, Span, SteinError, StructureError
from ..ir.expr import Input, Pad, Structure
from ..ir.size import ONE, ZERO, Size
from ..ir.types import DTYPES, F64, DType, parse_dtype
from . import syntax as s
from .declare import AXES, SPECIAL, SQUARE, STRUCTURES, Declaration, near, parse_extent, size_of, structure_of
from .parser import RESERVED
from .sizes import Issue, Sizes


@dataclass
class Tensor:
    """One tensor. `shape` is None as long as its number of axes is not known; `origin` is where each axis begins."""

    name: str
    place: Span | None = None  # the declaration
    shape: tuple[Size, ...] | None = None
    origin: tuple[Size, ...] = ()
    dtype: DType | None = None
    structure: tuple[Structure, ...] = ()
    const: bool = False
    encrypted: bool = False
    pad: Pad | None = None
    result: bool = False
    assigned: Span | None = None  # where the first assignment stands, once it was elaborated
    version: int = 0

    @property
    def special(self) -> str | None:
        """`identity`, `zeros` or `ones` if the tensor is declared to be one."""
        return next((t.name for t in self.structure if t.name in SPECIAL), None)

    @property
    def current(self) -> str:
        """The name in the IR while elaborating: `y`, then `y.1`, `y.2` for what += made of it."""
        return f"{self.name}.{self.version}" if self.version else self.name

    def axis(self, k: int) -> tuple[Size, Size]:
        """Where axis k begins, and its extent."""
        assert self.shape is not None
        return (self.origin[k] if self.origin else ZERO), self.shape[k]


@dataclass
class Scope:
    """Everything that is known about a program while its statements are elaborated."""

    source: Source
    sizes: Sizes
    default: DType = F64
    tensors: dict[str, Tensor] = field(default_factory=dict)
    assigned: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()  # their first assignment is +=: arguments that are added to
    listed: bool = False  # keywords give shapes
    mentioned: frozenset[str] = frozenset()  # by any statement, after "=" or before "+="

    def fail(self, kind: type[SteinError], sentence: str, code: str, *spans: Span | None, help: str = "") -> NoReturn:
        """Raise an error of this program."""
        raise kind(
            sentence,
            code=code,
            source=self.source,
            spans=[p for p in spans if p is not None and p != NOWHERE],
            help=help,
        )

    # ---------------------------------------------------------------- declarations

    def declare(
        self, program: s.Program, declarations: Mapping[str, Declaration], mentioned: frozenset[str] = frozenset()
    ) -> None:
        """Take in every declaration of the text and the keywords; `mentioned` are the names that statements use."""
        assigns = [a for a in program.statements if isinstance(a, s.Assign)]
        self.assigned = frozenset(a.target.text for a in assigns)
        first = {a.target.text: a.adds for a in reversed(assigns)}
        self.added = frozenset(n for n, adds in first.items() if adds)
        self.mentioned = mentioned
        seen: dict[str, Span] = {}
        for statement in program.statements:
            if isinstance(statement, s.Declare):
                for name in statement.names:
                    if name.text in seen:
                        self.fail(
                            EinsumSyntaxError, f"{name.text} is declared twice", "declared-twice", name.span,
                            seen[name.text], help="say everything in one declaration",
                        )  # fmt: skip
                    seen[name.text] = name.span
                    self._declare_text(name, statement.items)
        self.listed = any(d.shape is not None for d in declarations.values())
        for key, declaration in declarations.items():
            self._declare_keyword(key, declaration)
        for tensor in self.tensors.values():
            tensor.result = tensor.name in self.assigned - self.added
        inputs = [t for t in self.tensors.values() if not t.result and not t.special]
        fixed = {n for t in inputs for size in t.shape or () for n in size.names}
        self.sizes.free |= {n for n in self.sizes.known if n not in fixed}
        for tensor in self.tensors.values():
            self._check_structure(tensor)

    def _declare_text(self, name: s.Name, items: tuple[s.Item, ...]) -> None:
        tensor = self.tensors.setdefault(name.text, Tensor(name.text))
        tensor.place = name.span
        for item in items:
            match item:
                case s.Array(name=word, dims=dims):
                    self._set_type(tensor, word)
                    bounds = [self._bounds(d) for d in dims]
                    tensor.shape = tuple(high - low for low, high in bounds)
                    tensor.origin = tuple(low for low, _ in bounds) if any(low != ZERO for low, _ in bounds) else ()
                case s.Option():
                    tensor.pad = self._pad(item)
                case s.Word(name=word, args=None) if word.text in ("const", "encrypted"):
                    setattr(tensor, word.text, True)
                case s.Word(name=word, args=None) if parse_dtype(word.text) is not None:
                    self._set_type(tensor, word)
                    if tensor.shape is None:
                        tensor.shape = ()
                case s.Word():
                    if item.name.text not in STRUCTURES and item.args is None and near(item.name.text, DTYPES):
                        self._set_type(tensor, item.name)
                    tensor.structure += (structure_of(item, self.source),)

    def _set_type(self, tensor: Tensor, word: s.Name) -> None:
        dtype = parse_dtype(word.text)
        if dtype is None:
            hint = near(word.text, [*DTYPES, *STRUCTURES]) or "types: " + ", ".join(DTYPES)
            self.fail(EinsumSyntaxError, f"'{word.text}' is not a type", "type", word.span, help=hint)
        if tensor.dtype is not None:
            self.fail(
                EinsumSyntaxError, f"{tensor.name} has two types", "type", word.span, tensor.place, help="give one type"
            )
        tensor.dtype = dtype

    def _bounds(self, dim: s.Dim) -> tuple[Size, Size]:
        for tree in (dim.low, dim.high):
            if tree is not None:
                for name in size_names(tree):
                    self.sizes.known.setdefault(name, tree.span)
        low = ZERO if dim.low is None else size_of(dim.low, self.source)
        high = size_of(dim.high, self.source)
        if (low - high).at_least(1):
            self.fail(
                ShapeError, f"this axis has size {high - low}", "negative-size", dim.span, help="sizes are 0 or more"
            )
        return low, high

    def _pad(self, option: s.Option) -> Pad:
        if option.name.text != "pad":
            hint = near(option.name.text, ["pad"]) or "the only option is pad="
            self.fail(
                EinsumSyntaxError, f"there is no option '{option.name.text}'", "option", option.name.span, help=hint
            )
        if isinstance(option.value, s.Name):
            if option.value.text not in ("edge", "wrap"):
                self.fail(
                    EinsumSyntaxError, f"'{option.value.text}' is no padding", "pad", option.value.span,
                    help="pad is a number, inf, edge or wrap",
                )  # fmt: skip
            return option.value.text
        if isinstance(option.value, complex):
            self.fail(EinsumSyntaxError, "padding is a real number", "pad", option.span, help="pad=0")
        exact = isinstance(option.value, int) and abs(option.value) > 1 << 53
        return option.value if exact else float(option.value)

    def _declare_keyword(self, name: str, said: Declaration) -> None:
        if not name.isidentifier() or name in RESERVED:
            self.fail(EinsumSyntaxError, f"'{name}' cannot name a tensor", "reserved", help="choose another name")
        tensor = self.tensors.setdefault(name, Tensor(name))
        tensor.const |= said.const
        tensor.encrypted |= said.encrypted
        for structure in said.structure:
            if structure not in tensor.structure:
                tensor.structure += (structure,)
        if said.dtype is not None and tensor.dtype not in (None, said.dtype):
            self.fail(
                DTypeError, f"{name} is declared {tensor.dtype} here but {said.dtype} by the keyword", "declared-type",
                tensor.place, help="let both say the same, or leave one out",
            )  # fmt: skip
        tensor.dtype = tensor.dtype or said.dtype
        if said.shape is None:
            return
        shape = tuple(parse_extent(v) for v in said.shape)
        for size in shape:
            for n in size.names:
                self.sizes.known.setdefault(n, NOWHERE)
        if tensor.shape is None:
            tensor.shape = shape
            return
        if len(tensor.shape) != len(shape):
            self.fail(
                ShapeError, f"{name} has {len(tensor.shape)} axes here, {len(shape)} by the keyword", "axis-count",
                tensor.place, help="let both say the same, or leave one out",
            )  # fmt: skip
        for k, (mine, theirs) in enumerate(zip(tensor.shape, shape, strict=True)):
            self._agree(tensor, k, mine, theirs)

    def _agree(self, tensor: Tensor, k: int, mine: Size, theirs: Size) -> None:
        """The text and the keyword give one axis: names in the text take what the keyword says."""
        mine, theirs = self.sizes.resolve(mine), self.sizes.resolve(theirs)
        sentence = f"axis {k} of {tensor.name} is {{left}} here but {{right}} by the keyword"
        issue = Issue("size-mismatch", sentence, () if tensor.place is None else (tensor.place,))
        if mine.single is not None and mine.single not in theirs.names:
            self.sizes.bind(mine.single, theirs)
        elif theirs.constant is not None and (found := mine.solve(theirs.constant, {})) is not None:
            self.sizes.bind(found[0], Size.of(found[1]))
        else:
            self.sizes.equate(mine, theirs, issue)

    def _check_structure(self, tensor: Tensor) -> None:
        """Options and shapes that do not fit a declared structure (a block that does not divide its axis)."""
        for structure in tensor.structure:
            options: dict[str, list[Size]] = {}
            for option, value in structure.options:
                options.setdefault(option, []).append(self.sizes.resolve(value))
            spans = (structure.span,) if structure.span.end and tensor.place is not None else ()
            if tensor.shape is None:
                continue
            rank = len(tensor.shape)
            blocks = options.get("block", [])
            few = rank < max(1, AXES.get(structure.name, 2))
            if len(blocks) > min(rank, 2) or few or (structure.name == "identity" and rank != 2):
                self.fail(
                    StructureError, f"{structure.name} does not fit {rank} axes", "structure", *spans, tensor.place
                )
            sizes = [self.sizes.resolve(n) for n in tensor.shape[-2:]]
            if structure.name in SQUARE:
                sentence = f"{tensor.name} is {structure.name}, so its axes {rank - 2} and {rank - 1} are equal: "
                issue = Issue("structure", sentence + "{left} and {right} are not", spans, "declare it n x n")
                self.sizes.equate(sizes[0], sizes[1], issue)
            if not blocks or "pad" in options:
                continue
            pairs = [(blocks[k % len(blocks)], n) for k, n in enumerate(sizes)]
            help = _block_help(structure.name, pairs)
            for k, (block, size) in enumerate(pairs):
                sentence = f"block {{left}} does not divide axis {k + max(0, rank - 2)} (size {{right}})"
                try:
                    self.sizes.demand(">=", block, ONE, Issue("block", "a block of size {left}", spans, "1 or more"))
                    self.sizes.demand("divides", block, size, Issue("block", sentence, spans, help))
                except ShapeError as error:
                    raise StructureError(
                        error.sentence, code="block", source=self.source, spans=spans, help=error.help
                    ) from None

    # ---------------------------------------------------------------- names

    def lookup(self, name: s.Name, rank: int | None = None) -> Tensor:
        """The tensor that an expression names; an undeclared one with `rank` slots becomes an argument."""
        tensor = self.tensors.get(name.text)
        if (tensor is not None and tensor.result and tensor.assigned is None) or (
            tensor is None and name.text in self.assigned - self.added
        ):
            self.fail(
                EinsumSyntaxError, f"{name.text} is used before it is assigned", "used-before", name.span,
                help="use follows assignment: move this statement down",
            )  # fmt: skip
        if tensor is None:
            if rank is None or self.unused():
                self.unknown(name)
            tensor = self.tensors[name.text] = Tensor(name.text, name.span)
        if tensor.shape is None:
            if rank is None:
                self.fail(
                    ShapeError, f"the number of axes of {name.text} is not known", "unknown-shape", name.span,
                    tensor.place, help=f"declare it, for instance {name.text}: f64[n, m]",
                )  # fmt: skip
            tensor.shape = tuple(self.sizes.new_axis(name.text, k) for k in range(rank))
        return tensor

    def new_scalar(self, name: s.Name) -> Tensor:
        """A bare name that nobody declared: a scalar argument, unless keywords list the arguments with their shapes."""
        if self.listed or self.unused():
            self.unknown(name)
        tensor = self.tensors[name.text] = Tensor(name.text, name.span, ())
        return tensor

    def unused(self) -> list[str]:
        """Declared arguments that no statement mentions: where there is one, an unknown name is taken for a slip."""
        return [
            t.name for t in self.tensors.values() if not t.result and not t.special and t.name not in self.mentioned
        ]

    def unknown(self, name: s.Name) -> NoReturn:
        """Raise the error for a name that stands for nothing."""
        declared = ", ".join(self.tensors) or "none"
        hint = near(name.text, self.tensors)
        if not hint:
            unused = self.unused()
            hint = f"did you mean {unused[0]!r}?" if len(unused) == 1 else f"{name.text}: f64[n] declares it"
        self.fail(
            EinsumSyntaxError, f"tensor '{name.text}' is neither declared nor an argument", "unknown-name", name.span,
            help=f"declared so far: {declared}; {hint}",
        )  # fmt: skip

    def dtype(self, tensor: Tensor) -> DType:
        """The element type of a tensor."""
        return tensor.dtype or self.default

    def inputs(self, order: list[str]) -> Iterator[Input]:
        """The arguments in order of first mention, at their final sizes."""
        rest = [n for n in self.tensors if n not in order]
        for name in [*order, *rest]:
            tensor = self.tensors.get(name)
            if tensor is None or tensor.result or tensor.special:
                continue
            if tensor.shape is None:
                self.fail(
                    ShapeError, f"{name} has no shape", "unknown-shape", tensor.place,
                    help=f"declare it, for instance {name}: f64[n, m]",
                )  # fmt: skip
            resolve = self.sizes.resolve
            structure = tuple(
                Structure(t.name, tuple((o, resolve(v)) for o, v in t.options), t.span) for t in tensor.structure
            )
            yield Input(
                name,
                tuple(resolve(n) for n in tensor.shape),
                self.dtype(tensor),
                structure,
                tensor.const,
                tensor.encrypted,
                tensor.pad,
                tuple(resolve(n) for n in tensor.origin),
                tensor.place or NOWHERE,
            )


def _block_help(name: str, pairs: list[tuple[Size, Size]]) -> str:
    """Blocks that would fit: multiples of 4 where there are some."""
    if name == "blockdiag":
        return "a block that divides both axes"
    fits = []
    for block, size in pairs:
        b, n = block.constant, size.constant
        if b is None or n is None or b < 1:
            return f"{name}(block=..., pad=1)"
        divisors = [d for d in range(1, min(b, 4096) + 1) if n % d == 0]
        fits.append(max(divisors, key=lambda d: (d % 4 == 0, d)))
    return f"{name}(block=({','.join(map(str, fits))})), or {name}(block={pairs[0][0]}, pad=1)"


def size_names(tree: s.Slot) -> tuple[str, ...]:
    """The names in a slot or size, in order of appearance."""
    match tree:
        case s.IndexName(name=name):
            return (name,)
        case s.IndexNegative(operand=operand):
            return size_names(operand)
        case s.IndexBinary(left=left, right=right):
            return tuple(dict.fromkeys(size_names(left) + size_names(right)))
        case s.Modulo(value=value, modulus=modulus):
            return tuple(dict.fromkeys(size_names(value) + size_names(modulus)))
        case s.Composite(parts=parts):
            return tuple(dict.fromkeys(p.text for p in parts))
    return ()


__all__ = ["ONE", "Scope", "Tensor", "size_names"]
