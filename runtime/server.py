"""The server of an encrypted program: it evaluates on ciphertexts, with keys that decrypt nothing.

    server = Server.load("server.keys")
    answer = server.run(Ciphertexts.load("request.ct"), W=W)     # clear tensors by name
    server.executed                                              # what was done, as the plan's `stats` counts it

What is promised is that the server learns nothing of the client's data. The reverse is not: results are sums and
products of the server's tensors, slots beyond the result hold what is left of its computation, and the noise depends on
both; so whoever decrypts may learn more of the server's tensors than the result says (no circuit privacy). Nor does
anything prove that the server computed what it should.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.ckks.chain.fitting import check_values
from ..backends.ckks.chain.noise import predict
from ..backends.ckks.execution import envelope, execute, keys, processes
from ..backends.ckks.execution.bundle import ServerKeys
from ..backends.ckks.execution.encodings import Encodings
from ..backends.ckks.execution.envelope import Envelope, Header
from ..backends.ckks.execution.exchange import Exchange, executed
from ..backends.ckks.execution.partition import Partition, best, partition
from ..backends.ckks.planning.cost import Prices
from ..ir.errors import BackendError
from .encrypted_files import CLEAR, Agreement, Ciphertexts, Path, check_names, checked, clear_tensors
from .operands import as_array
from .threads import get_threads

if TYPE_CHECKING:
    from ..backends.ckks.execution.seal import EvaluationKeys
    from ..backends.ckks.planning.plan import Plan

Array = np.ndarray[Any, Any]

MOST_PROCESSES = 64


class Server:
    """The side that computes.

    `processes` is the number of processes that share a run, each on a core of its own; 0 leaves it to the plan, which
    takes as many as are predicted to be quickest on the CPUs that there are. Results are the same to the last bit.
    (They are forked: a process that has threads had better stay with 1, as it is by default.)

    `progress` is told how many operations of how many are done (of those of this process), during each run. After a
    run, `executed` has what it did, under the names of the plan's `stats`, and `seconds` the CPU time of its parts:
    "check" the message, "load" the ciphertexts, "bind" the clear tensors, "evaluate" (with what is not encoded yet),
    "answer".
    """

    def __init__(self, bundle: ServerKeys, agreement: Agreement, constants: Mapping[str, Array] | None = None) -> None:
        self.agreement = agreement
        self.executed: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.processes = 1
        self.progress: Callable[[int, int], None] | None = None
        self._bundle = bundle
        self._constants = dict(constants or {})
        self._bound: tuple[bytes, Encodings, dict[str, Array]] | None = None
        self._divided: dict[int, Partition] = {}
        self._held = False  # whether `_bound` is for the constants, of which nobody else has the arrays

    @property
    def plan(self) -> Plan:
        """The plan that is run."""
        return self.agreement.plan

    @property
    def key_id(self) -> str:
        """Which pair of bundles this one belongs to: compare it with the client's."""
        return self._bundle.id.hex()

    @property
    def nbytes(self) -> int:
        """The size of the evaluation keys."""
        return self._bundle.nbytes

    def run(self, ciphertexts: Ciphertexts, /, **clear: Any) -> Ciphertexts:
        """Evaluate on a request: a message for the client that sent it.

        `clear` are the program's inputs that are not encrypted, by name; constants of the program need not be given
        again in the process that compiled it. Their encodings are kept for the next run with the same values. Raises
        `EnvelopeError` for a message that was changed, or is of another plan or other keys.
        """
        clock = _Clock()
        plan, program = self.agreement.hash, self.plan.program
        found = envelope.unwrap(ciphertexts.data, envelope.CIPHERTEXTS, self._bundle.integrity, plan, self._bundle.id)
        clock("check")
        held = self._keys
        clock("load")
        encodings, results = self._bind(clear)
        clock("bind")
        parts = self._evaluated(found.parts, held, encodings, clock)
        parts |= {CLEAR + name: _stored(results[name]) for name in program.results}
        header = Header(envelope.RESULT, plan, self._bundle.id, found.header.request)
        answer = Ciphertexts.from_bytes(envelope.wrap(Envelope(header, parts), self._bundle.integrity))
        clock("answer")
        self.seconds = clock.seconds
        return answer

    def divided(self, number: int | None = None) -> Partition:
        """How a run is divided among so many processes (`self.processes` if nothing is said): what `run` does, and the
        milliseconds that it is predicted to take.
        """
        wanted = self.processes if number is None else number
        if type(wanted) is not int or not 0 <= wanted <= MOST_PROCESSES:
            raise BackendError(
                f"{wanted!r} is no number of processes",
                code="bad-processes",
                help=f"an integer up to {MOST_PROCESSES}, 0 for as many as pay",
            )
        if wanted not in self._divided:
            circuit, scales = self.plan.circuit, self._exchange.scales
            prices = Prices(self.plan.parameters.ring, self.plan.rates)
            if wanted == 0:
                self._divided[wanted] = best(circuit, scales, prices, get_threads() if processes.available() else 1)
            else:
                self._divided[wanted] = partition(circuit, scales, prices, wanted)
        return self._divided[wanted]

    def _evaluated(
        self, uploads: Mapping[str, bytes], held: EvaluationKeys, encodings: Encodings, clock: _Clock
    ) -> dict[str, bytes]:
        """The ciphertexts of the results. What was done goes to `executed`."""
        exchange, source = self._exchange, self.plan.program.clear.source
        circuit, scales, scheme = exchange.circuit, exchange.scales, exchange.scheme
        divided = self.divided() if self.processes != 1 else None
        if divided is not None and divided.processes > 1:
            work = processes.Work(circuit, scales, scheme, held, encodings, exchange.reader(uploads), source)
            outcome = processes.run(work, divided, self.progress)
            clock("evaluate", outcome.seconds)
            self.executed = executed(outcome.executed, outcome.lowest)
            return exchange.named(outcome.answers)
        loaded = exchange.ciphertexts(uploads)
        clock("load")
        done = execute.run(circuit, scales, scheme, held, loaded, encodings, self.progress, source)
        clock("evaluate")
        lowest = max(scheme.level(each) for row in done.outputs.values() for each in row)
        self.executed = executed(done.executed, lowest)
        return exchange.answer(done.outputs)

    def bind(self, /, **clear: Any) -> None:
        """Keep copies of clear inputs, so that they need not be given to `run`, and encode them ahead of the first run.

        A run that is given other values of them uses those.
        """
        for name, value in clear.items():
            self._constants[name] = np.array(as_array(value, name))
        self._held = False
        self._bind({})[0].prepare()

    def predict(self, /, **clear: Any) -> dict[str, float]:
        """The largest error to expect of each encrypted result, for these values of the clear tensors."""
        encodings, exchange = self._bind(clear)[0], self._exchange
        ranges = self.plan.program.ranges
        found = predict(exchange.circuit, exchange.scales, ranges, encodings.magnitude, wide=True).errors
        return {public: found[name] for name, public, _ in self.agreement.results if name in found}

    def save(self, path: Path) -> None:
        """Write the keys to a file for the server. Constants are not in it: the server that loads it is given them."""
        envelope.write(path, self._bundle.to_bytes(), secret=True)

    @staticmethod
    def load(path: Path) -> Server:
        """The server in a file. Raises `EnvelopeError` for a damaged file, or one of another kind."""
        bundle = ServerKeys.from_bytes(envelope.read(path))
        return Server(bundle, Agreement.from_text(bundle.plan))

    def _bind(self, clear: Mapping[str, Any]) -> tuple[Encodings, dict[str, Array]]:
        """Encodings for these values of the clear tensors, and the results in clear that follow from them.

        Raises `EncryptionError` where a value could overflow.
        """
        if self._held and self._bound is not None and not clear:
            return self._bound[1], self._bound[2]
        inputs = {i.name: i for i in self.plan.program.clear.inputs}
        given = {**{k: v for k, v in self._constants.items() if k in inputs}, **clear}
        check_names(given, tuple(inputs), "clear input")
        arrays = {}
        for name, declared in inputs.items():
            arrays[name] = checked(name, given[name], tuple(size.evaluate({}) for size in declared.shape))
        digest = hashlib.blake2b()
        for array in arrays.values():
            digest.update(array.dtype.str.encode())
            digest.update(np.ascontiguousarray(array).data)
        key = digest.digest()
        if self._bound is None or self._bound[0] != key:
            tensors = clear_tensors(self.plan.program.clear, arrays)
            exchange, program = self._exchange, self.plan.program
            encodings = Encodings(exchange.scheme, exchange.circuit, exchange.scales, tensors)
            source = program.clear.source
            check_values(exchange.circuit, exchange.scales, program.ranges, encodings.magnitude, source)
            self._bound = key, encodings, tensors
        self._held = not clear
        return self._bound[1], self._bound[2]

    @cached_property
    def _exchange(self) -> Exchange:
        return self.agreement.exchange()

    @cached_property
    def _keys(self) -> EvaluationKeys:
        return keys.load(self._bundle, self.plan.circuit, self._exchange.scheme)

    def __repr__(self) -> str:
        return f"<server of {self.key_id[:8]}: {self.nbytes:,} bytes of keys>"


class _Clock:
    """CPU seconds by what was done in them, since the last call and (`more`) in other processes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def __call__(self, name: str, more: float = 0.0) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last + more
        self._last = now


def _stored(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()
