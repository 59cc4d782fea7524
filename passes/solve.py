"""Solvers that use structure: `solve`, `inv`, `logdet`, `powm` become programs with smaller leaves, or none.

The structure of a matrix is read from the equations that define it (`solve_read`), which gives it a form
(`solve_forms`, `solve_spectral`); the form writes equations for the function (`solve_emit`). What they leave unread,
the big matrix above all, is dropped. Programs are at fixed sizes. A matrix without structure keeps its dense leaf, and
the note says what stood in the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.errors import NOWHERE, Span
from ..ir.expr import Const, Equation, Linalg, Program, Read, Structure, reads, transform
from ..ir.expr import Expr as Node
from .reshaped import placed
from .solve_emit import Emitter, Unreadable, Value
from .solve_forms import Dense, Form, Power
from .solve_read import Reader
from .tools import Names


@dataclass(frozen=True)
class Solver:
    """What was done for one function of the source: its value, the function, whether by structure, how, and why not."""

    value: str
    function: str
    structured: bool
    method: str
    reason: str = ""
    span: Span = NOWHERE


def solve_structured(program: Program) -> tuple[Program, tuple[Solver, ...]]:
    """The program with a solver for each function of matrices whose matrix has structure, and a note for each.

    >>> from ..ir.text import parse_ir
    >>> inputs = "input d: f64[4] \\ninput x: f64[4]\\n"
    >>> matrix = "M[i, j]: f64[4, 4] = einsum[plustimes, f64](; d[i], eq(at(i), at(j))) over i<4, j<4\\n"
    >>> call = "y[i]: f64[4] = linalg[solve](i; r, c, k; M[r, c], x[k]) over i<4, r<4, c<4, k<4\\nreturn y"
    >>> new, notes = solve_structured(parse_ir(inputs + matrix + call))
    >>> notes[0].method, "M" in new.tensors
    ('diagonal: elementwise', False)
    """
    names, equations, notes = Names(program), list[Equation](), list[Solver]()
    for equation in program.equations:
        node = equation.expr
        if isinstance(node, Linalg) and node.function in ("solve", "inv", "logdet", "powm"):
            before = replace(program, equations=tuple(equations), outputs=())
            new, note = _solved(before, equation, node, names)
            equations += new
            notes.append(note)
        else:
            equations.append(equation)
    return _cleaned(replace(program, equations=tuple(equations))), tuple(notes)


def _solved(program: Program, equation: Equation, node: Linalg, names: Names) -> tuple[list[Equation], Solver]:
    """The equations for one function, the last of which defines its value."""
    matrix = node.args[0]
    assert isinstance(matrix, Read)
    reader = Reader(matrix.dtype)
    found = reader.read(program, matrix.tensor) if 0 not in _shape(program, matrix.tensor) else None
    note = Solver(equation.name, node.function, False, "dense leaf", span=equation.span)
    if found is None:
        reason = "; ".join(reader.reasons) or "the matrix is no sum of products of operands"
        return [equation], replace(note, reason=reason)
    form, used = found
    reason = "; ".join(dict.fromkeys(reader.reasons)) or "no structure was found"
    power = _power(program, node)
    if isinstance(form, Dense):
        assumed = replace(node, assume=tuple(map(Structure, form.assume)))
        return [replace(equation, expr=assumed)], replace(note, method=f"dense leaf, {form.describe()}", reason=reason)
    if power is not None and not form.has_power(power):
        known = reader.assumed(used)
        reason = f"its structure gives no such power: {form.describe()}"
        new = replace(equation, expr=replace(node, assume=tuple(map(Structure, known))))
        method = note.method + f" ({', '.join(known)})" * bool(known)
        return [new], replace(note, method=method, reason=reason)
    emitter = Emitter(program, names, equation.name, matrix.dtype, equation.span)
    for view in used:
        emitter.lets.update({x.name: x for x in view.lets})
    try:
        value = _written(emitter, form, program, node, power)
    except Unreadable:
        return [equation], replace(note, reason="a part of the matrix is the value of a function")
    return _named(emitter, value, equation), replace(note, structured=True, method=form.describe())


def _shape(program: Program, name: str) -> tuple[int, ...]:
    return tuple(s.evaluate({}) for s in program.tensors[name].shape)


def _power(program: Program, node: Linalg) -> Power | None:
    if node.function != "powm":
        return None
    power = node.args[1]
    if isinstance(power, Const):
        return power
    assert isinstance(power, Read)
    return Value(power.tensor, (), power.dtype)


def _written(e: Emitter, form: Form, program: Program, node: Linalg, power: Power | None) -> Value:
    """The equations of the form for the function, and the value."""
    if node.function == "logdet":
        return form.logdet(e)
    if power is not None:
        return e.matrix(form.power(e, power), "power")
    if node.function == "inv":
        return e.matrix(form.inverse(e), "inverse")
    right = node.args[1]
    assert isinstance(right, Read)
    shape = _shape(program, right.tensor)
    x = e.reshaped(Value(right.tensor, shape, right.dtype), (*form.rows, *shape[1:]))
    found = form.solve(e, x)
    last = placed(e.equations[-1], shape) if e.equations and e.equations[-1].name == found.name else None
    if last is None or isinstance(last.expr, Linalg):
        return e.reshaped(found, shape)
    e.equations[-1] = last
    return replace(found, shape=shape)


def _named(e: Emitter, value: Value, old: Equation) -> list[Equation]:
    """The equations with the value under its old name."""
    own = [x.name for x in e.equations]
    if value.name in own and value.dtype == old.dtype:
        place = own.index(value.name)
        used = any(value.name == r.tensor for x in e.equations for r in reads(x.expr))
        if not used:
            last = replace(e.equations[place], name=old.name)
            return [*e.equations[:place], *e.equations[place + 1 :], last]
    e.map("cast", "cast", value, dtype=old.dtype)
    return [*e.equations[:-1], replace(e.equations[-1], name=old.name)]


# --- afterwards -------------------------------------------------------------------------------------------------------


def _cleaned(program: Program) -> Program:
    """Equal equations once, copies of leaves gone, and only what an output needs."""
    seen: dict[Equation, str] = {}
    same: dict[str, str] = {}
    kept = []
    for equation in program.equations:
        new = _renamed(equation, same)
        key = replace(new, name="")
        first = seen.setdefault(key, equation.name)
        if first == equation.name or equation.name in program.outputs:
            kept.append(new)
        else:
            same[equation.name] = first
    return _needed(_without_copies(replace(program, equations=tuple(kept))))


def _renamed(equation: Equation, names: Mapping[str, str]) -> Equation:
    def rule(e: Node) -> Node:
        return replace(e, tensor=names.get(e.tensor, e.tensor)) if isinstance(e, Read) else e

    update = None if equation.update is None else names.get(equation.update, equation.update)
    return replace(equation, expr=transform(equation.expr, rule), update=update)


def _without_copies(program: Program) -> Program:
    """`y = y.solve1` of a value that nobody else reads: the equation of that gets the name."""
    times: dict[str, int] = {}
    for e in program.equations:
        for name in [r.tensor for r in reads(e.expr)] + ([e.update] if e.update else []):
            times[name] = times.get(name, 0) + 1
    renamed = {}
    for e in program.equations:
        read = e.expr
        if not isinstance(read, Read) or e.update is not None or read.pad is not None or read.slots != e.slots:
            continue
        source = program.tensors[read.tensor]
        whole = all(s.bare is not None for s in e.slots) and len(set(e.slots)) == len(e.slots)
        fits = isinstance(source, Equation) and whole and source.shape == e.shape and source.dtype == e.dtype
        if fits and e.name in program.outputs and times[read.tensor] == 1 and read.tensor not in program.outputs:
            renamed[read.tensor] = e.name
    equations = [e for e in program.equations if e.name not in renamed.values()]
    return replace(
        program, equations=tuple(replace(_renamed(e, renamed), name=renamed.get(e.name, e.name)) for e in equations)
    )


def _needed(program: Program) -> Program:
    needed, kept = set(program.outputs), []
    for equation in reversed(program.equations):
        if equation.name in needed:
            kept.append(equation)
            needed |= {r.tensor for r in reads(equation.expr)} | ({equation.update} if equation.update else set())
    return replace(program, equations=tuple(reversed(kept)))
