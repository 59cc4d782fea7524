"""Runs a circuit on ciphertexts, with the server's keys alone.

Values are forgotten at their last use, and operations work in place where an operand dies. What was executed is
counted, so that it can be held against what the plan promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....ir.errors import EMPTY, EncryptionError, Source
from ..chain.scales import Scales
from ..core import circuit as c
from .encodings import Encodings
from .seal import Ciphertext, EvaluationKeys, Evaluator, Scheme

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Execution:
    """The ciphertexts of each output, and how often each kind of operation ran."""

    outputs: Mapping[str, tuple[Ciphertext, ...]]
    executed: Mapping[str, int]


def run(
    circuit: c.Circuit,
    scales: Scales,
    scheme: Scheme,
    keys: EvaluationKeys,
    uploads: Mapping[str, Sequence[Ciphertext]],
    encodings: Encodings,
    progress: Progress | None = None,
    source: Source = EMPTY,
) -> Execution:
    """Evaluate a circuit on the ciphertexts of each encrypted input, which are left as they are.

    `progress` is told how many operations of how many are done. Raises `EncryptionError`, at the place of the
    expression in `source`, for keys that lack a step.
    """
    evaluator = Evaluator(scheme, keys)
    values: dict[int, Ciphertext] = {}
    executed: Counter[str] = Counter()
    given: set[int] = set()
    total = len(circuit.nodes)
    for number, (node, freed) in enumerate(zip(circuit.nodes, circuit.last_uses(), strict=True)):
        args = [values[a] for a in node.args]
        if node.kind == c.INPUT:
            assert node.upload is not None
            value = uploads[node.upload[0]][node.upload[1]]
            given.add(number)
        else:
            free = tuple(a in freed and a not in given for a in node.args)
            try:
                value = operation(evaluator, number, node, args, free, scales, encodings)
            except EncryptionError as error:
                raise placed(error, circuit, number, source) from None
        values[number] = value
        executed[node.kind] += 1
        for v in freed:
            del values[v]
        if progress is not None:
            progress(number + 1, total)
    outputs = {name: tuple(values[v] for v in numbers) for name, (_, numbers) in circuit.downloads.items()}
    return Execution(outputs, dict(executed))


def placed(error: EncryptionError, circuit: c.Circuit, number: int, source: Source) -> EncryptionError:
    """The error at the place of a node's expression."""
    return type(error)(error.sentence, code=error.code, source=source, spans=circuit.spans(number), help=error.help)


def operation(
    evaluator: Evaluator,
    number: int,
    node: c.Node,
    args: list[Ciphertext],
    free: tuple[bool, ...],
    scales: Scales,
    encodings: Encodings,
) -> Ciphertext:
    """One operation; `free` says of which operands nobody will read the value again."""
    first = args[0]
    if node.kind == c.ROTATE:
        return evaluator.rotate(first, node.step)
    if node.kind == c.MULTIPLY_PLAIN:
        result = evaluator.multiply_plain(first, encodings.of(number), free[0])
    elif node.kind == c.ADD_PLAIN:
        result = evaluator.add_plain(first, encodings.of(number), free[0])
    elif node.kind == c.MULTIPLY:
        result = evaluator.multiply(first, args[1], free[0])
    elif node.kind == c.ADD:
        result = _add(evaluator, args, free, number in scales.drift)
    elif node.kind == c.SUBTRACT:
        second = _relabelled(evaluator, args[1], first.scale) if number in scales.drift else args[1]
        result = evaluator.subtract(first, second, free[0])
    elif node.kind == c.NEGATE:
        result = evaluator.negate(first, free[0])
    elif node.kind == c.RELINEARISE:
        result = evaluator.relinearise(first, free[0])
    elif node.kind == c.RESCALE:
        result = evaluator.rescale(first, free[0])
    else:
        assert node.kind == c.SWITCH, node.kind
        result = evaluator.switch(first, free[0])
    evaluator.set_scale(result, scales.values[number])
    return result


def _add(evaluator: Evaluator, args: list[Ciphertext], free: tuple[bool, ...], drift: bool) -> Ciphertext:
    first, second = args
    if drift:
        second = _relabelled(evaluator, second, first.scale)
    elif free[1] and not free[0]:
        return evaluator.add(second, first, reuse=True)
    return evaluator.add(first, second, reuse=free[0] and first is not second)


def _relabelled(evaluator: Evaluator, value: Ciphertext, scale: float) -> Ciphertext:
    """A copy that claims another scale: the error is in the plan's prediction."""
    copy = evaluator.copy(value)
    copy.scale = scale
    return copy
