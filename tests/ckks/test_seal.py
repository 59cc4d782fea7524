"""The wrapper of SEAL: encodings, spectral packing, keys, and what happens without tenseal."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from stein.backends.ckks.chain.parameters import Parameters
from stein.backends.ckks.execution import seal
from stein.backends.ckks.execution.seal import Evaluator, Scheme, Secret, galois_element, library
from stein.ir.errors import BackendError
from stein.tests.ckks.encrypted_runs import MEDIUM, SMALL


def test_without_tenseal_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tenseal", None)
    monkeypatch.setitem(sys.modules, "tenseal.sealapi", None)
    with pytest.raises(BackendError, match="tenseal") as caught:
        library()
    assert "stein[ckks]" in caught.value.help


def test_galois_elements_generate_all_rotations() -> None:
    ring = 4096
    assert len({galois_element(step, ring) for step in range(ring // 2)}) == ring // 2
    assert galois_element(-1, ring) == galois_element(ring // 2 - 1, ring)


@pytest.fixture(scope="module")
def secret() -> Secret:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    return Secret(Scheme(SMALL))


def test_the_embedding_is_seals(secret: Secret) -> None:
    # A polynomial that is encoded by its coefficients decodes to them, and to the slots that they mean.
    coefficients = np.random.default_rng(0).uniform(-1, 1, SMALL.ring)
    plain = secret.scheme.encode(coefficients, 0, 2.0**33)
    assert np.abs(secret.scheme.decode(plain, coefficients=True) - coefficients).max() < 2.0**-32
    slots = secret.scheme.slots_of(coefficients)
    assert np.abs(secret.scheme.decode(plain) - slots.real).max() < 1e-6
    assert np.abs(secret.scheme.coefficients_of(slots) - coefficients).max() < 1e-12


def test_uniform_vectors_are_encoded_as_what_they_are(secret: Secret) -> None:
    scheme = secret.scheme
    for vector in (np.full(SMALL.slots, 0.7), np.linspace(0, 1, SMALL.slots), np.array([1.0, 2.0])):
        got = scheme.decode(scheme.encode(vector, 1, 2.0**33))
        want = np.zeros(SMALL.slots)
        want[: len(vector)] = vector
        assert np.abs(got - want).max() < 1e-7  # one rounding of 2^-33 for each of 4096 coefficients, at most


def test_a_secret_key_comes_back_from_its_bytes(secret: Secret) -> None:
    again, other = Secret(secret.scheme, secret.save()), Secret(secret.scheme)
    x = np.linspace(-1, 1, SMALL.slots)
    sent = secret.encrypt(x, 2.0**33)
    assert np.abs(again.decrypt(sent) - x).max() < 1e-6
    assert np.abs(other.decrypt(sent)).max() > 1e3  # a foreign key reads noise


def test_a_public_encryptor_is_understood(secret: Secret) -> None:
    x = np.linspace(-1, 1, SMALL.slots)
    result = secret.scheme.seal.Ciphertext()
    secret.public_encryptor().encrypt(secret.scheme.encode(x, 0, 2.0**33), result)
    assert np.abs(secret.decrypt(result) - x).max() < 1e-5


def test_levels_count_from_the_fresh_ciphertext(secret: Secret) -> None:
    a = secret.encrypt(np.ones(4), 2.0**33)
    evaluator = Evaluator(secret.scheme, secret.evaluation_keys([], False))
    assert secret.scheme.level(a) == 0 and secret.scheme.level(evaluator.switch(a)) == 1
    assert secret.scheme.level(secret.encrypt(np.ones(4), 2.0**33, level=1)) == 1


def test_nothing_that_a_server_holds_decrypts(secret: Secret) -> None:
    keys = secret.evaluation_keys([1], True)
    held = {type(v).__name__ for v in (keys.galois, keys.relinearisation)}
    assert held == {"GaloisKeys", "RelinKeys"} and "SecretKey" not in {type(v).__name__ for v in vars(keys).values()}


def test_operations_in_place_use_the_memory_of_their_operand(secret: Secret) -> None:
    evaluator = Evaluator(secret.scheme, secret.evaluation_keys([], False))
    x = np.linspace(-1, 1, SMALL.slots)
    a, b = secret.encrypt(x, 2.0**33), secret.encrypt(x, 2.0**33)
    assert evaluator.add(a, b, reuse=True) is a and evaluator.add(a, b) is not a
    assert np.abs(secret.decrypt(a) - 2 * x).max() < 1e-5 and np.abs(secret.decrypt(b) - x).max() < 1e-5


@pytest.mark.parametrize("parameters", [SMALL, MEDIUM, Parameters(8192, (50, 60), 40)], ids=Parameters.text)
def test_schemes_have_the_levels_of_their_parameters(parameters: Parameters) -> None:
    pytest.importorskip("tenseal", reason="encrypted programs need tenseal")
    scheme = Scheme(parameters)
    assert len(scheme.ids) == parameters.levels + 1 and seal.library() is scheme.seal
