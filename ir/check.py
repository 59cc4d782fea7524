"""What is legal at each stage of compilation; run between passes in tests, so that blame lands on the right pass.

A violation is our own bug, not the user's, so `IRError` is an `AssertionError`. The stages, each with the rules of
those before it:

* `elaborated`: names, slots, types and ranges fit (what the front end hands over);
* `normal`: no `Softmax` is left;
* `ordered`: an equation holds at most one `Einsum`, and its factors hold none: the order of contraction is fixed;
* `planned`: reads with a pad or a modulus stand alone, in copies, and outputs are written at affine slots without
  modulus: each equation is one kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import NoReturn

from .expr import (
    Const,
    Einsum,
    Equation,
    Expr,
    Input,
    Linalg,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    children,
    free_indices,
    walk,
)
from .functions import CAST, FUNCTIONS
from .index import Affine
from .linalg import FUNCTIONS as LINALG
from .linalg import TYPES
from .linalg import Function as LinalgFunction
from .semiring import PLUS_TIMES, Semiring
from .size import Size
from .text_print import print_equation, print_expr
from .types import I64, DType, promote

STAGES = ("elaborated", "normal", "ordered", "planned")
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}  # kinds of types; a value keeps its meaning on the way up


class IRError(AssertionError):
    """A program that breaks a rule of the IR. `rule` is the rule's short name, `equation` the equation's."""

    def __init__(self, rule: str, sentence: str, equation: str = "", text: str = "") -> None:
        self.rule, self.equation = rule, equation
        where = f" in '{equation}'" if equation else ""
        super().__init__(f"{rule}{where}: {sentence}" + (f"\n  {text}" if text else ""))


def check_program(program: Program, stage: str = "elaborated") -> None:
    """Raise `IRError` at the first rule of `stage` (one of `STAGES`) that the program breaks.

    >>> from .text_read import parse_ir
    >>> check_program(parse_ir("input x: f32[n]\\ny: f32 = einsum[plustimes, f32](i; x[i]) over i<n\\nreturn y"))
    >>> check_program(parse_ir("y: f32 = x[]:f32\\nreturn y"))
    Traceback (most recent call last):
    stein.ir.check.IRError: unknown-tensor in 'y': 'x' is no input and no earlier equation
      x[]:f32
    """
    level = STAGES.index(stage)
    tensors: dict[str, Input | Equation] = {}
    for tensor in program.inputs:
        if tensor.name in tensors:
            raise IRError("unique-names", f"'{tensor.name}' is defined twice")
        if tensor.origin and len(tensor.origin) != len(tensor.shape):
            raise IRError("origin", f"'{tensor.name}' has {len(tensor.shape)} axes and {len(tensor.origin)} origins")
        tensors[tensor.name] = tensor
    for equation in program.equations:
        if equation.name in tensors:
            raise IRError("unique-names", f"'{equation.name}' is defined twice")
        _Checker(equation, tensors).check(level)
        tensors[equation.name] = equation
    for name, times in Counter(program.outputs).items():
        if name not in tensors:
            raise IRError("outputs", f"the output '{name}' is not defined")
        if times > 1:
            raise IRError("outputs", f"the output '{name}' is listed twice")


@dataclass(frozen=True)
class _Checker:
    """The rules for one equation, after the tensors that it may read."""

    equation: Equation
    tensors: Mapping[str, Input | Equation]

    def fail(self, rule: str, sentence: str, node: Expr | None = None) -> NoReturn:
        types = {name: t.dtype for name, t in self.tensors.items()}
        text = print_equation(self.equation, types) if node is None else print_expr(node, types)
        raise IRError(rule, sentence, self.equation.name, text)

    def check(self, level: int) -> None:
        self.indices()
        self.left_side()
        for node in walk(self.equation.expr):
            self.node(node)
        self.scopes()
        if level >= STAGES.index("normal"):
            self.normal()
        if level >= STAGES.index("ordered"):
            self.ordered()
        if level >= STAGES.index("planned"):
            self.planned()

    # the equation

    def indices(self) -> None:
        for name, times in Counter(i.name for i in self.equation.indices).items():
            if times > 1:
                self.fail("unique-indices", f"the index '{name}' is listed twice")

    def left_side(self) -> None:
        equation = self.equation
        if len(equation.slots) != len(equation.shape):
            self.fail("rank", f"{len(equation.slots)} slots are written, the shape has {len(equation.shape)} axes")
        self.known(equation.free)
        for slot, extent in zip(equation.slots, equation.shape, strict=True):
            self.inside(slot, extent)
        if not _fits(equation.expr.dtype, equation.dtype):
            self.fail("equation-type", f"{equation.expr.dtype} does not become {equation.dtype} without loss")
        self.semiring(equation.semiring, 1, None)
        if equation.update is None:
            return
        if equation.update not in self.tensors:
            self.fail("unknown-tensor", f"'{equation.update}', which is updated, is no input and no earlier equation")
        old = self.tensors[equation.update]
        pairs = zip(old.shape, equation.shape, strict=False)
        if len(old.shape) != len(equation.shape) or any(_differ(a, b) for a, b in pairs):
            self.fail("update", f"'{equation.update}', which is updated, has another shape")
        if not _fits(old.dtype, equation.dtype):
            self.fail("update", f"'{equation.update}', which is updated, is {old.dtype}, the result {equation.dtype}")

    def scopes(self) -> None:
        """Every bound name is bound once, and has no meaning outside."""
        equation = self.equation
        binders = [e for e in walk(equation.expr) if isinstance(e, Einsum)]
        for name, times in Counter(b for e in binders for b in e.bound).items():
            if times > 1:
                self.fail("bound-once", f"the index '{name}' is bound {times} times")
            if name in equation.free:
                self.fail("bound-outside", f"the bound index '{name}' stands on the left")
        for name in free_indices(equation.expr):
            if name not in equation.free:
                self.fail("bound-outside", f"the index '{name}' is neither on the left nor bound where it stands")

    # nodes

    def node(self, node: Expr) -> None:
        match node:
            case Const():
                if not _representable(node):
                    self.fail("const", f"{node.value!r} is no value of type {node.dtype}", node)
            case SizeValue():
                if node.dtype != I64:
                    self.fail("value-type", "the value of a size is i64", node)
            case Position():
                if node.dtype != I64:
                    self.fail("value-type", "the value of an index is i64", node)
                self.known(node.affine.indices, node)
            case Read():
                self.read(node)
            case Map():
                self.map(node)
            case Einsum():
                self.einsum(node)
            case Softmax():
                self.softmax(node)
            case Linalg():
                self.linalg(node)

    def read(self, read: Read) -> None:
        if read.tensor not in self.tensors:
            self.fail("unknown-tensor", f"'{read.tensor}' is no input and no earlier equation", read)
        tensor = self.tensors[read.tensor]
        if len(read.slots) != len(tensor.shape):
            self.fail("rank", f"'{read.tensor}' has {len(tensor.shape)} axes, {len(read.slots)} slots are read", read)
        if read.dtype != tensor.dtype:
            self.fail("read-type", f"'{read.tensor}' is {tensor.dtype}, read as {read.dtype}", read)
        if isinstance(read.pad, str) and read.pad not in ("edge", "wrap"):
            self.fail("pad", f"no pad is called '{read.pad}'", read)
        self.known((n for s in read.slots for n in s.indices), read)
        if read.pad is None:
            for slot, extent in zip(read.slots, tensor.shape, strict=True):
                self.inside(slot, extent, read)

    def map(self, node: Map) -> None:
        types = tuple(a.dtype for a in node.args)
        if node.function == CAST:
            if len(types) != 1:
                self.fail("arity", f"a cast has one argument, not {len(types)}", node)
            return
        if node.function not in FUNCTIONS:
            self.fail("unknown-function", f"'{node.function}' is no function of the IR", node)
        function = FUNCTIONS[node.function]
        if len(types) != function.arity:
            self.fail("arity", f"'{node.function}' has {function.arity} arguments, not {len(types)}", node)
        if node.dtype != function.result(types):
            wanted = f"'{node.function}' of {', '.join(map(str, types))} is {function.result(types)}"
            self.fail("map-type", f"{wanted}, not {node.dtype}", node)

    def einsum(self, node: Einsum) -> None:
        self.known(node.bound, node)
        self.semiring(node.semiring, len(node.factors), node)
        logical = FUNCTIONS[node.semiring.add].rule == "bool"
        for factor in node.factors:
            if _RANK[factor.dtype.kind] > _RANK[node.accumulate.kind] and not logical:
                self.fail("accumulate", f"a factor of {factor.dtype} does not fit {node.accumulate}", node)
        if _RANK[node.accumulate.kind] > _RANK[node.dtype.kind]:
            self.fail("accumulate", f"the sum in {node.accumulate} does not fit {node.dtype}", node)

    def semiring(self, semiring: Semiring, factors: int, node: Expr | None) -> None:
        operations = (semiring.add, semiring.mul) if semiring.mul else (semiring.add,)
        for name in operations:
            if name not in FUNCTIONS or FUNCTIONS[name].arity != 2:
                self.fail("semiring", f"'{name}' of '{semiring.name}' is no function of two arguments", node)
        if not semiring.mul and factors != 1:
            self.fail("semiring", f"'{semiring.name}' has no product, so it takes one factor, not {factors}", node)

    def softmax(self, node: Softmax) -> None:
        self.known(node.along, node)
        if node.dtype.kind != "f":
            self.fail("softmax", f"a softmax is a float, not {node.dtype}", node)
        if not node.along or any(n in e.bound for e in walk(node.body) if isinstance(e, Einsum) for n in node.along):
            self.fail("softmax", "a softmax goes along one or more indices that its body does not bind", node)

    def linalg(self, node: Linalg) -> None:
        """The node is all of its equation, its arguments are whole tensors that fit, and the result is as wide."""
        equation = self.equation
        self.known((*node.result, *node.bound), node)
        if node is not equation.expr or equation.update is not None or equation.semiring != PLUS_TIMES:
            self.fail("linalg-alone", "a function of matrices is all that its equation computes", node)
        if tuple(s.bare for s in equation.slots) != node.result or len(set(node.result)) < len(node.result):
            self.fail("linalg-result", "the axes of the value are those of the equation, in order", node)
        entry = LINALG.get(node.function)
        if entry is None:
            self.fail("unknown-function", f"'{node.function}' is no function of matrices", node)
        if len(node.args) < entry.arity or (len(node.args) > entry.arity and not entry.variadic):
            self.fail("arity", f"'{node.function}' has {entry.arity} arguments, not {len(node.args)}", node)
        if any(a.dtype.name not in TYPES for a in node.args[:1]) or node.dtype != entry.result(node.args[0].dtype):
            self.fail("linalg-type", f"'{node.function}' computes in {', '.join(TYPES)}", node)
        self.linalg_shapes(node, entry)

    def linalg_shapes(self, node: Linalg, entry: LinalgFunction) -> None:
        shapes = []
        for arg in node.args:
            slots = tuple(s.bare for s in arg.slots) if isinstance(arg, Read) else ()
            whole = isinstance(arg, Const) or (isinstance(arg, Read) and arg.pad is None)
            if not whole or len(set(slots)) < len(slots) or not {*slots} <= {*node.bound}:
                self.fail("linalg-argument", "an argument is a whole tensor at indices of its own", node)
            extents = tuple(self.equation.extents[n] for n in slots if n is not None)
            shape = self.tensors[arg.tensor].shape if isinstance(arg, Read) else ()
            if len(extents) != len(shape) or any(_differ(a, b) for a, b in zip(extents, shape, strict=True)):
                self.fail("linalg-argument", "an argument is read at all of its positions", node)
            shapes.append(extents)
        if entry.matrix is not None:
            matrix = shapes[entry.matrix]
            if len(matrix) < 2 or _differ(matrix[-2], matrix[-1]):
                self.fail("linalg-square", f"'{node.function}' takes a square matrix", node)
        wanted: tuple[Size, ...] = entry.shape(shapes)
        given = tuple(self.equation.extents[n] for n in node.result)
        if len(wanted) != len(given) or any(_differ(a, b) for a, b in zip(wanted, given, strict=True)):
            self.fail("linalg-result", f"the value of '{node.function}' has another shape", node)

    # helpers

    def known(self, names: Iterable[str], node: Expr | None = None) -> None:
        for name in names:
            if name not in self.equation.extents:
                self.fail("unknown-index", f"the index '{name}' is not listed with an extent", node)

    def inside(self, slot: Affine, extent: Size, node: Expr | None = None) -> None:
        """The slot does not provably leave 0..extent, whatever the sizes are (as long as there is a point at all)."""
        extents = self.equation.extents
        if slot.modulus is not None or not all(extents[n].at_least(1) for n in slot.indices):
            return
        low, high = slot.bounds(extents)
        if (-low - 1).at_least(0, lowest=0) or (high - extent).at_least(0, lowest=0):
            self.fail("range", f"the slot {slot} runs from {low} to {high}, the axis from 0 to {extent - 1}", node)

    # later stages

    def normal(self) -> None:
        for node in walk(self.equation.expr):
            if isinstance(node, Softmax):
                self.fail("no-softmax", "a softmax is left", node)

    def ordered(self) -> None:
        found = [e for e in walk(self.equation.expr) if isinstance(e, Einsum)]
        for node in found:
            if any(isinstance(e, Einsum) for factor in children(node) for e in walk(factor)):
                self.fail("flat-factors", "a factor holds an einsum", node)
        if len(found) > 1:
            self.fail("one-einsum", f"the equation holds {len(found)} einsums")

    def planned(self) -> None:
        expr = self.equation.expr
        for node in walk(expr):
            special = isinstance(node, Read) and (
                node.pad is not None or any(s.modulus is not None for s in node.slots)
            )
            if special and node is not expr:
                self.fail("copies", "a read with a pad or a modulus stands in a larger expression", node)
            if special and (self.equation.update is not None or any(s.bare is None for s in self.equation.slots)):
                self.fail("copies", "a copy writes one index an axis, and adds to nothing", node)
        if any(s.modulus is not None for s in self.equation.slots):
            self.fail("affine-output", "an output slot has a modulus")


def _fits(small: DType, large: DType) -> bool:
    return promote(small, large) == large


def _differ(a: Size, b: Size) -> bool:
    """Whether two sizes are provably never equal."""
    difference = (a - b).constant
    return difference is not None and difference != 0


def _representable(node: Const) -> bool:
    value, kind = node.value, node.dtype.kind
    if isinstance(value, complex) and not isinstance(value, float):
        return kind == "c"
    if kind == "b":
        return value in (0, 1)
    if kind not in "iu":
        return True
    if not isfinite(value) or value != int(value):
        return False
    low = -(1 << (node.dtype.bits - 1)) if kind == "i" else 0
    return low <= value < low + (1 << node.dtype.bits)
