"""`solve`, `inv`, `logdet` and `powm` of whole tensors: each becomes an equation with a `Linalg` node.

Operands that are expressions (`kron(K1, K2) + s*I`) get an equation of their own first; the solver passes read the
structure of the matrix from it, and it is dropped where they need no entry of the matrix. What is checked here: square
matrices, fitting sizes, types that LAPACK has, a power that is a real number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir.errors import DTypeError, EinsumSyntaxError, ShapeError
from ..ir.expr import Const, Equation, Expr, Linalg, Read
from ..ir.index import Affine, Index
from ..ir.linalg import FUNCTIONS, LANGUAGE, TYPES
from ..ir.size import Size
from ..ir.types import F64, DType, promote
from . import syntax as s
from .scope import Scope, Tensor
from .sizes import Issue


@dataclass(frozen=True)
class Operand:
    """An argument: where it stands, its shape, and the tensor that it is ("" for an expression).

    `store` gives its value a tensor of its own, in a type if that is given, and tells its name.
    """

    node: s.Expr
    shape: tuple[Size, ...]
    tensor: str
    store: Callable[[DType | None], str]


@dataclass
class Algebra:
    """Makes the equations of one whole-tensor statement, which assigns to `target`."""

    scope: Scope
    equations: list[Equation]
    target: str

    def call(self, node: s.Call, operands: list[Operand]) -> str:
        """The tensor that holds the value of a call of one of the four functions.

        Raises `EinsumSyntaxError` for a wrong number of arguments, `ShapeError` for shapes that do not fit, and
        `DTypeError` for types that there is no algorithm for.
        """
        name = node.function.text
        self._check_shapes(node, name, operands)
        parts = operands if name == "solve" else operands[:1]
        sources = [self._source(o) for o in parts]
        joint = promote(*(t.dtype for t in sources if t.dtype is not None))
        self._check_type(name, sources[0], operands[0].node, joint)
        sources = [t if t.dtype == joint else self._source(o, joint) for t, o in zip(sources, parts, strict=True)]
        power = [self._power(operands[1])] if name == "powm" else []
        return self._equation(node, name, [*sources, *power], joint)

    # ---------------------------------------------------------------- checks

    def _check_shapes(self, node: s.Call, name: str, operands: list[Operand]) -> None:
        count, shapes, places = LANGUAGE[name], [o.shape for o in operands], [o.node.span for o in operands]
        if len(operands) != count:
            plural = "s" * (count > 1)
            example = {"solve": "solve(A, b)", "powm": "powm(S, -0.5)"}.get(name, f"{name}(A)")
            self.scope.fail(
                EinsumSyntaxError, f"{name} takes {count} argument{plural}", "arity", node.function.span, help=example
            )
        matrix = shapes[0]
        if len(matrix) != 2:
            axes = f"{len(matrix)} ax{'is' if len(matrix) == 1 else 'es'}"
            self.scope.fail(ShapeError, f"{name} takes a matrix, this has {axes}", "algebra", places[0])
        help = "for least squares: solve(A' @ A, A' @ b)" if name == "solve" else ""
        square = Issue("not-square", f"{name} takes a square matrix, this is {{left}} by {{right}}", (places[0],), help)
        self.scope.sizes.equate(matrix[0], matrix[1], square)
        if name == "solve":
            if len(shapes[1]) not in (1, 2):
                self.scope.fail(ShapeError, "solve takes a vector or a matrix on the right", "algebra", places[1])
            sizes = Issue("size-mismatch", "the matrix has {left} rows, the right side {right}", (places[1],))
            self.scope.sizes.equate(matrix[0], shapes[1][0], sizes)
        if name == "powm" and shapes[1]:
            self.scope.fail(ShapeError, "the power is a number", "algebra", places[1], help="powm(S, -0.25)")

    def _check_type(self, name: str, matrix: Tensor, arg: s.Expr, joint: DType) -> None:
        if joint.name in TYPES:
            return
        text = self.scope.source.text[arg.span.start : arg.span.end]
        wider = "f32" if joint.kind == "f" else "f64"
        self.scope.fail(
            DTypeError, f"{name} computes in {', '.join(TYPES)}, this is {joint}", "algebra-type", arg.span,
            matrix.place, help=f"{name}({wider}({text}){', ...' * (LANGUAGE[name] > 1)})",
        )  # fmt: skip

    # ---------------------------------------------------------------- operands

    def _source(self, operand: Operand, dtype: DType | None = None) -> Tensor:
        """The tensor that holds an operand: the operand itself, or its stored value, perhaps in another type."""
        name = operand.tensor if operand.tensor and dtype is None else operand.store(dtype)
        tensor = self.scope.tensors[name]
        tensor.dtype = self.scope.dtype(tensor)
        return tensor

    def _power(self, operand: Operand) -> Tensor | Const:
        """The power: a number, or a real scalar kept in f64."""
        arg = number = operand.node
        sign = 1
        while isinstance(number, s.Sign):
            sign = -sign if number.operator.text == "-" else sign
            number = number.operand
        if isinstance(number, s.Number) and not isinstance(number.value, complex):
            return Const(sign * float(number.value), F64, arg.span)
        tensor = None if isinstance(number, s.Number) else self._source(operand)
        if tensor is None or tensor.dtype is None or tensor.dtype.kind not in "fiu":
            self.scope.fail(DTypeError, "the power is a real number", "algebra-type", arg.span, help="powm(S, -0.25)")
        return tensor if tensor.dtype == F64 else self._source(operand, F64)

    # ---------------------------------------------------------------- the equation

    def _equation(self, node: s.Call, name: str, operands: list[Tensor | Const], dtype: DType) -> str:
        resolve = self.scope.sizes.resolve
        indices: list[Index] = []

        def axes(shape: tuple[Size, ...]) -> tuple[str, ...]:
            start = len(indices)
            indices.extend(Index(f"i{start + k}", resolve(n)) for k, n in enumerate(shape))
            return tuple(i.name for i in indices[start:])

        args: list[Expr] = []
        shapes: list[tuple[Size, ...]] = []
        for operand in operands:
            if isinstance(operand, Const):
                args.append(operand)
                shapes.append(())
                continue
            assert operand.shape is not None and operand.dtype is not None
            slots = tuple(map(Affine.of, axes(operand.shape)))
            args.append(Read(operand.current, slots, operand.dtype, None, node.span))
            shapes.append(operand.shape)
        bound = tuple(i.name for i in indices)
        entry = FUNCTIONS[name]
        shape = tuple(map(resolve, entry.shape(shapes)))
        result = axes(shape)
        value = Linalg(name, result, bound, tuple(args), entry.result(dtype), span=node.span)
        number = 1 + sum(n.startswith(f"{self.target}.{name}") for n in self.scope.tensors)
        tensor = Tensor(f"{self.target}.{name}{number}", shape=shape, dtype=value.dtype, result=True)
        tensor.assigned = node.span
        self.scope.tensors[tensor.name] = tensor
        self.equations.append(
            Equation(
                tensor.name, tuple(map(Affine.of, result)), shape, tuple(indices), value, value.dtype, span=node.span
            )
        )
        return tensor.name
