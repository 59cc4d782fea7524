"""Gradients of programs that are known by their text: what the PyTorch operator asks for, made once and kept.

An operator of PyTorch takes texts and tensors only, so that a graph that holds it can be stored. So a program goes by
its IR text here, together with the text of its options; the symbolic work is `passes.gradient` and `passes.batch`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from ..ir.expr import Einsum, Program, reads, walk
from ..ir.semiring import ALL, PRODUCT, SEMIRINGS, Semiring
from ..ir.text import parse_ir, print_program
from .expression import Expression, Options

KEPT = 1024  # programs of each kind that are kept


@dataclass(frozen=True)
class GradientText:
    """A gradient program as text. `inputs` tells for each of its inputs what it is, `results` which output belongs to
    each wanted input (None: no derivative leads there).

    An input is ("input", n) or ("output", n), the value of that input or output of the source, ("seed", n), the
    gradient by output n, or ("shape", n), for which anything of the shape of input n will do.
    """

    text: str
    inputs: tuple[tuple[str, int], ...]
    results: tuple[int | None, ...]


def options_text(program: Program, options: Options, target: str = "cpu") -> str:
    """Options as text. An optimiser object has none: paths are then found by "auto".

    >>> options_text(Program((), (), ()), Options(optimize="greedy"))
    '{"optimize": "greedy", "target": "cpu"}'
    """
    known = SEMIRINGS | {s.name: s for s in (PRODUCT, ALL)}
    found: dict[str, object] = {"target": target}
    if isinstance(options.optimize, (str, bool)) or _is_path(options.optimize):
        found["optimize"] = options.optimize
    if options.memory_limit is not None:
        found["memory_limit"] = options.memory_limit
    if options.strict:
        found["strict"] = True
    if options.precision != "ieee":
        found["precision"] = options.precision
    if not options.explore:
        found["explore"] = False
    if options.fixed:
        found["fixed"] = sorted(options.fixed)
    own = sorted({s for s in _semirings(program) if known.get(s.name) != s}, key=lambda s: s.name)
    if own:
        found["semirings"] = [asdict(s) for s in own]
    return json.dumps(found, sort_keys=True)


def _is_path(optimize: object) -> bool:
    return isinstance(optimize, tuple) and all(isinstance(step, (str, tuple)) for step in optimize)


def _semirings(program: Program) -> set[Semiring]:
    found = {e.semiring for e in program.equations}
    return found | {n.semiring for e in program.equations for n in walk(e.expr) if isinstance(n, Einsum)}


def _read_options(text: str) -> tuple[Options, str, dict[str, Semiring]]:
    found = json.loads(text)
    path = found.get("optimize", "auto")
    optimize = tuple(tuple(s) if isinstance(s, list) else s for s in path) if isinstance(path, list) else path
    semirings = {s["name"]: Semiring(**s) for s in found.get("semirings", ())}
    chosen = Options(
        optimize,
        found.get("memory_limit"),
        found.get("strict", False),
        precision=found.get("precision", "ieee"),
        explore=found.get("explore", True),
        fixed=tuple(found.get("fixed", ())),
    )
    return chosen, found["target"], semirings


@lru_cache(maxsize=KEPT)
def program_of(text: str, options: str) -> Program:
    """The program that a text says."""
    return parse_ir(text, _read_options(options)[2])


@lru_cache(maxsize=KEPT)
def expression_for(text: str, options: str) -> tuple[Expression, str]:
    """(the program of a text at work, its target)."""
    from .stages import expression_of

    chosen, target, _ = _read_options(options)
    return expression_of(program_of(text, options), chosen, {}), target


@lru_cache(maxsize=KEPT)
def derived_options(text: str, options: str) -> str:
    """The options of a program that is made from that of `text`, which has `options`.

    An explicit path does not fit another product. Other algorithms than the best order of contraction are looked for
    only where the source offers a structure that has some (`has_structure`), and not for what is derived twice: the
    programs are long, and each candidate costs a plan of all of it.
    """
    found = json.loads(options)
    if isinstance(found.get("optimize"), list):
        del found["optimize"]
    found["explore"] = found.get("derived", 0) < 1 and has_structure(program_of(text, options))
    found["derived"] = found.get("derived", 0) + 1
    return json.dumps(found, sort_keys=True)


def has_structure(program: Program) -> bool:
    """Whether a program has what may be computed by more than contractions: an affine read or a declared structure.

    >>> lines = "input t: f64[9]", "input x: f64[5]", "y[i]: f64[5] = einsum[plustimes, f64](j; t[i-j+{4}], x[j])"
    >>> has_structure(parse_ir("\\n".join(lines) + " over i<5, j<5\\nreturn y"))
    True
    """
    if any(i.structure for i in program.inputs):
        return True
    slots = (s for e in program.equations for r in reads(e.expr) for s in r.slots)
    return any(s.bare is None and s.terms for s in slots)


@lru_cache(maxsize=KEPT)
def residual_text(text: str, options: str, wanted: tuple[int, ...]) -> str:
    """The program with the values as further outputs that its gradients by inputs number `wanted` need."""
    from ..passes.gradient import with_residuals

    program = program_of(text, options)
    made = with_residuals(program, [program.inputs[k].name for k in wanted])
    return text if made is program else print_program(made)


@lru_cache(maxsize=KEPT)
def gradient_text(text: str, options: str, wanted: tuple[int, ...], seeds: tuple[int, ...]) -> GradientText:
    """The gradient program by inputs number `wanted`, with seeds for outputs number `seeds`."""
    from ..passes.gradient import gradient

    program = program_of(text, options)
    inputs, outputs = [i.name for i in program.inputs], list(program.outputs)
    found = gradient(program, [inputs[k] for k in wanted], [outputs[k] for k in seeds])
    by_seed = {name: outputs.index(output) for output, name in found.seeds.items()}

    def kind(name: str) -> tuple[str, int]:
        if name in by_seed:
            return "seed", by_seed[name]
        if name in found.unread:
            return "shape", inputs.index(name)
        return ("input", inputs.index(name)) if name in inputs else ("output", outputs.index(name))

    results = tuple(None if n is None else found.program.outputs.index(n) for n in found.results)
    return GradientText(print_program(found.program), tuple(kind(i.name) for i in found.program.inputs), results)


@lru_cache(maxsize=KEPT)
def tangent_text(text: str, options: str, moving: tuple[int, ...]) -> GradientText:
    """The program of the outputs' derivatives in a direction, given for inputs number `moving`: forward mode.

    The gradient is linear in the seeds, so its own gradient by them is the Jacobian, transposed twice; all else that
    the two programs hold is dead. An input ("seed", n) is the direction of input n; there is a result for each output,
    None where it does not move.
    """
    from ..passes.gradient import gradient

    program = program_of(text, options)
    inputs, outputs = [i.name for i in program.inputs], list(program.outputs)
    first = gradient(program, [inputs[k] for k in moving])
    seeded = [n for n in outputs if n in first.seeds]
    second = gradient(first.program, [first.seeds[n] for n in seeded])
    directions = {
        second.seeds[r]: k for k, r in zip(moving, first.results, strict=True) if r is not None and r in second.seeds
    }
    shapes = {first.seeds[n]: outputs.index(n) for n in seeded}

    def kind(name: str) -> tuple[str, int]:
        if name in directions:
            return "seed", directions[name]
        if name in shapes:
            return "output", shapes[name]  # a seed, of which only the shape can matter
        return ("input", inputs.index(name)) if name in inputs else ("output", outputs.index(name))

    by_output = dict(zip(seeded, second.results, strict=True))
    found = [by_output.get(n) for n in outputs]
    results = tuple(None if n is None else second.program.outputs.index(n) for n in found)
    return GradientText(print_program(second.program), tuple(kind(i.name) for i in second.program.inputs), results)


@lru_cache(maxsize=KEPT)
def batched_text(text: str, options: str, inputs: tuple[int, ...]) -> tuple[str, tuple[bool, ...]]:
    """(the program with a leading axis on inputs number `inputs`, for each output whether it has one too)."""
    from ..passes.batch import batched

    program = program_of(text, options)
    made, outputs = batched(program, [program.inputs[k].name for k in inputs])
    return print_program(made), tuple(n in outputs for n in program.outputs)


@dataclass
class Recording:
    """An expression as what the operator takes: its text with constants as ordinary inputs, and that of its options."""

    program: Program
    text: str
    options: str
    checked: set[tuple[int, ...]]

    @staticmethod
    def of(expression: Expression, target: str) -> Recording:
        """The recording of an expression."""
        program = expression.program
        open_inputs = tuple(replace(i, const=False) for i in program.inputs)
        text = print_program(replace(program, inputs=open_inputs))
        return Recording(program, text, options_text(program, expression.options, target), set())

    def for_gradients(self, wanted: tuple[int, ...]) -> str:
        """The text to run where gradients by inputs number `wanted` may be asked for.

        `DTypeError`, with the place in the source, if something on the way to them has no derivative.
        """
        if wanted not in self.checked:
            from ..passes.gradient import gradient

            gradient(self.program, [self.program.inputs[k].name for k in wanted])
            self.checked.add(wanted)
        return residual_text(self.text, self.options, wanted)


__all__ = [
    "GradientText",
    "Recording",
    "batched_text",
    "derived_options",
    "expression_for",
    "gradient_text",
    "has_structure",
    "options_text",
    "program_of",
    "residual_text",
    "tangent_text",
]
