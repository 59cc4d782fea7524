"""Common subexpressions and dead equations.

`key` is a canonical text of an expression: bound indices renamed in a canonical order, factors of a product and
arguments of commutative functions sorted. Equal keys mean equal values (rules R1 and R2); the converse fails only
where a product has symmetries that the sorting does not see, which costs a shared intermediate, never a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from ..ir.expr import (
    Const,
    Einsum,
    Equation,
    Expr,
    Map,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    free_indices,
    reads,
    transform,
)
from ..ir.functions import CAST, FUNCTIONS
from ..ir.index import Affine
from ..ir.rewrite import Trace
from ..ir.size import Size
from .base import Context
from .tools import note

_ROUNDS = 3  # of colour refinement: more than the longest path that tells two indices of a sensible product apart


@lru_cache(maxsize=4096)
def _text(size: Size) -> str:
    return str(size)


def key(expr: Expr, extents: Mapping[str, Size], names: Mapping[str, str] | None = None) -> str:
    """The canonical text of `expr`. `names` says what the free indices are called (themselves where it is silent)."""
    return _key(expr, extents, dict(names or {}))


def _slot(affine: Affine, names: Mapping[str, str]) -> str:
    terms = sorted((names.get(n, n), _text(c)) for n, c in affine.terms)
    modulus = "" if affine.modulus is None else "%" + _text(affine.modulus)
    return "+".join(f"{c}*{n}" for n, c in terms) + f"+{_text(affine.offset)}{modulus}"


def _key(expr: Expr, extents: Mapping[str, Size], names: dict[str, str]) -> str:
    match expr:
        case Const():
            return f"{expr.value!r}:{expr.dtype.name}"
        case SizeValue():
            return f"size({_text(expr.size)})"
        case Position():
            return f"at({_slot(expr.affine, names)})"
        case Read():
            pad = "" if expr.pad is None else f"|{expr.pad!r}"
            return f"{expr.tensor}[{','.join(_slot(s, names) for s in expr.slots)}{pad}]"
        case Map():
            args = [_key(a, extents, names) for a in expr.args]
            if expr.function != CAST and FUNCTIONS[expr.function].commutative:
                args.sort()
            return f"{expr.function}:{expr.dtype.name}({';'.join(args)})"
        case Softmax():
            inner = dict(names)
            return f"softmax({','.join(names.get(a, a) for a in expr.along)};{_key(expr.body, extents, inner)})"
        case Einsum():
            return _einsum_key(expr, extents, names)
    raise AssertionError(f"no expression: {expr!r}")


def _einsum_key(expr: Einsum, extents: Mapping[str, Size], names: dict[str, str]) -> str:
    inner = dict(names)
    depth = str(sum(1 for n in names.values() if n.startswith("$")))
    colour = {b: f"${_text(extents[b])}" for b in expr.bound}
    factors = list(expr.factors)
    touched = [set(free_indices(f)) for f in factors]
    for _ in range(_ROUNDS if len(expr.bound) > 1 else 1):
        new = {}
        for b in expr.bound:
            marked = inner | colour | {b: "$@"}
            new[b] = "|".join(sorted(_key(f, extents, marked) for f, t in zip(factors, touched, strict=True) if b in t))
        ranks = {text: k for k, text in enumerate(sorted(set(new.values())))}
        colour = {b: f"${_text(extents[b])}#{ranks[new[b]]}" for b in expr.bound}
    factors.sort(key=lambda f: _key(f, extents, inner | colour))
    order = [n for f in factors for n in free_indices(f) if n in colour]
    canonical = {n: f"${depth}.{k}" for k, n in enumerate(dict.fromkeys(order))}
    rest = sorted((b for b in expr.bound if b not in canonical), key=lambda b: _text(extents[b]))
    canonical |= {b: f"${depth}.{len(canonical) + k}" for k, b in enumerate(rest)}
    ranges = ",".join(f"{c}<{_text(extents[b])}" for b, c in canonical.items())
    body = ";".join(_key(f, extents, inner | canonical) for f in factors)
    ring = f"{expr.semiring.name}/{expr.semiring.add}/{expr.semiring.mul}/{expr.semiring.zero}/{expr.semiring.one}"
    return f"{ring}:{expr.accumulate.name}>{expr.dtype.name}({ranges}|{body})"


def equation_key(equation: Equation) -> str:
    """The canonical text of an equation's result, without its name: free indices are numbered by the slots."""
    names = {n: f"^{k}" for k, n in enumerate(equation.free)}
    left = ",".join(_slot(s, names) for s in equation.slots)
    shape = ",".join(map(_text, equation.shape))
    ranges = ",".join(_text(equation.extents[n]) for n in equation.free)
    right = key(equation.expr, equation.extents, names)
    return f"[{left}]({shape})({ranges}){equation.dtype.name}:{equation.semiring.name}:{equation.update} = {right}"


def share_common(program: Program, context: Context, trace: Trace) -> Program:
    """Equal equations are computed once; a second output of the same value becomes a read of the first."""
    if len(program.equations) < 2:
        return program
    alike: dict[_Rough, list[Equation]] = {}
    keys: dict[str, str] = {}
    renamed: dict[str, str] = {}
    out: list[Equation] = []
    for equation in program.equations:
        equation = with_names(equation, renamed)
        others = alike.setdefault(_rough(equation), [])
        same = _same_as(equation, others, keys) if others else None
        if same is None:
            others.append(equation)
            out.append(equation)
            continue
        note(trace, "share", equation.name, equation.expr, same.expr)
        if equation.name not in program.outputs:
            renamed[equation.name] = same.name
        elif isinstance(equation.expr, Read):
            out.append(equation)
        else:
            out.append(_copy_of(same, equation))
    return program if not trace_changed(out, program) else replace(program, equations=tuple(out))


_Rough: TypeAlias = tuple[int, int, tuple[str, ...]]


def _rough(equation: Equation) -> _Rough:
    """What equal equations have in common, cheap to say: only these are compared by their keys."""
    return len(equation.shape), len(equation.indices), tuple(sorted(r.tensor for r in reads(equation.expr)))


def _same_as(equation: Equation, others: list[Equation], keys: dict[str, str]) -> Equation | None:
    for e in (equation, *others):
        if e.name not in keys:
            keys[e.name] = equation_key(e)
    own = keys[equation.name]
    return next((e for e in others if keys[e.name] == own and e.semiring == equation.semiring), None)


def trace_changed(equations: list[Equation], program: Program) -> bool:
    """Whether `equations` are others than the program's own."""
    old = program.equations
    return len(equations) != len(old) or any(a is not b for a, b in zip(equations, old, strict=True))


def with_names(equation: Equation, names: Mapping[str, str]) -> Equation:
    """The equation with other names for tensors that it reads."""
    if not names or not (any(r.tensor in names for r in reads(equation.expr)) or equation.update in names):
        return equation

    def rename(e: Expr) -> Expr:
        return replace(e, tensor=names[e.tensor]) if isinstance(e, Read) and e.tensor in names else e

    update = equation.update if equation.update is None else names.get(equation.update, equation.update)
    return replace(equation, expr=transform(equation.expr, rename), update=update)


def _copy_of(source: Equation, target: Equation) -> Equation:
    """target = source, over all of its shape."""
    from .tools import definition

    axes = tuple(f"i{k}" for k in range(len(source.shape)))
    read = Read(source.name, tuple(Affine.of(a) for a in axes), source.dtype)
    return definition(
        target.name, axes, read, dict(zip(axes, source.shape, strict=True)), target.dtype, target.semiring
    )


def drop_dead(program: Program, context: Context, trace: Trace) -> Program:
    """Equations that no output needs are removed."""
    needed = set(program.outputs)
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if equation.name in needed:
            kept.append(equation)
            needed.update(r.tensor for r in reads(equation.expr))
            if equation.update is not None:
                needed.add(equation.update)
        else:
            note(trace, "dead", equation.name, equation.expr, equation.expr)
    return program if len(kept) == len(program.equations) else replace(program, equations=tuple(reversed(kept)))
