"""`f.findings` and `f.near_misses`: what is proved of a program, in terms that a user can read.

The recogniser (`passes.recognise`) does the work. Here declared structures join its findings, figures that depend on
sizes that are not known yet are named (`n-1`) or left out, and what the chosen program uses comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..ir.expr import Linalg, Program, Structure, reads
from ..passes.candidates import is_empty
from ..passes.lifted import lifted
from ..passes.network import known_sizes
from ..passes.recognise import Declared, Evidence, Finding, NearMiss, Proved, examine

__all__ = ["Declared", "Evidence", "Finding", "NearMiss", "Proved", "found_in", "used_first"]

NEAR = 64  # a figure this close to the stand-in of an open size is written as that size plus or minus something


def found_in(
    program: Program, sizes: Mapping[str, int] | None = None
) -> tuple[tuple[Finding, ...], tuple[NearMiss, ...]]:
    """Findings and near misses of a program, for all sizes, or for the given ones; declared structures come last.

    Of a program with an empty tensor there is nothing to say but what was declared.

    >>> from ..ir.text import parse_ir
    >>> text = "input t: f64[2*n-1]\\ninput x: f64[n]\\n"
    >>> text += "y[i]: f64[n] = einsum[plustimes, f64](j; t[i-j+{n-1}], x[j]) over i<n, j<n\\nreturn y"
    >>> found, near = found_in(parse_ir(text))
    >>> found[0].kind, found[0].options["band"]
    ('toeplitz', ('n-1', 'n-1'))
    """
    known = known_sizes(program, sizes)
    found, near = ((), ()) if is_empty(program, known) else examine(lifted(program), None, sizes)
    solved = {e.name for e in program.equations if isinstance(e.expr, Linalg)}
    within = {r.tensor for e in program.equations if e.name in solved for r in reads(e.expr) if "." in r.tensor}
    found = tuple(f for f in found if f.argument not in solved and f.value not in within)  # said by the solver
    declared = tuple(
        Finding(i.name, s.name, None, Declared(s.span), s.span, options=_options(s))
        for i in program.inputs
        for s in i.structure
    )
    stand_ins = {known[n]: n for n in known if n not in (sizes or {})}
    if stand_ins:
        found = tuple(replace(f, options=_named(f.options, stand_ins)) for f in found)
    return (*found, *declared), near


def used_first(found: Sequence[Finding], used: Finding | None) -> tuple[Finding, ...]:
    """The findings with the one that a program was made from in front."""
    if used is None:
        return tuple(found)
    return tuple(sorted(found, key=lambda f: _key(f) != _key(used)))


def _options(declared: Structure) -> dict[str, str]:
    """The options of a declaration; one that is given twice (a block per axis) becomes a product."""
    found: dict[str, str] = {}
    for name, value in declared.options:
        found[name] = f"{found[name]} x {value}" if name in found else str(value)
    return found


def _key(finding: Finding) -> tuple[Any, ...]:
    return finding.value, finding.kind, finding.argument, finding.number


def _named(options: Mapping[str, Any], stand_ins: Mapping[int, str]) -> dict[str, Any]:
    """Options with names for figures that open sizes decide; those that have no short name are left out."""
    named = {k: _figure(v, stand_ins) for k, v in options.items()}
    return {k: v for k, v in named.items() if v is not None}


def _figure(value: Any, stand_ins: Mapping[int, str]) -> Any:
    if isinstance(value, tuple):
        parts = tuple(_figure(v, stand_ins) for v in value)
        return None if None in parts else parts
    least = min(stand_ins) - NEAR
    if not isinstance(value, int) or abs(value) < least:
        return value
    stand_in = min(stand_ins, key=lambda n: abs(abs(value) - n))
    difference = abs(value) - stand_in
    if abs(difference) > NEAR:
        return None
    text = stand_ins[stand_in] + (f"{difference:+d}" if difference else "")
    return text if value > 0 else f"-({text})"
