"""Programs without their structure: every linear map as one full matrix, which the clear program forms.

This is what there would be without recognition, the row to compare with in tables of candidates. Every entry of such a
matrix counts, zero or not.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir import expr as e
from ....ir.index import Affine, Index
from ....ir.size import Size
from ....ir.types import F64
from .problem import EncryptedProgram, Linear, Slot, Term, clear_names


def dense(program: EncryptedProgram) -> EncryptedProgram:
    """The program with a full matrix in place of the terms of each linear map that has coefficients.

    >>> from ....ir.text import parse_ir
    >>> from .lower import lower
    >>> text = "input d: f64[2]\\ninput encrypted x: f64[2]\\ny[i]: f64[2] = mul(d[i], x[i]) over i<2\\nreturn y"
    >>> dense(lower(parse_ir(text))).clear.equations[0].shape[0].constant
    2
    """
    steps, equations = [], []
    for step in program.steps:
        if isinstance(step, Linear) and any(t.coefficients is not None for t in step.terms):
            rows, columns = program.shapes[step.name], program.shapes[step.argument]
            name = f"{step.name}.matrix"
            equations += _matrix(name, step, (*rows, *columns), program.clear)
            step = replace(step, terms=(_full(name, rows, columns),))
        steps.append(step)
    named = tuple(dict.fromkeys((*(n for s in steps for n in clear_names(s)), *program.results)))
    clear = replace(program.clear, equations=(*program.clear.equations, *equations), outputs=named)
    return replace(program, steps=tuple(steps), clear=clear)


def _full(name: str, rows: tuple[int, ...], columns: tuple[int, ...]) -> Term:
    indices = tuple((f"{side}{k}", n) for side, shape in (("r", rows), ("c", columns)) for k, n in enumerate(shape))
    slots = tuple(Slot(((n, 1),)) for n, _ in indices)
    return Term(indices, slots[: len(rows)], slots[len(rows) :], name, slots)


def _matrix(name: str, step: Linear, shape: tuple[int, ...], clear: e.Program) -> list[e.Equation]:
    """Equations that add up the entries of a map: one for each term, each updating the one before.

    Entries outside of the matrix count for nothing: where there are any, a wider one is made and cut.
    """
    low, high = [0] * len(shape), [n - 1 for n in shape]
    for term in step.terms:
        reach = [_reach(s, dict(term.indices)) for s in (*term.rows, *term.columns)]
        low = [min(a, r[0]) for a, r in zip(low, reach, strict=True)]
        high = [max(b, r[1]) for b, r in zip(high, reach, strict=True)]
    wide = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
    made = _terms(name if wide == shape else f"{name}.wide", step, wide, low, clear)
    if wide != shape:
        indices = tuple(Index(f"i{k}", Size.of(n)) for k, n in enumerate(shape))
        slots = tuple(Affine.of(i.name) for i in indices)
        places = tuple(s - a for s, a in zip(slots, low, strict=True))
        cut = e.Read(made[-1].name, places, F64)
        made.append(e.Equation(name, slots, tuple(map(Size.of, shape)), indices, cut, F64))
    return made


def _terms(name: str, step: Linear, shape: tuple[int, ...], low: list[int], clear: e.Program) -> list[e.Equation]:
    made: list[e.Equation] = []
    for number, term in enumerate(step.terms):
        own = name if number == len(step.terms) - 1 else f"{name}.{number + 1}"
        factors: tuple[e.Expr, ...] = (e.Const(term.factor, F64),)
        if term.coefficients is not None:
            dtype = clear.tensors[term.coefficients].dtype
            factors += (e.Read(term.coefficients, tuple(map(_affine, term.at)), dtype, 0),)
        before = made[-1].name if made else None
        indices = tuple(Index(n, Size.of(k)) for n, k in term.indices)
        slots = tuple(
            _affine(s) - a if a else _affine(s) for s, a in zip((*term.rows, *term.columns), low, strict=True)
        )
        value = e.Einsum((), factors, F64, F64)
        made.append(e.Equation(own, slots, tuple(map(Size.of, shape)), indices, value, F64, update=before))
    return made


def _reach(slot: Slot, extents: dict[str, int]) -> tuple[int, int]:
    """Least and greatest position of a slot."""
    if slot.modulus:
        return 0, slot.modulus - 1
    ends = [c * (extents[n] - 1) for n, c in slot.terms]
    return slot.offset + sum(min(0, r) for r in ends), slot.offset + sum(max(0, r) for r in ends)


def _affine(slot: Slot) -> Affine:
    terms = tuple(sorted((n, Size.of(c)) for n, c in slot.terms))
    return Affine(terms, Size.of(slot.offset), Size.of(slot.modulus) if slot.modulus else None)
