"""R18: the adjoint of an einsum by one of its operands is again an einsum.

y[s] = sum of A[a] * rest is linear in A. The gradient of a real function of y by A is, with g its gradient by y, the
tensor of A's shape with grad[a] = sum of g[s] * conj(rest) over all indices that do not stand in a. An index that A
repeats gives a diagonal on the left, an affine slot an affine one, so the left side is just A's slots: no case needs
a special form.
"""

from __future__ import annotations

from dataclasses import replace

from ..ir.errors import DTypeError
from ..ir.expr import Einsum, Equation, Expr, Input, Map, Program, Read, reads
from ..ir.index import Affine
from ..ir.types import BOOL, DType, real_type
from .rules import may_subtract
from .tools import cast, definition, has_special_slots, is_injective


def adjoint(program: Program, equation: str, operand: str, cotangent: str = "g") -> Program:
    """The program that gives the gradient by `operand` from that by the result of `equation`, an input named
    `cotangent`.

    The equation's right side must be one Einsum of plain reads over a ring; `DTypeError` says what is missing. Its
    inputs are `cotangent` and the tensors that the product reads besides; the output has the name `grad`. An operand
    that stands in several factors, or that the equation adds to, gets the sum over them. Over integers the ring is
    that of their type, modulo a power of two.

    >>> from ..ir.text import parse_ir, print_program
    >>> product = "y[i]: c64[n] = einsum[plustimes, c64](j; A[i, j], x[j]) over i<n, j<n"
    >>> source = parse_ir(f"input A: c64[n, n]\\ninput x: c64[n]\\n{product}\\nreturn y")
    >>> print(print_program(adjoint(source, "y", "x")).splitlines()[-2])
    grad[j]: c64[n] = einsum[plustimes, c64](i; g[i], conj(A[i, j])) over i<n, j<n
    """
    source = program.tensors[equation]
    if cotangent in program.tensors:
        raise DTypeError(f"'{cotangent}' is a tensor of the program, call the cotangent otherwise", code="adjoint")
    if not isinstance(source, Equation) or not isinstance(source.expr, Einsum):
        raise DTypeError(f"'{equation}' is no einsum, its adjoint is not formed here", code="adjoint")
    einsum = source.expr
    semiring = einsum.semiring if source.update is None else source.semiring  # `max=` of a sum of products is no sum
    for s in (einsum.semiring, semiring):
        if not may_subtract(s, einsum.accumulate):
            what = "of bools is" if s.ring else "is"
            raise DTypeError(f"{s.name} {what} no ring: there are no gradients in it", code="adjoint")
    if any(not isinstance(f, Read) or has_special_slots(f) for f in einsum.factors) or not is_injective(source):
        raise DTypeError(f"'{equation}' has factors that are no plain reads", code="adjoint")
    places = [k for k, f in enumerate(einsum.factors) if isinstance(f, Read) and f.tensor == operand]
    if not places and source.update != operand:
        raise DTypeError(f"'{equation}' does not read '{operand}'", code="adjoint")
    dtype = program.tensors[operand].dtype
    if dtype == BOOL or (dtype.kind in "iu" and einsum.accumulate.kind in "fc"):
        raise DTypeError(f"'{operand}' holds {dtype}, its gradient {einsum.accumulate}", code="adjoint")
    equations: list[Equation] = []
    if source.update == operand:
        equations.append(_of_update(source, dtype, "grad.0" if places else "grad", cotangent))
    for number, place in enumerate(places):
        name = "grad" if number == len(places) - 1 else f"grad.{number + 1}"
        update = equations[-1].name if equations else None
        equations.append(_one_place(program, source, einsum, place, name, update, cotangent))
    inputs = [Input(cotangent, source.shape, source.dtype)]
    for name in dict.fromkeys(r.tensor for e in equations for r in reads(e.expr) if r.tensor != cotangent):
        tensor = program.tensors[name]
        inputs.append(tensor if isinstance(tensor, Input) else Input(name, tensor.shape, tensor.dtype))
    return Program(tuple(inputs), tuple(equations), ("grad",))


def _of_update(source: Equation, dtype: DType, name: str, cotangent: str) -> Equation:
    """The contribution of what the equation adds to: the cotangent itself."""
    axes = tuple(f"i{k}" for k in range(len(source.shape)))
    value = cast(Read(cotangent, tuple(Affine.of(a) for a in axes), source.dtype), dtype)
    return definition(name, axes, value, dict(zip(axes, source.shape, strict=True)), dtype, source.semiring)


def _one_place(
    program: Program, source: Equation, einsum: Einsum, place: int, name: str, update: str | None, cotangent: str
) -> Equation:
    """The contribution of one factor, added to that of `update`."""
    read = einsum.factors[place]
    assert isinstance(read, Read)
    kept = {n for s in read.slots for n in s.indices}
    factors: list[Expr] = [Read(cotangent, source.slots, source.dtype)]
    factors += [_conjugate(f) for k, f in enumerate(einsum.factors) if k != place]
    every = [n for n in (i.name for i in source.indices) if n not in kept]
    total = Einsum(tuple(every), tuple(factors), einsum.accumulate, einsum.accumulate, einsum.semiring)
    value: Expr = total
    if einsum.accumulate.kind == "c" and read.dtype.kind != "c":
        value = Map("real", (total,), real_type(einsum.accumulate))
    return replace(
        source,
        name=name,
        slots=read.slots,
        shape=program.tensors[read.tensor].shape,
        expr=cast(value, read.dtype),
        dtype=read.dtype,
        semiring=einsum.semiring,
        update=update,
    )


def _conjugate(factor: Expr) -> Expr:
    return Map("conj", (factor,), factor.dtype) if factor.dtype.kind == "c" else factor
