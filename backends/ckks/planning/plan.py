"""Plans: encrypted programs with every layout and method decided, their circuits, and how they are kept in files.

A `Plan` holds the program, the encryption parameters and one decision per step; the circuit follows from them without a
search, so a saved plan is small and gives the same circuit again. `Plans` are the alternatives that trade time, uploads
and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..chain.fitting import fit, on_chain
from ..chain.noise import Prediction, predict
from ..chain.parameters import Parameters
from ..chain.ranges import assumed
from ..chain.scales import bind
from ..core.circuit import RELINEARISE, Builder, Circuit
from ..core.layout import Packing
from ..lowering.problem import EncryptedProgram, arguments
from ..lowering.program_json import program_from_json, program_to_json
from ..steps.context import Argument, Context, Free
from ..steps.option import Option, Placed, Work
from .cost import DEFAULTS, Prices, Rates, work
from .kinds import restore
from .search import Problem, problem, through, usual
from .setting import context_of

FORMAT = 1  # of the JSON
BYTES_PER_MILLISECOND = 1e5  # of a network of a gigabit a second


@dataclass(frozen=True)
class Decision:
    """How one step is computed.

    `packed` says for each operand which packing of an input it reads (the number of the packing among those of that
    input, in order of first use), -1 for a value that is a result; `method` is what the kind of step has to remember.
    """

    step: str
    packed: tuple[int, ...]
    method: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """An encrypted program, ready to run: `circuit` on the chain of `parameters`.

    `described` has one line for each step, `layouts` the symbolic layout of every value.
    """

    program: EncryptedProgram
    parameters: Parameters
    decisions: tuple[Decision, ...]
    circuit: Circuit
    described: tuple[str, ...] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)
    rates: Rates = DEFAULTS

    @cached_property
    def work(self) -> Work:
        """Operations and predicted milliseconds of the circuit."""
        return work(self.circuit, Prices(self.parameters.ring, self.rates), self.parameters.levels)

    @cached_property
    def prediction(self) -> Prediction:
        """The errors to be expected of inputs and clear tensors within their ranges."""
        ranges = self.program.ranges
        return predict(self.circuit, bind(self.circuit, self.parameters), ranges, assumed(self.circuit, ranges))

    def fitted(self, precision: float) -> Plan:
        """The same plan on the chain whose bits suit its values best: ring and levels stay.

        Raises `EncryptionError` where the ring has no room for the values or for this precision.
        """
        found = fit(self.circuit, self.parameters.levels, self.program.ranges, precision, self.program.clear.source)
        return replace(self, parameters=found.parameters, circuit=found.circuit)

    @cached_property
    def client_milliseconds(self) -> float:
        """What encoding, encrypting and sending the inputs takes."""
        return self.uploads * client_milliseconds(Prices(self.parameters.ring, self.rates), self.parameters.levels)

    @property
    def uploads(self) -> int:
        """Ciphertexts that the client sends."""
        return sum(p.ciphertexts for p in self.circuit.uploads.values())

    @property
    def downloads(self) -> int:
        """Ciphertexts that the client gets back."""
        return len({v for _, values in self.circuit.downloads.values() for v in values})

    @property
    def keys(self) -> int:
        """Switching keys that the server needs: one for each rotation step, and one to relinearise."""
        return len(self.circuit.steps) + any(n.kind == RELINEARISE for n in self.circuit.nodes)

    @property
    def key_bytes(self) -> int:
        """Bytes of the switching keys."""
        return self.parameters.key_bytes(self.keys)

    @property
    def chained(self) -> bool:
        """Whether rotations are made one from the other to save keys."""
        return any(d.method.get("chained") for d in self.decisions)

    @property
    def levels(self) -> int:
        """Levels that the circuit takes."""
        return self.circuit.levels

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON: program, parameters and decisions."""
        return {
            "format": FORMAT,
            "program": program_to_json(self.program),
            "ring": self.parameters.ring,
            "bits": list(self.parameters.bits),
            "scale": self.parameters.scale,
            "decisions": [{"step": d.step, "packed": list(d.packed), "method": d.method} for d in self.decisions],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """The plan again, without a search."""
        assert data["format"] == FORMAT, "a plan of another version"
        program = program_from_json(data["program"])
        parameters = Parameters(int(data["ring"]), tuple(map(int, data["bits"])), int(data["scale"]))
        decisions = tuple(Decision(d["step"], tuple(d["packed"]), d["method"]) for d in data["decisions"])
        plan = again(program, parameters, decisions)
        return replace(plan, circuit=on_chain(plan.circuit, parameters, program.ranges).circuit)


@dataclass(frozen=True)
class Plans(Sequence[Plan]):
    """Plans none of which is worse than another in time, uploads and keys all at once; the first one is the
    usual choice, the others follow by time."""

    plans: tuple[Plan, ...]

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, number: Any) -> Any:
        return self.plans[number]

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.plans)

    @property
    def best(self) -> Plan:
        """The usual choice."""
        return self.plans[0]


def client_milliseconds(prices: Prices, levels: int) -> float:
    """What an upload takes: encoding, encryption, and sending its seeded half."""
    primes = levels + 1
    return prices.encode(primes) + prices.encrypt(primes) + primes * prices.ring * 8 / BYTES_PER_MILLISECOND


def again(
    program: EncryptedProgram,
    parameters: Parameters,
    decisions: Sequence[Decision],
    rates: Rates = DEFAULTS,
    memory: dict[Any, Any] | None = None,
) -> Plan:
    """The plan that decisions make; `memory` is what a search of the same program kept for this ring."""
    context = context_of(program, parameters.ring, parameters.levels, rates)
    context.memory.update(memory or {})
    task = problem(program, context)
    packed: dict[str, list[Placed]] = {}
    values: dict[str, Placed] = {}
    trail: list[tuple[Option, tuple[Argument, ...]]] = []
    for step, decision in zip(task.steps, decisions, strict=True):
        assert step.name == decision.step, "decisions of another program"
        given: list[Argument] = []
        for name, number in zip(arguments(step), decision.packed, strict=True):
            known = packed.get(name, [])
            if not task.free(name):
                given.append(values[name])
            else:
                given.append(known[number] if number < len(known) else Free(name, program.shapes[name]))
        option = restore(step, context, tuple(given), decision.method)
        for argument, taken in zip(given, option.takes, strict=True):
            if isinstance(argument, Free):
                known = packed.setdefault(argument.name, [])
                if taken.packing.key not in {k.packing.key for k in known}:
                    known.append(taken)
        values[step.name] = option.gives
        trail.append((option, tuple(given)))
    return assembled(task, context, parameters, trail, rates)


def assembled(
    task: Problem,
    context: Context,
    parameters: Parameters,
    trail: Sequence[tuple[Option, tuple[Argument, ...]]],
    rates: Rates = DEFAULTS,
) -> Plan:
    """The circuit of chosen options, and the decisions by which it can be made again."""
    program = task.program
    builder = Builder(context.slots)
    sent: dict[str, list[np.ndarray[Any, Any]]] = {}
    packed: dict[str, list[tuple[Placed, tuple[int, ...]]]] = {}
    values: dict[str, tuple[Placed, tuple[int, ...]]] = {}
    decisions, described = [], []

    def upload(name: str, placed: Placed) -> int:
        """The number of this packing of an input (or of what is read from it), which is sent if it is new."""
        known = packed.setdefault(name, [])
        for number, (before, _) in enumerate(known):
            if before.packing.key == placed.packing.key:
                return number
        tensor, view = task.views[name]
        rows = sent.setdefault(tensor, [])
        at = through(view, placed.packing)
        nodes = tuple(builder.input(tensor, len(rows) + c) for c in range(at.ciphertexts))
        rows.extend(at.at)
        kinds[tensor] = at.kind
        known.append((placed, nodes))
        return len(known) - 1

    kinds: dict[str, str] = {}
    for step, (option, _given) in zip(task.steps, trail, strict=True):
        operands, numbers = [], []
        for name, taken in zip(arguments(step), option.takes, strict=True):
            number = upload(name, taken) if task.free(name) else -1
            numbers.append(number)
            operands.append(packed[name][number][1] if number >= 0 else values[name][1])
        values[step.name] = option.gives, option.emit(builder, tuple(operands))
        decisions.append(Decision(step.name, tuple(numbers), option.decision()))
        described.append(f"{step.name}: {option.describe()}")
    downloads = {}
    for name in program.outputs:
        if task.free(name):
            number = upload(name, packed[name][0][0] if packed.get(name) else usual(name, context))
            values[name] = packed[name][number]
        placed, nodes = values[name]
        downloads[name] = placed.packing, nodes
    uploads = {n: Packing(np.array(rows), True, kinds[n]) for n, rows in sent.items()}
    layouts = {n: p.text for n, (p, _) in values.items()}
    layouts |= {n: " and ".join(p.text for p, _ in known) for n, known in packed.items()}
    circuit = builder.circuit(uploads, downloads)
    return Plan(program, parameters, tuple(decisions), circuit, tuple(described), layouts, rates)


def with_few_keys(plan: Plan, memory: dict[Any, Any] | None = None) -> Plan:
    """The same plan with rotations made one from the other: as many operations, fewer keys, a little more noise.

    `memory` is what the search for the plan kept.
    """
    decisions = tuple(
        replace(d, method={**d.method, "chained": True}) if "chained" in d.method else d for d in plan.decisions
    )
    return again(plan.program, plan.parameters, decisions, plan.rates, memory)
