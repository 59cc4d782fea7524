"""`stein.compile(..., target="ckks")`: from a typed program to an encrypted one with every layout decided.

The variants of the program (`passes.encrypted`) are lowered and planned, the quickest is chosen, and what was compared
is kept for `explain`. No value of a constant is looked at before a server binds it, so one plan, and one client bundle,
serves every value: only sizes and declared structure decide. Keys are made later, by `keygen`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.ckks.execution import envelope
from ..ir.bind import bind_sizes
from ..ir.errors import NOWHERE, BackendError, DTypeError, EncryptionError, ShapeError, Source
from ..ir.expr import Input, Program
from ..ir.text import parse_ir, print_program
from .encrypted_choice import Choice, Row, Wanted, choose
from .fix import fix_sizes
from .operands import Array, as_array

if TYPE_CHECKING:
    from ..backends.ckks.lowering.problem import EncryptedProgram
    from ..backends.ckks.lowering.state import Blocks
    from ..backends.ckks.planning.plan import Plan
    from .client import Client
    from .encrypted_explain import EncryptedExplanation
    from .findings import Finding, NearMiss
    from .server import Server

MASK_BLOCKS = (8, 16, 32, 64, 128)  # in which the ones of a mask are listed, the finest that gives no more than
MOST_BLOCKS = 256  # blocks
FORMAT = 1  # of saved plans
STAGES = ("elaborated", "steps", "clear")


def compile_encrypted(
    program: Program,
    constants: Mapping[str, Array],
    wanted: Wanted,
    ranges: Mapping[str, float],
) -> EncryptedCompiled:
    """The program, planned for encrypted inputs.

    Raises `ShapeError` where a size is not known, `EncryptionError` for what cannot be evaluated on encrypted values.
    """
    fixed = replace(fix_sizes(program, known_sizes(program, constants)), constraints=())
    if not any(i.encrypted for i in fixed.inputs):
        raise EncryptionError(
            "nothing in this program is encrypted",
            code="nothing-encrypted",
            source=program.source,
            help="x=stein.encrypted(64), or in the text x: encrypted f64[64]; without it, target='cpu'",
        )
    for tensor in fixed.inputs:
        if tensor.encrypted and tensor.dtype.kind in "bc":
            raise EncryptionError(
                f"{tensor.name} is {tensor.dtype}, and encrypted values are real",
                code="encrypted-type",
                source=program.source,
                spans=() if tensor.span == NOWHERE else (tensor.span,),
                help="give the real and the imaginary part as two tensors" if tensor.dtype.kind == "c" else "f64",
            )
        if 0 in (s.constant for s in tensor.shape):
            raise ShapeError(f"{tensor.name} is encrypted and has no elements", code="empty-encrypted")
    from ..backends.ckks.chain.ranges import RANGE

    bounds = {i.name: ranges.get(i.name, RANGE) for i in fixed.inputs if i.encrypted}
    choice = choose(fixed, wanted, bounds, stored_blocks(fixed, constants))
    return EncryptedCompiled(fixed, dict(constants), choice, wanted)


def stored_blocks(program: Program, constants: Mapping[str, Array]) -> dict[str, Blocks]:
    """The blocks of constants that were declared sparse (`bsr`, `mask`).

    The declaration makes their places public: they are part of the plan. Zeros of other constants are not looked at.
    """
    from ..backends.ckks.lowering.state import Blocks
    from ..passes.stored import block_list

    found = {}
    for tensor in program.inputs:
        array = constants.get(tensor.name)
        if array is None or array.ndim != 2:
            continue
        for structure in tensor.structure:
            sizes = [v.constant for k, v in structure.options if k == "block"]
            choices = [(sizes[0], sizes[-1])] if sizes else [(b, b) for b in MASK_BLOCKS]
            if structure.name not in ("bsr", "mask"):
                continue
            for p, q in choices:
                if p and q and not array.shape[0] % p and not array.shape[1] % q:
                    rows, columns, _ = block_list(array, (p, q))
                    if structure.name == "bsr" or len(rows) <= MOST_BLOCKS:
                        places = tuple((int(r), int(c)) for r, c in zip(rows, columns, strict=True))
                        found[tensor.name] = Blocks((p, q), places)
                        break
    return found


def known_sizes(program: Program, constants: Mapping[str, Array]) -> dict[str, int]:
    """The value of every size name of a program, as declared shapes and constraints between them decide.

    Raises `ShapeError` for a size that nothing decides: layouts are made for numbers.
    """
    names = {n for i in program.inputs for s in i.shape for n in s.names}
    found: dict[str, int] = {}
    equal = [(c.left, c.right) for c in program.constraints if c.relation == "=="]
    for tensor in program.inputs:
        if tensor.name in constants:
            equal += [(s, s.of(n)) for s, n in zip(tensor.shape, constants[tensor.name].shape, strict=True)]
    progress = True
    while progress:
        progress = False
        for left, right in [*equal, *((b, a) for a, b in equal)]:
            if right.names <= found.keys() and not left.names <= found.keys():
                solved = left.solve(right.evaluate(found), found)
                if solved is not None:
                    found[solved[0]] = solved[1]
                    progress = True
    for tensor in program.inputs:
        for axis, size in enumerate(tensor.shape):
            if not size.names <= found.keys():
                raise ShapeError(
                    f"axis {axis} of {tensor.name} has no known size, and encrypted programs are planned for numbers",
                    code="unknown-size",
                    source=program.source,
                    spans=() if tensor.span == NOWHERE else (tensor.span,),
                    help=f"{tensor.name}=stein.encrypted(4096)" if tensor.encrypted else f"{tensor.name}=(64, 64)",
                )
    shapes = {i.name: tuple(s.evaluate(found) for s in i.shape) for i in program.inputs}
    return bind_sizes(program, shapes) | {n: v for n, v in found.items() if n in names}


@dataclass(eq=False)
class EncryptedCompiled:
    """A program on encrypted inputs, planned; what `stein.compile(..., target="ckks")` returns.

    `explain()` tells depth, rotations, parameters, sizes of keys and the error to expect, before there are keys.
    `keygen()` makes the client and the server; `simulate` runs the same circuit on exact slots, without encryption.
    """

    program: Program
    constants: dict[str, Array]
    choice: Choice
    wanted: Wanted
    target: str = field(default="ckks", init=False)

    # --- what was decided

    @property
    def plan(self) -> Plan:
        """The plan that runs."""
        return self.choice.chosen.best

    @property
    def problem(self) -> EncryptedProgram:
        """The steps that were planned."""
        return self.choice.chosen.problem

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is proved (or declared) of the program."""
        return self.choice.findings

    @property
    def near_misses(self) -> tuple[NearMiss, ...]:
        """What was nearly found, each with the reason why it was not."""
        return self.choice.near_misses

    @property
    def encrypted(self) -> tuple[Input, ...]:
        """The encrypted arguments, in order of first mention."""
        return tuple(i for i in self.program.inputs if i.encrypted)

    @property
    def arguments(self) -> tuple[Input, ...]:
        """The clear arguments that are no constants: the server needs them at each run."""
        return tuple(i for i in self.program.inputs if not i.encrypted and i.name not in self.constants)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the results."""
        return tuple(n.split(".")[0] for n in self.program.outputs)

    @property
    def stats(self) -> dict[str, Any]:
        """Figures of the plan: `rotations`, `plain_products`, `cipher_products`, `relinearisations`, `levels`, `ring`,
        `uploads`, `downloads`, `key_bytes`, `ciphertext_bytes`, `predicted_error`, `predicted_seconds`, `candidate`
        """
        from .encrypted_explain import statistics

        return statistics(self)

    def explain(self) -> EncryptedExplanation:
        """Depth, rotations, products, layouts, parameters, keys, predicted error and time, alternatives, and the table
        of candidates.
        """
        from .encrypted_explain import explain_encrypted

        return explain_encrypted(self)

    def ir(self, stage: str = "steps") -> str:
        """The program as text: "elaborated", "steps" (the chosen variant, a step an equation), "clear" (what the server
        computes in clear).
        """
        programs = {
            "elaborated": self.program,
            "steps": self.choice.chosen.variant.program,
            "clear": self.problem.clear,
        }
        if stage not in programs:
            raise BackendError(f"there is no stage {stage!r}", code="unknown-stage", help=f"one of {', '.join(STAGES)}")
        return print_program(programs[stage])

    def source(self, kind: str = "ckks") -> str:
        """The circuit as text, an operation a line."""
        if kind != "ckks":
            raise BackendError(
                f"there is no source of kind {kind!r} for target 'ckks'", code="unknown-source", help="ckks"
            )
        return self.plan.circuit.text()

    def draw(self, path: str | Path) -> Path:
        """Draw the circuit into a picture file (PNG, SVG, PDF, by the name's ending); returns the path.

        Raises `BackendError` where matplotlib is not installed.
        """
        from ..backends.ckks.drawing import draw

        return draw(self.plan.circuit, path)

    # --- running

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Encrypted programs run on ciphertexts: `BackendError` tells how."""
        raise BackendError(
            "this program runs on encrypted arguments, by a client and a server",
            code="encrypted-call",
            help="client, server = p.keygen(); or p.simulate(...) to compute the same in clear",
        )

    def keygen(self, **options: Any) -> tuple[Client, Server]:
        """A client with the secret key and a server that can evaluate and not decrypt."""
        from .client import keygen

        client, server = keygen(self, **options)
        return client, server

    def simulate(self, **arrays: Any) -> Any:
        """The results for clear arguments, by the circuit on exact slots: what encrypted runs give, but for noise."""
        from ..backends.ckks.core.simulator import simulate

        given = {i.name: checked_argument(i, arrays) for i in self.program.inputs if i.name not in self.constants}
        for name in arrays:
            if name not in given:
                raise DTypeError(f"there is no argument {name!r}", code="unknown-argument", help=", ".join(given))
        tensors = self.clear_tensors(given)
        encrypted = {i.name: given[i.name].astype(float) for i in self.encrypted}
        run = simulate(self.plan.circuit, encrypted, tensors, self.problem.shapes)
        return self.results(run.outputs | {n: tensors[n] for n in self.problem.results})

    def clear_tensors(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Every clear tensor that the circuit reads, and clear results, from the clear arguments and the constants."""
        from .encrypted_files import clear_tensors

        return clear_tensors(self.problem.clear, dict(arrays) | self.constants)

    def results(self, found: Mapping[str, Array]) -> Any:
        """What the user gets: an array, or a dict of arrays by name, in the declared types (integers are rounded)."""
        from .encrypted_files import in_declared_types

        types = (
            (i, o, self.program.tensors[i].dtype.numpy.name)
            for i, o in zip(self.program.outputs, self.outputs, strict=True)
        )
        return in_declared_types(found, types)

    # --- files

    def save(self, path: str | Path) -> None:
        """Write program and plan to a file: what they are, without any value of a constant and without keys."""
        kept = {
            "format": FORMAT,
            "program": print_program(self.program),
            "source": [self.program.source.name, self.program.source.text],
            "candidate": self.choice.chosen.name,
            "steps": print_program(self.choice.chosen.variant.program),
            "precision": self.wanted.precision,
            "plan": self.plan.to_json(),
        }
        text = json.dumps(kept)
        header = envelope.Header(envelope.PLAN, envelope.plan_hash(text))
        envelope.write(path, envelope.wrap(envelope.Envelope(header, {"plan": text.encode()})), secret=False)

    @staticmethod
    def load(path: str | Path, **constants: Any) -> EncryptedCompiled:
        """The compiled program in a file, without a search; constants are given anew, or at each run.

        Raises `BackendError` for a file that holds none, `DTypeError` or `ShapeError` for constants that do not fit.
        """
        from ..backends.ckks.planning.plan import Plan, Plans
        from ..passes.encrypted import Variant

        try:
            kept = json.loads(envelope.unwrap(envelope.read(path), envelope.PLAN).part("plan"))
            if kept["format"] != FORMAT:
                raise ValueError(f"format {kept['format']}")
            program = replace(parse_ir(kept["program"]), source=Source(*kept["source"]))
            plan = Plan.from_json(kept["plan"])
            variant = Variant(kept["candidate"], parse_ir(kept["steps"]))
            precision = float(kept["precision"])
        except (ValueError, KeyError, TypeError, OSError, AssertionError) as error:
            raise BackendError(
                f"'{path}' is no plan of this version ({error})", code="bad-plan", help="compile the program again"
            ) from error
        tensors = {i.name: i for i in program.inputs if not i.encrypted}
        values = {}
        for name in constants:
            if name not in tensors:
                raise DTypeError(f"there is no constant {name!r}", code="unknown-argument", help=", ".join(tensors))
            values[name] = checked_argument(tensors[name], constants)
        row = Row(variant, plan.program, 0.0, Plans((plan,)))
        return EncryptedCompiled(program, values, Choice((row,)), Wanted(precision, (plan.parameters.ring,)))

    def __repr__(self) -> str:
        names = ", ".join(f"{i.name}: encrypted" if i.encrypted else i.name for i in self.program.inputs)
        return f"<stein.EncryptedCompiled ({names}) -> {', '.join(self.outputs)}, {self.choice.chosen.name}>"


def checked_argument(declared: Input, arrays: Mapping[str, Any]) -> Array:
    """The clear array of an argument, in the declared shape and type. Raises `DTypeError` or `ShapeError`."""
    if declared.name not in arrays:
        raise DTypeError(f"argument {declared.name} missing", code="missing-argument")
    array = as_array(arrays[declared.name], f"argument {declared.name}")
    shape = tuple(s.evaluate({}) for s in declared.shape)
    if array.shape != shape:
        raise ShapeError(f"argument {declared.name} has shape {array.shape}, declared {shape}", code="size-mismatch")
    if not np.can_cast(array.dtype, declared.dtype.numpy, "same_kind"):
        raise DTypeError(f"argument {declared.name} is {array.dtype}, declared {declared.dtype}", code="argument-type")
    return array.astype(declared.dtype.numpy)


def checked_wanted(precision: Any, rings: Any, structure: Any) -> Wanted:
    """The options of encrypted programs. Raises `BackendError` for values that mean nothing."""
    usual = Wanted()
    if precision is not None and not (isinstance(precision, (int, float)) and 0 < precision < 1):
        raise BackendError(
            f"precision is {precision!r}; it is an error relative to the largest result, between 0 and 1",
            code="bad-option",
            help="precision=1e-5",
        )
    given: Sequence[Any] = usual.rings if rings is None else [rings] if isinstance(rings, int) else tuple(rings)
    for ring in given:
        if not isinstance(ring, int) or ring not in (4096, 8192, 16384, 32768):
            raise BackendError(
                f"{ring!r} is no ring that programs are planned for",
                code="bad-option",
                help="rings=(8192, 16384), of 4096, 8192, 16384 and 32768",
            )
    if not isinstance(structure, bool):
        raise BackendError(f"structure is {structure!r}; it is True or False", code="bad-option")
    return Wanted(float(precision or usual.precision), tuple(given), structure)
