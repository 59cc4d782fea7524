"""Candidates: whole programs in which a value is computed through a structure that was found.

A finding speaks of one value as a linear function of one operand. Each method of its term gives an equal program: the
operand is read into digits, the structure is applied, the digits are put back into the value's shape, and what does not
depend on the operand is added. Nothing is chosen here; the caller prices the programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ..ir.expr import Equation, Expr, Input, Program, Read
from ..ir.index import Affine, Index
from ..ir.size import Size
from ..ir.structures.build import applied
from ..ir.types import DType
from .network import known_sizes, networks
from .recognise import Finding
from .tools import Names


def rewritten(
    program: Program, finding: Finding, sizes: Mapping[str, int] | None = None
) -> tuple[tuple[str, Program], ...]:
    """(method, program) for each way to apply the term of a finding that speaks of a whole value.

    Programs are at the given sizes: those that the finding was made with. There is none for facts without a term, for
    single terms of a sum, where a size is not known, for a value with an offset (`W x + b` is found, its replacement
    needs the sum), or where operands and value have different types.

    >>> from ..ir.text import parse_ir
    >>> from .recognise import recognise
    >>> inputs = "input t: f64[7]\\ninput x: f64[4]\\n"
    >>> product = "y[i]: f64[4] = einsum[plustimes, f64](j; t[i-j+3], x[j]) over i<4, j<4\\nreturn y"
    >>> program = parse_ir(inputs + product)
    >>> [name for name, _ in rewritten(program, recognise(program, "x")[0])]
    ['contraction', 'fft']
    """
    value = program.tensors[finding.value]
    argument = program.tensors.get(finding.argument)
    if finding.term is None or finding.number is not None or not isinstance(value, Equation) or argument is None:
        return ()
    known = known_sizes(program, sizes)
    if any(not s.names <= set(sizes or {}) for t in program.tensors.values() for s in t.shape):
        return ()
    network = next(n for n in networks(program, sizes) if n.name == finding.value)
    if network.opaques or value.update is not None:
        return ()
    if any(finding.argument not in [n for n, _ in term.atoms] for _, term in network.terms):
        return ()
    operator = finding.term.operator()
    dtype, semiring = value.dtype, value.semiring
    if any(program.tensors[n].dtype != dtype for n in (*operator.operands, finding.argument) if n in program.tensors):
        return ()
    if any(n not in program.tensors and o.formula is None for n, o in operator.operands.items()):
        return ()
    found = []
    for method in finding.term.methods():
        if method.allowed(dtype, semiring):
            part = applied(method, operator, (), dtype, semiring, "x'", "y'")
            found.append((method.name, _spliced(program, value, argument, part, operator.shape, known)))
    return tuple(found)


def _spliced(
    program: Program,
    value: Equation,
    argument: Input | Equation,
    part: Program,
    shape: tuple[tuple[int, ...], tuple[int, ...]],
    sizes: Mapping[str, int],
) -> Program:
    """The program with the equations of `part` in place of the value's own."""
    names = Names(program)
    renamed = {e.name: names.fresh(f"{value.name}.{e.name}") for e in part.equations}
    outer = tuple(s.evaluate(sizes) for s in argument.shape)
    before, after = [], []
    if outer == shape[1]:
        renamed["x'"] = argument.name
    else:
        renamed["x'"] = names.fresh(f"{value.name}.argument")
        before = _reshaped(argument.name, outer, renamed["x'"], shape[1], argument.dtype, names)
    result = tuple(s.evaluate(sizes) for s in value.shape)
    last = part.outputs[0]
    if result == shape[0]:
        renamed[last] = value.name
    else:
        after = _reshaped(renamed[last], shape[0], value.name, result, value.dtype, names)
    inner = [_renamed(e, renamed) for e in part.equations]
    k = program.equations.index(value)
    fixed = [replace(e) for e in (*before, *inner, *after)]
    return replace(program, equations=(*program.equations[:k], *fixed, *program.equations[k + 1 :]))


def _renamed(equation: Equation, names: Mapping[str, str]) -> Equation:
    from ..ir.expr import transform

    def rule(e: Expr) -> Expr:
        return replace(e, tensor=names.get(e.tensor, e.tensor)) if isinstance(e, Read) else e

    return replace(equation, name=names.get(equation.name, equation.name), expr=transform(equation.expr, rule))


def _reshaped(
    source: str, old: tuple[int, ...], target: str, new: tuple[int, ...], dtype: DType, names: Names
) -> list[Equation]:
    """target = source in another shape, row-major: through a flat vector unless one shape refines the other."""
    if _refines(new, old):
        return [_view(source, old, target, new, dtype, True)]
    if _refines(old, new):
        return [_view(source, old, target, new, dtype, False)]
    flat = names.fresh(f"{target}.flat")
    size = (prod(old),)
    return [_view(source, old, flat, size, dtype, False), _view(flat, size, target, new, dtype, True)]


def _refines(fine: tuple[int, ...], coarse: tuple[int, ...]) -> bool:
    return _groups(fine, coarse) is not None


def _groups(fine: tuple[int, ...], coarse: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    """The axes of `fine` that make up each axis of `coarse`, if they do."""
    groups, k = [], 0
    for extent in coarse:
        start, total = k, 1
        while total < extent and k < len(fine):
            total *= fine[k]
            k += 1
        if total != extent:
            return None
        groups.append(tuple(range(start, k)))
    return groups if k == len(fine) else None


def _view(source: str, old: tuple[int, ...], target: str, new: tuple[int, ...], dtype: DType, split: bool) -> Equation:
    """One copy; `split` says that the target has the finer axes."""
    fine, coarse = (new, old) if split else (old, new)
    groups = _groups(fine, coarse)
    assert groups is not None
    indices = tuple(Index(f"i{k}", Size.of(n)) for k, n in enumerate(fine))
    composite = tuple(Affine.composite(tuple(indices[k] for k in g)) for g in groups)
    bare = tuple(Affine.of(i.name) for i in indices)
    slots, reads = (bare, composite) if split else (composite, bare)
    return Equation(target, slots, tuple(map(Size.of, new)), indices, Read(source, reads, dtype), dtype)
