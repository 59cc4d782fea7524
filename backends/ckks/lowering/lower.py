"""Lowering: from a program at known sizes to the steps of an `EncryptedProgram`.

Equations that depend on clear tensors alone become the clear program. Of every other equation, the monomials
(`terms`) are sorted: those with one encrypted read are terms of linear maps, one map for each operand; those with
several are products of ciphertexts; equal reads of one position are polynomials; the rest is a bias. Clear factors
are multiplied ahead, in the clear program, into one tensor of coefficients for each term. The order of contraction
was decided before: what the equations store is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ....ir import expr as e
from ....ir.index import Affine, Index
from ....ir.size import Size
from ....ir.types import F64
from .indices import shape_of, sources
from .placing import Placing
from .problem import EncryptedProgram, Linear, Polynomial, Product, Step, arguments, clear_names
from .relabel import folded
from .state import Blocks, State


def lower(
    program: e.Program,
    ranges: Mapping[str, float] | None = None,
    blocks: Mapping[str, Blocks] | None = None,
) -> EncryptedProgram:
    """The steps of a program whose sizes are all numbers.

    `ranges` bounds the magnitude of inputs; `blocks` has the stored blocks of matrices that were declared sparse.

    Raises `EncryptionError` for what cannot be evaluated on encrypted values.

    >>> from ....ir.text import parse_ir
    >>> inputs = "input A: f64[2, 3]\\ninput encrypted x: f64[3]\\n"
    >>> text = inputs + "y[i]: f64[2] = einsum[plustimes, f64](k; A[i, k], x[k]) over i<2, k<3\\nreturn y"
    >>> lower(parse_ir(text)).steps[0].terms[0].coefficients
    'A'
    """
    state = State(program, blocks or {})
    for equation in program.equations:
        if sources(equation) & state.encrypted:
            state.shapes[equation.name] = shape_of(equation.shape)
            Placing(state, equation).run()
            state.encrypted.add(equation.name)
        else:
            state.clear.append(equation)
    return _result(state, ranges or {})


def _result(state: State, ranges: Mapping[str, float]) -> EncryptedProgram:
    """The whole program."""
    outputs = tuple(n for n in state.program.outputs if n in state.encrypted)
    results = tuple(n for n in state.program.outputs if n not in state.encrypted)
    steps = folded(_needed(state.steps, outputs), state.shapes, set(outputs))
    steps = _scaled_ahead(state, _apart(state, steps), outputs)
    named = dict.fromkeys(n for s in steps for n in clear_names(s))
    clear = _clear_program(state, tuple(dict.fromkeys((*named, *results))))
    inputs = tuple(i.name for i in state.program.inputs if i.encrypted)  # also one that cancels: clients have it
    values = {v for s in steps for v in (s.name, *arguments(s))} | {*outputs, *inputs}
    shapes = {n: s for n, s in state.shapes.items() if n in values}
    return EncryptedProgram(inputs, shapes, steps, outputs, clear, dict(ranges), results)


def _clear_program(state: State, outputs: tuple[str, ...]) -> e.Program:
    need, kept = set(outputs), []
    for equation in reversed(state.clear):
        if equation.name in need:
            kept.append(equation)
            need |= sources(equation)
    inputs = tuple(replace(i, const=False) for i in state.program.inputs if i.name in need)
    return e.Program(inputs, tuple(reversed(kept)), outputs, (), state.program.source)


def _apart(state: State, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps in which a product that reads the result of a map at several places (a Gram matrix) has as many maps
    instead, each of which may lay its result out as the product wants it. To move one result from layout to layout
    takes a level more, and often more rotations than the map.
    """
    maps = {s.name: s for s in steps if isinstance(s, Linear) and any(t.coefficients is not None for t in s.terms)}
    made: list[Step] = []
    for step in steps:
        if isinstance(step, Product):
            places: dict[tuple[str, tuple[str, ...]], str] = {}
            for name, at in zip(step.operands, step.inputs, strict=True):
                if (name, at) not in places and name in maps and any(name == known for known, _ in places):
                    places[name, at] = state.value(name, state.shapes[name])
                    made.append(replace(maps[name], name=places[name, at]))
                places.setdefault((name, at), name)
            operands = tuple(places[key] for key in zip(step.operands, step.inputs, strict=True))
            step = replace(step, operands=operands)
        made.append(step)
    return tuple(made)


def _scaled_ahead(state: State, steps: tuple[Step, ...], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps in which the map before a Chebyshev series already gives values in -1..1, so that no product is
    spent on bringing them there.
    """
    uses = Counter(n for s in steps for n in arguments(s))
    maps = {s.name: k for k, s in enumerate(steps) if isinstance(s, Linear)}
    made = list(steps)
    for number, step in enumerate(steps):
        if not isinstance(step, Polynomial) or not step.chebyshev or (step.low, step.high) == (-1.0, 1.0):
            continue
        inner = made[maps[step.argument]] if step.argument in maps else None
        if not isinstance(inner, Linear) or uses[inner.name] > 1 or inner.name in outputs:
            continue
        if not any(t.coefficients for t in inner.terms):
            continue
        scale, shift = 2 / (step.high - step.low), -(step.high + step.low) / (step.high - step.low)
        terms = tuple(replace(t, factor=scale * t.factor) for t in inner.terms)
        made[maps[inner.name]] = replace(inner, terms=terms, bias=_moved_bias(state, inner, scale, shift))
        made[number] = replace(step, low=-1.0, high=1.0)
    return tuple(made)


def _moved_bias(state: State, step: Linear, scale: float, shift: float) -> str | None:
    """The clear tensor scale * bias + shift."""
    if step.bias is None and not shift:
        return None
    shape = state.shapes[step.name]
    indices = tuple(Index(f"i{k}", Size.of(n)) for k, n in enumerate(shape))
    slots = tuple(Affine.of(i.name) for i in indices)
    value: e.Expr = e.Const(shift, F64)
    if step.bias is not None:
        dtype = state.clear_tensor(step.bias).dtype
        scaled = e.Einsum((), (e.Const(scale, F64), e.Read(step.bias, slots, dtype)), F64, F64)
        value = e.Map("add", (scaled, value), F64)
    name = state.fresh(f"{step.name}.bias")
    state.clear.append(e.Equation(name, slots, tuple(map(Size.of, shape)), indices, value, F64))
    return name


def _needed(steps: Sequence[Step], outputs: Iterable[str]) -> tuple[Step, ...]:
    need, kept = set(outputs), []
    for step in reversed(steps):
        if step.name in need:
            kept.append(step)
            need.update(arguments(step))
    return tuple(reversed(kept))
