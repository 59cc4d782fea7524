"""What is in scope while a kernel is printed, and how values get there: loads, leaves, stores.

Part of the printer, between `address` (where elements lie) and `tile` (what is done with them).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...ir.loops import Literal
from ...ir.semiring import PLUS_TIMES, Scalar, Semiring
from ...ir.types import I64, DType
from .address import address, beyond, is_positive, linear, modulo
from .emit import Code
from .frame import Frame
from .functions import apply, atomic_of
from .nodes import Apply, Coordinate, Group, Kernel, Leaf, Tensor
from .values import Value, convert, expand, flat, literal, number_text, regroup, spread, type_text, typed

LONG_POINTER = 50  # characters of an address that gets a line of its own


@dataclass
class Scope:
    """The state of the printer.

    `values` are the results of statements so far, `loaded` tiles read ahead, `rounded` the types of locals, `carried`
    the accumulators of the loops around.
    """

    kernel: Kernel
    code: Code
    frame: Frame
    tensors: dict[str, Tensor]
    values: dict[str, Value] = field(default_factory=dict)
    loaded: dict[str, Value] = field(default_factory=dict)
    rounded: dict[str, DType] = field(default_factory=dict)
    carried: frozenset[str] = frozenset()

    # --- axes ---------------------------------------------------------------------------------------------------------

    def axes(self, leaf: Leaf) -> tuple[str, ...]:
        """The axes of a leaf that are dimensions of a tile here, in order of appearance."""
        match leaf:
            case str(name):
                return self.values[name].axes if name in self.values else self.frame.vectors(self.tensors[name].axes)
            case Coordinate(terms):
                return self.frame.vectors(a for a, _ in terms)
            case Apply(_, args):
                return tuple(dict.fromkeys(a for arg in args for a in self.axes(arg)))
        return ()

    def dtype(self, leaf: Leaf) -> DType:
        """The type of the value of a leaf."""
        match leaf:
            case str(name):
                if name in self.tensors and name not in self.values:
                    return self.tensors[name].dtype
                return self.rounded.get(name) or self.values[name].dtype
            case Coordinate():
                return I64
            case Apply(dtype=dtype) | Literal(dtype=dtype):
                return dtype
        raise AssertionError(leaf)

    # --- reading ------------------------------------------------------------------------------------------------------

    def load(self, name: str, groups: tuple[Group, ...], zero: Scalar | None = None) -> Value:
        """A tile of a tensor in memory; what lies beyond an end reads as `zero`."""
        tensor = self.tensors[name]
        if tensor.descriptor:
            return self._load_block(tensor, groups)
        own = self._unit_last(tensor, groups)
        found = address(self.code, self.frame, tensor, own, self._position)
        pad = zero if tensor.pad is None else tensor.pad
        other = number_text(self._fill(pad, tensor.dtype))
        pointer = self._pointer(tensor, found.pointer)
        text = f"tl.load({pointer}" + (f", mask={found.mask}, other={other})" if found.mask else ")")
        filled = zero if pad == zero or not found.mask else None
        value = Value(self.code.let(f"{name}_tile", text), own, tensor.dtype, filled)
        return regroup(self.code, self.frame, value, groups)

    def _fill(self, value: Scalar | None, dtype: DType) -> Scalar:
        """A number that the type has in the place of elements that are not there."""
        value = 0 if value is None or isinstance(value, complex) else value
        if dtype.kind in "iub":
            infinite = isinstance(value, float) and abs(value) == float("inf")
            if infinite and dtype.kind != "b":
                span = 1 << (dtype.bits - (dtype.kind == "i"))
                return (-span if dtype.kind == "i" else 0) if value < 0 else span - 1
            return value > 0 if dtype.kind == "b" else int(value)
        return float(value)

    def _pointer(self, tensor: Tensor, text: str) -> str:
        """A pointer text, under a name if it is long."""
        return text if len(text) < LONG_POINTER else self.code.let(f"{tensor.name}_at", text)

    def _position(self, table: str, groups: tuple[Group, ...]) -> Value:
        """The positions that a tensor of integers holds, in dimensions of `groups`."""
        return self.evaluate(table, groups)

    def _unit_last(self, tensor: Tensor, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        """The groups in which a tile is best moved: an axis of stride 1 stands last in its group.

        Otherwise neighbouring threads would not touch neighbouring elements; the tile then takes the tensor's own
        order in memory and is regrouped in registers.
        """
        strides = self.frame.strides(tensor)
        units = [a for a in flat(groups) if strides.get(a) == 1 and self.frame.place(a).width > 1]
        if len(groups) != 2 or not units or any(g and g[-1] == units[0] for g in groups):
            return groups
        order = tuple(a for a in tensor.axes if a in flat(groups))
        if len(order) < len(flat(groups)):
            return groups
        return order[: len(groups[0])], order[len(groups[0]) :]

    def _load_block(self, tensor: Tensor, groups: tuple[Group, ...]) -> Value:
        """A block by a tensor descriptor, in the tensor's own order of axes, then regrouped."""
        origins = [self.frame.place(a).origin or "0" for a in tensor.axes]
        mine = tuple((a,) for a in tensor.axes if not self.frame.scalar(a))
        text = f"{tensor.argument}.load([{', '.join(origins)}])"
        if len(mine) < len(tensor.axes):
            text = f"tl.reshape({text}, {self.frame.shape(mine)})"
        value = Value(self.code.let(f"{tensor.name}_tile", text), mine, tensor.dtype, 0)
        return regroup(self.code, self.frame, value, groups)

    def operand(self, name: str, groups: tuple[Group, ...], zero: Scalar | None = None) -> Value:
        """The value of a name with dimensions for those of `groups` that it has axes of, () for the others."""
        value = self.values.get(name) or self.loaded.get(name)
        if value is not None:
            want = self.rounded.get(name, value.dtype)
            if value.dtype != want:  # narrow before moving
                narrow = convert(value, want)
                value = replace(narrow, code=self.code.let(f"{name}_{want}", narrow.code))
                if name in self.values:
                    self.values[name] = value
            return spread(self.code, self.frame, value, groups)
        axes = set(self.frame.vectors(self.tensors[name].axes))
        kept = tuple(g for g in groups if axes & set(g))
        value = self.load(name, kept, zero)
        if kept and len(kept) < len(groups):
            subscript = ", ".join(":" if axes & set(g) else "None" for g in groups)
            value = replace(
                value, code=f"{value.code}[{subscript}]", groups=tuple(g if axes & set(g) else () for g in groups)
            )
        return value

    def evaluate(self, leaf: Leaf, groups: tuple[Group, ...], zero: Scalar | None = None) -> Value:
        """The value of a leaf in dimensions of `groups`; those that it does not depend on have one element."""
        match leaf:
            case str(name):
                return self.operand(name, groups, zero)
            case Literal(value, dtype):
                return literal(value, dtype)
            case Coordinate(terms, offset, modulus):
                text = linear(self.code, self.frame, terms, offset, groups)
                if modulus is not None:
                    text = modulo(text, modulus, is_positive(terms, offset))
                shown = {a for a, _ in terms if not self.frame.scalar(a)}
                dims = tuple(g if shown & set(g) else () for g in groups)
                return Value(f"tl.cast({text}, tl.int64)", dims if any(dims) else (), I64)
            case Apply(function, args, dtype):
                return apply(self.code, function, [self.evaluate(a, groups) for a in args], dtype)
        raise AssertionError(leaf)

    def inside(self, axes: tuple[str, ...], groups: tuple[Group, ...]) -> str:
        """The condition that positions of these axes are not past their ends, "" where none can be."""
        found = [beyond(self.code, self.frame, a, groups) for a in axes]
        return " & ".join(f for f in found if f)

    # --- writing ------------------------------------------------------------------------------------------------------

    def store(self, name: str, value: Value, semiring: Semiring = PLUS_TIMES) -> None:
        """Write a tile to the tensor it belongs to."""
        tensor = self.tensors[name]
        value = typed(value)
        if tensor.descriptor:
            self._store_block(tensor, value)
            return
        value = expand(self.code, self.frame, value, tuple(g for g in value.groups if g))
        value = regroup(self.code, self.frame, value, self._unit_last(tensor, value.groups))
        found = address(self.code, self.frame, tensor, value.groups, self._position)
        mask = f", mask={found.mask}" if found.mask else ""
        code = value.code if value.dtype == tensor.dtype else convert(value, tensor.dtype).code
        pointer = self._pointer(tensor, found.pointer)
        if tensor.added:
            operation = atomic_of(semiring, tensor.dtype)
            assert operation, f"no atomic {semiring.add} of {tensor.dtype}"
            self.code.do(f'tl.atomic_{operation}({pointer}, {code}{mask}, sem="relaxed")')
        else:
            self.code.do(f"tl.store({pointer}, {code}{mask})")

    def _store_block(self, tensor: Tensor, value: Value) -> None:
        mine = tuple((a,) for a in tensor.axes if not self.frame.scalar(a))
        value = regroup(self.code, self.frame, value, mine)
        origins = ", ".join(self.frame.place(a).origin or "0" for a in tensor.axes)
        shape = [1 if self.frame.scalar(a) else self.frame.place(a).width for a in tensor.axes]
        text = value.code if len(mine) == len(tensor.axes) else f"tl.reshape({value.code}, {shape})"
        if value.dtype != tensor.dtype:
            text = f"{text}.to({type_text(tensor.dtype)})"
        self.code.do(f"{tensor.argument}.store([{origins}], {text})")
