"""SEAL, through TenSEAL's bindings, behind a face that its traps cannot be reached through.

Nobody else imports tenseal. What the bindings accept in silence and get wrong is refused or put right here: Galois
elements are made of steps, a rotation uses its own key or none, plain factors are never zero, scales are set to what
the plan says, loaded ciphertexts are of the level, size and scale that are expected, and bytes go through files without
a name that only this process can open.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ....ir.errors import BackendError, EncryptionError, EnvelopeError
from ..chain.parameters import Parameters

Array = np.ndarray[Any, Any]
Ciphertext: TypeAlias = Any  # objects of the bindings, which have no types of their own
Plaintext: TypeAlias = Any

EXACT = 2.0**-39  # relative: the most by which a scale is corrected without being counted as an error
HEADER = struct.Struct("<HBBBBHQ")  # magic, header's size, version, compression, reserved, size of all
MAGIC = 0xA15E
TRANSPARENT = "result ciphertext is transparent"  # SEAL's words


def library() -> Any:
    """The bindings of SEAL. Raises `BackendError` where they are not installed."""
    try:
        import tenseal.sealapi as seal
    except ImportError:
        raise BackendError(
            "encrypted programs need tenseal", code="not-installed", help="pip install stein[ckks]"
        ) from None
    return seal


def galois_element(step: int, ring: int) -> int:
    """What SEAL's key generator calls a rotation to the left by `step` slots.

    >>> galois_element(1, 8192), galois_element(4096, 8192)
    (3, 1)
    """
    return pow(3, step % (ring // 2), 2 * ring)


class Scheme:
    """The encoder and the levels of a chain of primes. It holds no key.

    Raises `BackendError` without tenseal, `EncryptionError` for parameters that SEAL finds not secure.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.seal = seal = library()
        made = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        made.set_poly_modulus_degree(parameters.ring)
        made.set_coeff_modulus(seal.CoeffModulus.Create(parameters.ring, list(parameters.bits)))
        found = tuple(m.value() for m in made.coeff_modulus())
        assert found == parameters.primes, "SEAL chose other primes"
        self.context = seal.SEALContext(made, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise EncryptionError(
                f"SEAL refuses {parameters.text()}: {self.context.parameters_error_message()}", code="bad-chain"
            )
        self.encoder = seal.CKKSEncoder(self.context)
        self.ids: list[list[int]] = []  # of each level's modulus
        data = self.context.first_context_data()
        while data is not None:
            self.ids.append(data.parms_id())
            data = data.next_context_data()
        assert len(self.ids) == parameters.levels + 1

    def encode(self, vector: Array, level: int, scale: float, factor: bool = False) -> Plaintext:
        """A plain vector of up to as many numbers as there are slots, or of twice as many coefficients.

        A `factor` is never zero: where it rounds to nothing it becomes the least constant there is, 1 / scale, which is
        far below the error of the product. (SEAL refuses products with zero: they would be no encryption.)
        """
        result = self.seal.Plaintext()
        numbers = np.asarray(vector, dtype=float)
        if not np.isfinite(numbers).all():
            raise EncryptionError("infinity and NaN cannot be encrypted", code="not-finite", help="check the tensor")
        try:
            if len(numbers) > self.parameters.slots:
                assert len(numbers) == self.parameters.ring, "neither slots nor coefficients"
                self.encoder.encode(self.slots_of(numbers).tolist(), self.ids[level], scale, result)
            elif len(numbers) == self.parameters.slots and (numbers == numbers[0]).all():
                self.encoder.encode(float(numbers[0]), self.ids[level], scale, result)  # a hundred times quicker
            else:
                self.encoder.encode(numbers.tolist(), self.ids[level], scale, result)
        except ValueError:
            raise EncryptionError(
                f"numbers up to {np.abs(numbers).max():.3g} are too large to be encoded at level {level}",
                code="overflow",
                help="declare the range of the tensor when compiling, or scale it down",
            ) from None
        if factor and result.is_zero():
            self.encoder.encode(1.0 / scale, self.ids[level], scale, result)
        return result

    def decode(self, plain: Plaintext, coefficients: bool = False) -> Array:
        """The slots of a plaintext, or its coefficients."""
        if coefficients:
            return self.coefficients_of(np.array(self.encoder.decode_complex(plain)))
        return np.array(self.encoder.decode_double(plain))

    @cached_property
    def _roots(self) -> tuple[Array, Array]:
        """The exponent of the root of unity that each slot evaluates at, and the powers of that root."""
        ring = self.parameters.ring
        exponents = np.empty(ring // 2, dtype=np.int64)
        value = 1
        for j in range(ring // 2):
            exponents[j] = value
            value = value * 3 % (2 * ring)
        return exponents, np.exp(1j * np.pi * np.arange(ring) / ring)

    def slots_of(self, coefficients: Array) -> Array:
        """The complex slots of the polynomial with these coefficients (the canonical embedding)."""
        exponents, powers = self._roots
        values: Array = np.fft.ifft(coefficients * powers)[(exponents - 1) // 2] * self.parameters.ring
        return values

    def coefficients_of(self, slots: Array) -> Array:
        """The coefficients of the polynomial with these slots."""
        exponents, powers = self._roots
        ring = self.parameters.ring
        full = np.empty(ring, dtype=complex)
        full[(exponents - 1) // 2] = slots
        full[(2 * ring - exponents - 1) // 2] = np.conj(slots)
        coefficients: Array = (np.fft.fft(full) / ring * np.conj(powers)).real
        return coefficients

    def level(self, ciphertext: Ciphertext) -> int:
        """How many primes a ciphertext has lost."""
        return len(self.ids) - int(ciphertext.coeff_modulus_size())

    def load_ciphertext(self, data: bytes, level: int, scale: float, sizes: Container[int] = (2,)) -> Ciphertext:
        """A ciphertext of one of these sizes from its bytes, which must have been authenticated before.

        Raises `EnvelopeError` for what is none, or not of this level and scale.
        """
        result = self.seal.Ciphertext()
        self._load(result, data, "ciphertext")
        fits = result.size() in sizes and self.level(result) == level and result.parms_id() == self.ids[level]
        if not fits or not abs(result.scale / scale - 1) <= EXACT or not self.seal.is_valid_for(result, self.context):
            raise EnvelopeError("a ciphertext is not of the level and scale of the plan", code="damaged")
        return result

    def load_keys(self, galois: bytes, relinearisation: bytes, steps: Iterable[int]) -> EvaluationKeys:
        """Keys from their bytes (empty where there are none); `steps` are the rotations they must be for."""
        wanted = frozenset(steps)
        rotating, squaring = self.seal.GaloisKeys(), self.seal.RelinKeys()
        if galois:
            self._load(rotating, galois, "rotation key")
        if relinearisation:
            self._load(squaring, relinearisation, "relinearisation key")
        elements = {galois_element(s, self.parameters.ring) for s in wanted}
        if wanted and not (rotating.size() == len(elements) and all(map(rotating.has_key, elements))):
            raise EnvelopeError("the keys are not those of the plan's rotations", code="damaged")
        return EvaluationKeys(rotating if wanted else None, squaring if relinearisation else None, wanted)

    def _load(self, target: Any, data: bytes, what: str) -> None:
        whole = len(data) >= HEADER.size and HEADER.unpack_from(data)[0] == MAGIC
        if not whole or HEADER.unpack_from(data)[-1] != len(data):  # SEAL ignores bytes that follow
            raise EnvelopeError(f"a {what} is damaged", code="damaged", help="send it again")
        try:
            with hidden_file(data) as path:
                target.load(self.context, path)
        except (ValueError, RuntimeError):
            raise EnvelopeError(f"a {what} is damaged", code="damaged", help="send it again") from None


@contextmanager
def hidden_file(data: bytes = b"") -> Iterator[str]:
    """The path of a file with these bytes that no other user can open: in memory where the system can, else in a
    private folder (mode 0700), and gone afterwards.
    """
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        number = os.memfd_create("stein")
        try:
            with os.fdopen(os.dup(number), "wb") as file:
                file.write(data)
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    with tempfile.TemporaryDirectory(prefix="stein-") as folder:
        path = os.path.join(folder, "object")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        yield path


def dump(thing: Any) -> bytes:
    """The bytes of a ciphertext or key, as SEAL writes them."""
    with hidden_file() as path:
        thing.save(path)
        with open(path, "rb") as file:
            return file.read()


@dataclass(frozen=True)
class EvaluationKeys:
    """What a server computes with: Galois keys of the plan's steps, and a relinearisation key. They decrypt nothing."""

    galois: Any
    relinearisation: Any
    steps: frozenset[int]


class Secret:
    """A client's secret key, and what it alone can do: encrypt (with a seed in place of half of the bytes), decrypt,
    and make evaluation keys.
    """

    def __init__(self, scheme: Scheme, data: bytes | None = None) -> None:
        self.scheme = scheme
        seal, context = scheme.seal, scheme.context
        if data is None:
            self.generator = seal.KeyGenerator(context)
        else:
            known = seal.SecretKey()
            scheme._load(known, data, "secret key")
            self.generator = seal.KeyGenerator(context, known)
        self.key = self.generator.secret_key()
        self.encryptor = seal.Encryptor(context, self.key)
        self.decryptor = seal.Decryptor(context, self.key)

    def save(self) -> bytes:
        """The secret key's bytes. Whoever has them reads everything."""
        return dump(self.key)

    def encrypt(self, vector: Array, scale: float, level: int = 0) -> Ciphertext:
        """A ciphertext of a vector, for use in this process."""
        result = self.scheme.seal.Ciphertext()
        self.encryptor.encrypt_symmetric(self.scheme.encode(vector, level, scale), result)
        return result

    def upload(self, vector: Array, scale: float, level: int = 0) -> bytes:
        """The bytes of a ciphertext, half as many as `dump(encrypt(...))`."""
        return dump(self.encryptor.encrypt_symmetric(self.scheme.encode(vector, level, scale)))

    def decrypt(self, ciphertext: Ciphertext, coefficients: bool = False) -> Array:
        """The slots (or coefficients) of a ciphertext."""
        plain = self.scheme.seal.Plaintext()
        self.decryptor.decrypt(ciphertext, plain)
        return self.scheme.decode(plain, coefficients)

    def public_encryptor(self) -> Any:
        """An encryptor that needs no secret (SEAL's): its ciphertexts are twice as large and a little noisier."""
        public = self.scheme.seal.PublicKey()
        self.generator.create_public_key(public)
        return self.scheme.seal.Encryptor(self.scheme.context, public)

    def evaluation_keys(self, steps: Iterable[int], relinearise: bool) -> EvaluationKeys:
        """Keys for exactly these rotations, for use in this process."""
        wanted = frozenset(steps)
        galois, squaring = self.scheme.seal.GaloisKeys(), self.scheme.seal.RelinKeys()
        if wanted:
            self.generator.create_galois_keys(self._elements(wanted), galois)
        if relinearise:
            self.generator.create_relin_keys(squaring)
        return EvaluationKeys(galois if wanted else None, squaring if relinearise else None, wanted)

    def save_evaluation_keys(self, steps: Iterable[int], relinearise: bool) -> tuple[bytes, bytes]:
        """The bytes of Galois keys and of the relinearisation key for `Scheme.load_keys`, seeded: half the size."""
        wanted = frozenset(steps)
        galois = dump(self.generator.create_galois_keys(self._elements(wanted))) if wanted else b""
        return galois, dump(self.generator.create_relin_keys()) if relinearise else b""

    def _elements(self, steps: frozenset[int]) -> list[int]:
        ring = self.scheme.parameters.ring
        assert all(0 < s < ring // 2 for s in steps), "a rotation by no slots, or by more than there are"
        return sorted(galois_element(s, ring) for s in steps)


class Evaluator:
    """Operations on ciphertexts. `reuse` says that the (first) operand is not needed any more: its memory may become
    the result's. Rotations never work in place: where one fails, its operand must still be whole.
    """

    def __init__(self, scheme: Scheme, keys: EvaluationKeys) -> None:
        self.scheme, self.keys = scheme, keys
        self.ring = scheme.parameters.ring
        self.inner = scheme.seal.Evaluator(scheme.context)

    def rotate(self, a: Ciphertext, step: int) -> Ciphertext:
        """Slots moved to the left, by the step's own key (SEAL would put other keys together, at their price)."""
        if step not in self.keys.steps:
            raise EncryptionError(
                f"there is no key for a rotation by {step}", code="missing-key", help="use the keys of this plan"
            )
        return self._applied(self.inner.apply_galois, None, a, galois_element(step, self.ring), self.keys.galois)

    def multiply_plain(self, a: Ciphertext, factor: Plaintext, reuse: bool = False) -> Ciphertext:
        """A product with a plain vector, encoded as a factor."""
        if factor.is_zero():
            raise EncryptionError(
                "a product with zero is no encryption", code="transparent", help="encode the vector as a factor"
            )
        return self._applied(self.inner.multiply_plain, self.inner.multiply_plain_inplace, a, factor, reuse=reuse)

    def add_plain(self, a: Ciphertext, term: Plaintext, reuse: bool = False) -> Ciphertext:
        """A sum with a plain vector."""
        return self._applied(self.inner.add_plain, self.inner.add_plain_inplace, a, term, reuse=reuse)

    def multiply(self, a: Ciphertext, b: Ciphertext, reuse: bool = False) -> Ciphertext:
        """A product, of size 3; of a value with itself, the cheaper square."""
        if a is b:
            return self._applied(self.inner.square, self.inner.square_inplace, a, reuse=reuse)
        return self._applied(self.inner.multiply, self.inner.multiply_inplace, a, b, reuse=reuse)

    def add(self, a: Ciphertext, b: Ciphertext, reuse: bool = False) -> Ciphertext:
        """A sum of two ciphertexts."""
        return self._applied(self.inner.add, self.inner.add_inplace, a, b, reuse=reuse)

    def subtract(self, a: Ciphertext, b: Ciphertext, reuse: bool = False) -> Ciphertext:
        """A difference of two ciphertexts."""
        return self._applied(self.inner.sub, self.inner.sub_inplace, a, b, reuse=reuse)

    def negate(self, a: Ciphertext, reuse: bool = False) -> Ciphertext:
        """The other sign."""
        return self._applied(self.inner.negate, self.inner.negate_inplace, a, reuse=reuse)

    def relinearise(self, a: Ciphertext, reuse: bool = False) -> Ciphertext:
        """Size 3 to size 2."""
        if self.keys.relinearisation is None:
            raise EncryptionError("there is no relinearisation key", code="missing-key", help="use the plan's keys")
        inner = self.inner
        return self._applied(inner.relinearize, inner.relinearize_inplace, a, self.keys.relinearisation, reuse=reuse)

    def rescale(self, a: Ciphertext, reuse: bool = False) -> Ciphertext:
        """Division by the last prime."""
        return self._applied(self.inner.rescale_to_next, self.inner.rescale_to_next_inplace, a, reuse=reuse)

    def switch(self, a: Ciphertext, reuse: bool = False) -> Ciphertext:
        """The last prime dropped."""
        return self._applied(self.inner.mod_switch_to_next, self.inner.mod_switch_to_next_inplace, a, reuse=reuse)

    def copy(self, a: Ciphertext) -> Ciphertext:
        """Another ciphertext of the same value."""
        result = self.scheme.seal.Ciphertext()
        self.inner.mod_switch_to(a, a.parms_id(), result)
        return result

    def set_scale(self, a: Ciphertext, scale: float) -> None:
        """Put the scale of a fresh result to what the plan has computed; they differ by rounding alone."""
        assert abs(a.scale / scale - 1) <= EXACT, "a scale is not what was planned"
        a.scale = scale

    def _applied(self, fresh: Any, in_place: Any, a: Ciphertext, *more: Any, reuse: bool = False) -> Ciphertext:
        """The result of an operation, which may be *transparent*: zero, or what the server knows, for every input.

        SEAL raises an error for those, once they are computed, as most are mistakes. Here they are values that cancel
        for these clear tensors, and right: the server knows that they do, so nobody learns of the inputs from them.
        """
        result = a if reuse else self.scheme.seal.Ciphertext()
        try:
            if reuse:
                in_place(a, *more)
            else:
                fresh(a, *more, result)
        except RuntimeError as error:
            if str(error) != TRANSPARENT:
                raise
        return result
