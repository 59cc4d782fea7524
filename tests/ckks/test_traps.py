"""What SEAL's bindings accept in silence and get wrong: each trap as it is, and the guard that keeps it shut."""

from __future__ import annotations

import ast
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stein.backends.ckks.chain.parameters import Parameters
from stein.backends.ckks.execution.seal import Evaluator, Scheme, Secret, dump, galois_element, hidden_file
from stein.ir.errors import EncryptionError, EnvelopeError
from stein.tests.ckks.encrypted_runs import SMALL

S = pytest.importorskip("tenseal.sealapi", reason="encrypted programs need tenseal")

ROOT = Path(__file__).resolve().parents[2]
SLOTS, SCALE = SMALL.slots, 2.0**SMALL.scale_bits
CLOSE = 1e-4  # more than any error of a few operations on this chain, less than a digit of a wrong result
x = np.random.default_rng(0).uniform(-1, 1, SLOTS)


@pytest.fixture(scope="module")
def secret() -> Secret:
    return Secret(Scheme(SMALL))


@pytest.fixture(scope="module")
def evaluator(secret: Secret) -> Evaluator:
    return Evaluator(secret.scheme, secret.evaluation_keys([1, 2, 4, SLOTS - 1, SLOTS - 3], True))


def factor(secret: Secret, vector: np.ndarray) -> Any:
    return secret.scheme.encode(vector, 0, float(SMALL.dropped(0)), factor=True)


# --- 1: Galois elements are not steps ---------------------------------------------------------------------------------


def test_rotations_move_by_their_step(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    for step in (1, 2, SLOTS - 3):
        assert np.abs(secret.decrypt(evaluator.rotate(a, step)) - np.roll(x, -step)).max() < CLOSE


def test_the_trap_of_steps_as_elements(secret: Secret) -> None:
    keys = S.GaloisKeys()
    secret.generator.create_galois_keys([1], keys)  # meant as a step, it is the identity
    assert not keys.has_key(galois_element(1, SMALL.ring))


def test_a_rotation_by_nothing_or_too_much_has_no_key(secret: Secret) -> None:
    for step in (0, SLOTS, -1):
        with pytest.raises(AssertionError):
            secret.evaluation_keys([step], False)


# --- 2: the special prime ---------------------------------------------------------------------------------------------


def test_a_chain_with_a_small_special_prime_is_refused() -> None:
    with pytest.raises(EncryptionError, match="special prime"):
        Parameters(8192, (60, 40, 40, 40))
    made = S.EncryptionParameters(S.SCHEME_TYPE.CKKS)
    made.set_poly_modulus_degree(8192)
    made.set_coeff_modulus(S.CoeffModulus.Create(8192, [60, 40, 40, 40]))
    assert S.SEALContext(made, True, S.SEC_LEVEL_TYPE.TC128).parameters_set()  # SEAL has nothing against it


# --- 3: overflow is silent (test_ranges has the rest) -----------------------------------------------------------------


def test_numbers_that_do_not_fit_are_not_encoded(secret: Secret) -> None:
    with pytest.raises(EncryptionError, match="too large to be encoded at level 1") as caught:
        secret.scheme.encode(np.linspace(0, 1e9, SLOTS), 1, SCALE)
    assert caught.value.code == "overflow"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_encoded(secret: Secret, bad: float) -> None:
    with pytest.raises(EncryptionError, match="infinity and NaN"):
        secret.encrypt(np.where(np.arange(SLOTS) == 5, bad, x), SCALE)


# --- 4: damaged ciphertexts load (envelopes authenticate; this is the second line) ------------------------------------


def test_ciphertexts_of_another_level_scale_or_length_are_refused(secret: Secret, evaluator: Evaluator) -> None:
    scheme = secret.scheme
    a = secret.encrypt(x, SCALE)
    good = dump(a)
    assert np.abs(secret.decrypt(scheme.load_ciphertext(good, 0, SCALE)) - x).max() < CLOSE
    for data in (good + b"\0", good[:-1], good[:10], b"", b"\0" * 64, dump(secret.key)):
        with pytest.raises(EnvelopeError):
            scheme.load_ciphertext(data, 0, SCALE)
    for level, scale in ((1, SCALE), (0, SCALE * (1 + 2.0**-30)), (0, float("nan"))):
        with pytest.raises(EnvelopeError):
            scheme.load_ciphertext(good, level, scale)
    with pytest.raises(EnvelopeError):  # three polynomials
        scheme.load_ciphertext(dump(evaluator.multiply(a, a)), 0, SCALE * SCALE)
    nothing = evaluator.copy(a)
    nothing.scale = 0.0
    with pytest.raises(EnvelopeError):
        scheme.load_ciphertext(dump(nothing), 0, SCALE)


def test_keys_of_other_rotations_are_refused(secret: Secret) -> None:
    galois, relinearisation = secret.save_evaluation_keys([1, 2], True)
    found = secret.scheme.load_keys(galois, relinearisation, [1, 2])
    assert found.steps == {1, 2} and found.relinearisation is not None
    for steps in ([1, 3], [1], [1, 2, 3]):
        with pytest.raises(EnvelopeError):
            secret.scheme.load_keys(galois, b"", steps)
    with pytest.raises(EnvelopeError):
        secret.scheme.load_keys(galois[:-5], b"", [1, 2])


# --- 5: zero plaintexts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [np.zeros(SLOTS), np.zeros(3), np.full(SLOTS, 1e-30), np.arange(5) * 1e-30])
def test_a_factor_that_rounds_to_zero_is_the_least_one_that_does_not(
    secret: Secret, evaluator: Evaluator, vector: np.ndarray
) -> None:
    a = secret.encrypt(x, SCALE)
    product = evaluator.rescale(evaluator.multiply_plain(a, factor(secret, vector)))
    assert np.abs(secret.decrypt(product)).max() < CLOSE
    assert not product.is_transparent()


def test_the_trap_of_a_zero_plaintext(secret: Secret, evaluator: Evaluator) -> None:
    a, zero = secret.encrypt(x, SCALE), secret.scheme.encode(np.zeros(SLOTS), 0, SCALE)
    with pytest.raises(RuntimeError, match="transparent"):
        evaluator.inner.multiply_plain(a, zero, S.Ciphertext())
    with pytest.raises(EncryptionError, match="no encryption"):
        evaluator.multiply_plain(a, zero)


@pytest.mark.parametrize("reuse", [False, True])
def test_values_that_cancel_are_zero_from_then_on(secret: Secret, evaluator: Evaluator, reuse: bool) -> None:
    """SEAL raises for every result that is zero for all inputs, and for all that follows from it."""
    a = secret.encrypt(x, SCALE)
    with pytest.raises(RuntimeError, match="transparent"):
        evaluator.inner.sub(a, evaluator.copy(a), S.Ciphertext())
    zero = evaluator.subtract(evaluator.copy(a), a, reuse=reuse)
    assert zero.is_transparent() and not secret.decrypt(zero).any()
    square = evaluator.rescale(evaluator.relinearise(evaluator.multiply(zero, zero)))
    for made in (evaluator.rotate(zero, 1), evaluator.negate(zero), evaluator.add(zero, evaluator.copy(zero)), square):
        assert not secret.decrypt(made).any()
    product = evaluator.rescale(evaluator.multiply_plain(evaluator.copy(zero), factor(secret, x), reuse=reuse))
    assert not secret.decrypt(evaluator.switch(product) if product.coeff_modulus_size() > 1 else product).any()
    ones = secret.scheme.encode(np.ones(SLOTS), 0, SCALE)
    assert np.abs(secret.decrypt(evaluator.add_plain(evaluator.copy(zero), ones, reuse=reuse)) - 1).max() < CLOSE
    assert np.abs(secret.decrypt(evaluator.add(zero, a, reuse=reuse)) - x).max() < CLOSE


def test_other_errors_of_seal_stay_errors(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    with pytest.raises((RuntimeError, ValueError), match="scale"):
        evaluator.add(evaluator.multiply(a, a), a)


# --- 6: scales --------------------------------------------------------------------------------------------------------


def test_scales_are_set_and_never_by_more_than_rounding(secret: Secret, evaluator: Evaluator) -> None:
    a, b = secret.encrypt(x, SCALE), secret.encrypt(x, SCALE)
    b.scale = SCALE * (1 + 1e-13)
    with pytest.raises(ValueError, match="scale mismatch"):
        evaluator.add(a, b)
    evaluator.set_scale(b, SCALE)
    evaluator.add(a, b)
    with pytest.raises(AssertionError, match="not what was planned"):
        evaluator.set_scale(a, SCALE * (1 + 1e-9))


# --- 7: files, and copies ---------------------------------------------------------------------------------------------


def test_bytes_go_through_memory(secret: Secret) -> None:
    with hidden_file(b"abc") as path:
        assert Path(path).read_bytes() == b"abc"
        if hasattr(os, "memfd_create"):
            assert path.startswith("/proc/self/fd/")
    assert not os.path.exists(path)


def test_without_memory_files_bytes_go_through_a_private_folder(
    secret: Secret, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with hidden_file(b"abc") as path:
        assert Path(path).is_relative_to(tmp_path) and Path(path).read_bytes() == b"abc"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(Path(path).parent).st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []
    again = Secret(secret.scheme, secret.save())
    assert np.abs(again.decrypt(secret.encrypt(x, SCALE)) - x).max() < CLOSE
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_another_ciphertext(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    copy = evaluator.copy(a)
    evaluator.negate(copy, reuse=True)
    assert np.abs(secret.decrypt(a) - x).max() < CLOSE and np.abs(secret.decrypt(copy) + x).max() < CLOSE


# --- 8, and that nobody reaches past the wrapper ----------------------------------------------------------------------


def test_only_the_wrapper_imports_tenseal_and_nobody_takes_its_arrays() -> None:
    importers, arrays = set(), set()
    for layer in ("ir", "frontend", "passes", "backends", "runtime"):
        for path in (ROOT / layer).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "tenseal" in text or "dyn_array" in text else ():
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] == "tenseal" for name in names):
                    importers.add(path.relative_to(ROOT).as_posix())
                if isinstance(node, ast.Attribute) and node.attr == "dyn_array":
                    arrays.add(path.name)
    assert importers == {"backends/ckks/execution/seal.py"} and not arrays


# --- 9: power-of-two keys ---------------------------------------------------------------------------------------------


def test_a_step_without_its_key_is_refused_and_not_put_together(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    with pytest.raises(EncryptionError, match="no key for a rotation by 3") as caught:
        evaluator.rotate(a, 3)  # 4 - 1, both of which there are
    assert caught.value.code == "missing-key"
    result = S.Ciphertext()
    evaluator.inner.rotate_vector(a, 3, evaluator.keys.galois, result)  # two key switches in place of one


def test_products_are_relinearised_before_they_rotate(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    square = evaluator.multiply(a, a)
    assert square.size() == 3
    with pytest.raises((ValueError, RuntimeError)):
        evaluator.rotate(square, 1)
    lazy = evaluator.add(square, evaluator.multiply(a, secret.encrypt(x, SCALE)))
    result = evaluator.rotate(evaluator.rescale(evaluator.relinearise(lazy)), 1)
    result.scale = SCALE * SCALE / SMALL.dropped(0)
    assert np.abs(secret.decrypt(result) - np.roll(2 * x * x, -1)).max() < CLOSE


def test_without_a_relinearisation_key_the_error_is_a_users(secret: Secret) -> None:
    bare = Evaluator(secret.scheme, secret.evaluation_keys([], False))
    a = secret.encrypt(x, SCALE)
    with pytest.raises(EncryptionError, match="no relinearisation key"):
        bare.relinearise(bare.multiply(a, a))


# --- 10: uploads and keys carry seeds ---------------------------------------------------------------------------------


def test_uploads_and_keys_are_half_as_large(secret: Secret) -> None:
    upload = secret.upload(x, SCALE)
    assert len(upload) < 0.55 * len(dump(secret.encrypt(x, SCALE)))
    assert np.abs(secret.decrypt(secret.scheme.load_ciphertext(upload, 0, SCALE)) - x).max() < CLOSE
    galois, relinearisation = secret.save_evaluation_keys([1, 2], True)
    keys = secret.evaluation_keys([1, 2], True)
    assert len(galois) < 0.55 * len(dump(keys.galois))
    assert len(relinearisation) < 0.55 * len(dump(keys.relinearisation))


def test_the_same_value_is_never_encrypted_alike(secret: Secret) -> None:
    assert secret.upload(x, SCALE) != secret.upload(x, SCALE)


# --- 11: rotations leave their operand alone; numbers are given as lists ----------------------------------------------


def test_a_rotation_leaves_its_operand_whole(secret: Secret, evaluator: Evaluator) -> None:
    a = secret.encrypt(x, SCALE)
    before = dump(a)
    evaluator.rotate(a, 1)
    with pytest.raises(EncryptionError):
        evaluator.rotate(a, 5)
    assert dump(a) == before


def test_vectors_that_lie_in_memory_oddly_are_encoded_by_their_numbers(secret: Secret) -> None:
    wide = np.zeros((SLOTS, 3), dtype=np.float32)
    wide[:, 1] = x
    for view in (wide[:, 1], wide[::-1, 1][::-1], x.astype(">f8"), x.tolist()):
        assert np.abs(secret.decrypt(secret.encrypt(np.asarray(view), SCALE)) - x).max() < CLOSE
