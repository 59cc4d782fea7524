"""Copies that are not made: a read of a padded or turned-round copy becomes the padded or modular read itself.

Before kernels are chosen. Planned programs have pads and moduli in equations of one read, `x.copy[e] = x[e-1]`, so that
every other read is affine and in range. A kernel here can mask, clamp and take remainders at each load; where that
arithmetic takes less time than writing and reading the copy (and starting a kernel for it), the copy is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod

from ...ir.expr import Einsum, Equation, Expr, Program, Read, reads, transform, walk
from ...ir.lookup import split_lookups
from .choose import Settings
from .product import is_bare, product_of
from .views import Layout

# Rates of one processor of the GPUs of the table, good to a factor of two: integer operations and bytes per second.
OPERATIONS, BYTES = 1e11, 3e10
LAUNCH = 3e-6  # seconds to start a kernel
MASK, REMAINDER = 6, 40  # integer operations at each load: compare with both ends, two divisions
REUSED = 64  # points of an axis that the operand lacks for which an element is loaded once: a block of it


def folded(
    program: Program,
    sizes: Mapping[str, int],
    processors: int = 132,
    kept: Collection[str] = (),
) -> tuple[Program, tuple[tuple[str, str], ...]]:
    """The program without the copies that do not pay, and which these are: (copy, equation that now reads past it).

    Equations whose names are `kept` stay as they are.

    >>> from ...ir.text import parse_ir
    >>> text = "input x: f32[n] pad=0.0\\nc[e]: f32[n+2] = x[e-1; pad=0.0] over e<n+2\\n"
    >>> text += "y[i]: f32[n] = exp(c[i+2]) over i<n\\nreturn y"
    >>> found, pairs = folded(parse_ir(text), {"n": 1000})
    >>> pairs, [str(r.slots[0]) for e in found.equations for r in reads(e.expr)]
    ((('c', 'y'),), ['i+1'])
    """
    made = {e.name: e for e in program.equations}
    readers: dict[str, list[Equation]] = {n: [] for n in made}
    for equation in program.equations:
        for name in {r.tensor for r in reads(equation.expr)} | {equation.update or ""}:
            readers.get(name, []).append(equation)
    gone: dict[str, Equation] = {}
    for equation in program.equations:
        mine = readers[equation.name]
        if equation.name in {*kept, *program.outputs} or not is_copy(equation):
            continue
        free = all(e.name not in kept and _takes(e, equation) for e in mine)
        if free and sum(at_loads(e, equation, sizes, processors) for e in mine) < alone(equation, sizes, processors):
            gone[equation.name] = equation
    pairs = tuple((n, e.name) for n in gone for e in readers[n])
    equations = tuple(_without(e, gone) for e in program.equations if e.name not in gone)
    return replace(program, equations=equations), pairs


def by_library(
    program: Program, sizes: Mapping[str, int], layouts: Mapping[str, Layout], settings: Settings
) -> frozenset[str]:
    """The equations that go to torch.matmul as they are, for inputs that lie as `layouts` says.

    None is looked for where there is no copy that it could read.
    """
    if not any(map(is_copy, program.equations)):
        return frozenset()
    dense = {n: Layout.dense(tuple(s.evaluate(sizes) for s in t.shape), t.dtype) for n, t in program.tensors.items()}
    every = dense | dict(layouts)
    return frozenset(e.name for e in program.equations if product_of(e, sizes, every, settings) is not None)


def is_copy(equation: Equation) -> bool:
    """Whether an equation is one padded or modular read, each position of the result written once."""
    read = equation.expr
    if not isinstance(read, Read) or read.dtype != equation.dtype or equation.update is not None:
        return False
    whole = equation.shape == tuple(equation.extents[n] for n in equation.free) if is_bare(equation) else False
    return whole and (read.pad is not None or any(s.modulus is not None for s in read.slots))


def _takes(equation: Equation, copy: Equation) -> bool:
    """Whether an equation can read past a copy: by affine positions in range, none of them looked up."""
    for node in walk(equation.expr):
        if isinstance(node, Einsum) and split_lookups(node.factors)[0]:
            return False
    mine = [r for r in reads(equation.expr) if r.tensor == copy.name]
    plain = all(r.pad is None and all(s.modulus is None for s in r.slots) for r in mine)
    return plain and equation.update != copy.name


def _without(equation: Equation, gone: Mapping[str, Equation]) -> Equation:
    """The equation with reads past the copies."""

    def past(e: Expr) -> Expr:
        if not isinstance(e, Read) or e.tensor not in gone:
            return e
        copy = gone[e.tensor]
        read = copy.expr
        assert isinstance(read, Read)
        names = [s.bare for s in copy.slots]
        where = {name: slot for name, slot in zip(names, e.slots, strict=True) if name is not None}
        return replace(read, slots=tuple(s.substitute(where) for s in read.slots), span=e.span)

    return replace(equation, expr=transform(equation.expr, past))


def at_loads(equation: Equation, copy: Equation, sizes: Mapping[str, int], processors: int) -> float:
    """Seconds of the arithmetic at the loads of an equation that reads past a copy.

    Each element is loaded once for every point of the indices of the read, and again for every block of the others.
    """
    extents = {i.name: i.extent.evaluate(sizes) for i in equation.indices}
    read = copy.expr
    assert isinstance(read, Read)
    each = sum(REMAINDER if s.modulus is not None or read.pad == "wrap" else MASK for s in read.slots)
    loads = 0.0
    for mine in (r for r in reads(equation.expr) if r.tensor == copy.name):
        own = {n for s in mine.slots for n in s.indices}
        loads += prod(n for a, n in extents.items() if a in own) * max(1.0, _others(extents, own) / REUSED)
    return each * loads / (OPERATIONS * processors)


def _others(extents: Mapping[str, int], own: Collection[str]) -> int:
    return prod(n for a, n in extents.items() if a not in own)


def alone(copy: Equation, sizes: Mapping[str, int], processors: int) -> float:
    """Seconds of a copy: a kernel that reads and writes each element, which is then read in place of the original."""
    elements = prod(s.evaluate(sizes) for s in copy.shape)
    return LAUNCH + 2 * elements * copy.dtype.itemsize / (BYTES * processors)
