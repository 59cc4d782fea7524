"""The client of an encrypted program: it holds the secret key, encrypts inputs and decrypts results.

    client, server = program.keygen()
    request = client.encrypt(x=x)                # checked: names, shapes, ranges
    y = client.decrypt(server.run(request))

Decryptions are approximate, and their errors depend on the secret key: who publishes them, or sends them back to the
server, helps to find the key (Li and Micciancio, "On the Security of Homomorphic Encryption on Approximate Numbers",
2021, section 1). Keep results, or round them to well above the error first.
"""

from __future__ import annotations

import hmac
import io
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.ckks.chain.ranges import RANGE
from ..backends.ckks.execution import envelope
from ..backends.ckks.execution.bundle import ClientKeys
from ..backends.ckks.execution.envelope import Envelope, Header, rejected
from ..backends.ckks.execution.exchange import Exchange
from ..backends.ckks.execution.keys import generate
from ..backends.ckks.execution.passphrase import Passphrase, lock, locked, unlock
from ..backends.ckks.execution.seal import Secret
from ..ir.errors import EncryptionError
from .encrypted_files import CLEAR, Agreement, Ciphertexts, Path, check_names, checked

if TYPE_CHECKING:
    from ..backends.ckks.planning.plan import Plan
    from .encrypted import EncryptedCompiled
    from .server import Server

Array = np.ndarray[Any, Any]


class Client:
    """The side that knows the data. Keep its file to yourself: with it (and its passphrase, if it has one), everything
    can be decrypted.
    """

    def __init__(self, keys: ClientKeys, agreement: Agreement) -> None:
        self.agreement, self._keys = agreement, keys

    @property
    def plan(self) -> Plan:
        """The plan that inputs are packed for."""
        return self.agreement.plan

    @property
    def key_id(self) -> str:
        """Which pair of bundles this one belongs to. The server's is the same, or it has another client's bundle."""
        return self._keys.id.hex()

    def encrypt(self, /, **arrays: Any) -> Ciphertexts:
        """The encrypted inputs, packed as the plan wants them: a message for the server.

        Raises `EncryptionError` for a missing or unknown name and for values that are no numbers or beyond the declared
        range, `ShapeError` for another shape, `DTypeError` for anything but real numbers.
        """
        program = self.plan.program
        check_names(arrays, program.inputs, "encrypted input")
        tensors = {}
        for name in program.inputs:
            tensors[name] = checked(name, arrays[name], program.shapes[name])
            _within(name, tensors[name], program.ranges.get(name, RANGE))
        request = secrets.token_bytes(len(envelope.NO_REQUEST))
        header = Header(envelope.CIPHERTEXTS, self.agreement.hash, self._keys.id, request)
        parts = self._exchange.encrypted(self._secret, tensors)
        return Ciphertexts.from_bytes(envelope.wrap(Envelope(header, parts), self._keys.integrity))

    def decrypt(self, result: Ciphertexts, answers: Ciphertexts | None = None) -> Any:
        """The results in clear: one array, or a dictionary of several.

        With `answers`, the request that was sent, the result must be the answer to it and no other. Raises
        `EnvelopeError` for a message that was changed, or is of another plan, other keys or another request.
        """
        plan, keys = self.agreement.hash, self._keys
        found = envelope.unwrap(result.data, envelope.RESULT, keys.integrity, plan, keys.id)
        if answers is not None:
            sent = envelope.unwrap(answers.data, envelope.CIPHERTEXTS, keys.integrity, plan, keys.id).header.request
            if not hmac.compare_digest(found.header.request, sent):
                raise rejected("the result is the answer to another request", "wrong-request", "ask again")
        program = self.plan.program
        parts = {name: data for name, data in found.parts.items() if not name.startswith(CLEAR)}
        results = self._exchange.decrypted(self._secret, parts)
        for name in program.results:
            results[name] = _loaded(found.part(CLEAR + name))
        return self.agreement.given(results)

    def save(self, path: Path, passphrase: Passphrase | None = None) -> None:
        """Write the secret bundle to a file that only its owner can read; with a passphrase, encrypted under it.

        Raises `BackendError` for a passphrase where the package `cryptography` is not installed.
        """
        data = self._keys.to_bytes()
        envelope.write(path, data if passphrase is None else lock(data, passphrase), secret=True)

    @staticmethod
    def load(path: Path, passphrase: Passphrase | None = None) -> Client:
        """The client in a file.

        Raises `EnvelopeError` for a damaged file, one of another kind, a file that needs a passphrase or another one,
        and for a passphrase where the file has none.
        """
        data = envelope.read(path)
        if locked(data):
            if passphrase is None:
                raise rejected(f"'{path}' is under a passphrase", "locked", "Client.load(path, passphrase=...)")
            data = unlock(data, passphrase)
        elif passphrase is not None:
            raise rejected(f"'{path}' is under no passphrase", "not-locked", "client.save(path, passphrase=...)")
        keys = ClientKeys.from_bytes(data)
        return Client(keys, Agreement.from_text(keys.plan))

    @cached_property
    def _exchange(self) -> Exchange:
        return self.agreement.exchange()

    @cached_property
    def _secret(self) -> Secret:
        return Secret(self._exchange.scheme, self._keys.secret)

    def __repr__(self) -> str:
        return f"<client of {self.key_id[:8]}: encrypts {', '.join(self.plan.program.inputs)}>"


def keygen(compiled: EncryptedCompiled, plan: Plan | None = None) -> tuple[Client, Server]:
    """Fresh keys for a compiled program: a client with the secret key, and a server that can evaluate, not decrypt.

    `plan` is one of its plans that trade time for uploads or keys; by default the quickest.
    """
    from .server import Server

    program, chosen = compiled.program, plan or compiled.plan
    types = (program.tensors[name].dtype.numpy.name for name in program.outputs)
    agreement = Agreement.of(chosen, zip(program.outputs, compiled.outputs, types, strict=True))
    mine, theirs = generate(agreement.text, chosen.circuit, agreement.exchange().scheme)
    return Client(mine, agreement), Server(theirs, agreement, compiled.constants)


def _within(name: str, tensor: Array, limit: float) -> None:
    """Refuse what would overflow without a sign at the last level."""
    if not np.isfinite(tensor).all():
        raise EncryptionError(f"'{name}' has values that are no finite numbers", code="not-finite")
    largest = float(np.abs(tensor).max(initial=0.0))
    if largest > limit:
        raise EncryptionError(
            f"'{name}' has values up to {largest:.4g}; the plan is for magnitudes up to {limit:.4g}",
            code="out-of-range",
            help=f"compile with {name}=stein.encrypted(shape, range={largest:.4g}), or scale the data down",
        )


def _loaded(data: bytes) -> Array:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise rejected("a result in clear is damaged", "damaged") from None
    return np.asarray(array)
