"""Reverse-mode differentiation: from a program to the program of its vector-Jacobian product.

The derivative of what the language can say can be said in it: the adjoint of a product is a product (R18), that of a
gather `x[i-j]` a scatter `y[i-j] += ...`, a greatest value passes its gradient on to where it is reached. So the result
is a program like any other, is planned like any other, and can be differentiated again. Only what leads from an output
to a wanted input is formed, with shared work formed once. Values of the forward program that derivatives need are
recomputed, except the outputs, which are taken as inputs; `with_residuals` makes outputs of those that are dear.

Reverse accumulation: Griewank and Walther, Evaluating Derivatives (2008), section 3.2. Complex numbers follow PyTorch:
the gradient of a real function f by z is the conjugate of 2 df/dz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..ir.bind import Binder
from ..ir.expr import Einsum, Equation, Input, Linalg, Program, Softmax, reads
from .flatten import flatten
from .gradient_rules import Reverse


@dataclass(frozen=True)
class Gradient:
    """A program that computes gradients, and what its inputs and outputs are.

    Inputs that bear the name of an input or output of the source are its value. `seeds` maps an output of the source to
    the input that takes the gradient by it. `results` has the name of the output for each wanted input, None where no
    derivative leads to it. `unread` inputs are there for their shapes only, which no other input determines.
    """

    program: Program
    seeds: Mapping[str, str]
    results: tuple[str | None, ...]
    unread: frozenset[str]


def gradient(program: Program, wanted: Sequence[str], outputs: Sequence[str] | None = None) -> Gradient:
    """The gradients by the inputs `wanted` of the sum of all outputs, each weighted with a tensor of its shape, a seed.

    `outputs` are those that get a seed (all floats and complex numbers if not given). A tensor of integers or bools has
    no gradient: as one wanted it gets None, as an output no seed. `DTypeError` names what has no derivative.

    >>> from ..ir.text import parse_ir, print_program
    >>> text = "input x: f64[n]\\ny[i]: f64[n] = tanh(x[i]) over i<n\\nreturn y"
    >>> print(print_program(gradient(parse_ir(text), ["x"]).program), end="")
    input y: f64[n]
    input seed.y: f64[n]
    grad.x.1[i]: f64[n] = mul(seed.y[i], sub(1.0:f64, mul(y[i], y[i]))) over i<n
    return grad.x.1
    """
    flat = flatten(program)
    floating = [n for n in flat.outputs if flat.tensors[n].dtype.kind in "fc"]
    seeded = [n for n in (floating if outputs is None else outputs) if n in floating]
    reverse = Reverse(flat, frozenset(n for n in wanted if flat.tensors[n].dtype.kind in "fc"))
    seeds = {n: reverse.seed(n) for n in seeded}
    for equation in reversed(flat.equations):
        reverse.pull(equation)
    results = tuple(reverse.total.get(n) for n in wanted)
    found = [n for n in dict.fromkeys(results) if n is not None]
    needed = _needed(reverse.equations, found)
    inner = {e.name for e in reverse.equations}
    forward = {e.name: e for e in flat.equations if e.name not in flat.outputs}
    values = {n for e in needed for n in _sources(e) if n not in inner}
    again = _needed(list(forward.values()), sorted(values & forward.keys()))
    values |= {n for e in again for n in _sources(e)} | ({n for n in found if n not in inner})
    taken = {seeds[n]: flat.tensors[n] for n in seeds}
    inputs = [_value(i.name, i) for i in flat.inputs if i.name in values]
    inputs += [_value(n, flat.tensors[n]) for n in flat.outputs if n in values and n not in {i.name for i in inputs}]
    inputs += [_value(n, tensor) for n, tensor in taken.items() if n in values]
    made = Program(tuple(inputs), (*again, *needed), tuple(found), (), program.source)
    unread = _shapes_only(made, flat.inputs)
    made = replace(made, inputs=(*made.inputs, *(_value(i.name, i) for i in unread)))
    used = {i.name for i in made.inputs}
    return Gradient(made, {n: s for n, s in seeds.items() if s in used}, results, frozenset(i.name for i in unread))


def with_residuals(program: Program, wanted: Sequence[str]) -> Program:
    """The program with further outputs: the values that its gradient needs and that are dear to recompute.

    Dear is what holds a sum, a softmax or a function of matrices. The program itself comes back if there are none.
    """
    flat = flatten(program)
    needs = gradient(flat, wanted).program
    own = {e.name: e for e in flat.equations}
    read = {n for e in needs.equations if e.name not in own for n in _sources(e)}
    dear: dict[str, bool] = {}
    extra: list[str] = []
    for name, equation in own.items():
        dear[name] = _is_dear(equation) or any(dear.get(n, False) for n in _sources(equation))
        if name in flat.outputs:
            dear[name] = False
        elif dear[name] and name in read:
            extra.append(name)
            dear[name] = False
    return replace(flat, outputs=(*flat.outputs, *extra)) if extra else program


def _is_dear(equation: Equation) -> bool:
    expr = equation.expr
    return isinstance(expr, (Softmax, Linalg)) or (isinstance(expr, Einsum) and bool(expr.bound))


def _sources(equation: Equation) -> list[str]:
    names = [r.tensor for r in reads(equation.expr)]
    return names if equation.update is None else [*names, equation.update]


def _needed(equations: Sequence[Equation], outputs: Sequence[str]) -> list[Equation]:
    """Those equations, in order, that some outputs depend on."""
    live, kept = set(outputs), list[Equation]()
    for equation in reversed(equations):
        if equation.name in live:
            kept.append(equation)
            live.update(_sources(equation))
    return kept[::-1]


def _value(name: str, tensor: Input | Equation) -> Input:
    """The input that takes the value of a tensor; a structure that was declared of it still holds."""
    structure = tensor.structure if isinstance(tensor, Input) and name == tensor.name else ()
    return Input(name, tensor.shape, tensor.dtype, structure, span=tensor.span)


def _shapes_only(program: Program, inputs: Sequence[Input]) -> list[Input]:
    """Further inputs, one after the other, until the shapes of all tell every size."""
    extra: list[Input] = []
    present = {i.name for i in program.inputs}
    while True:
        unknown = Binder(replace(program, inputs=(*program.inputs, *extra))).unsolved
        helpful = [
            i for i in inputs if i.name not in present and i not in extra and any(unknown & n.names for n in i.shape)
        ]
        if not unknown or not helpful:
            return extra
        extra.append(helpful[0])
