"""The table of 128-bit security, and that nothing gets past it."""

from __future__ import annotations

import pytest

from stein.backends.ckks.chain.parameters import USUAL_RINGS, Parameters, chain
from stein.backends.ckks.chain.security import LIMITS, check_security, limit
from stein.ir.errors import EncryptionError


def test_the_table_is_the_standards() -> None:
    # Homomorphic encryption standard (2018), table 1, ternary secret, classical, 128 bits.
    assert LIMITS == {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}


@pytest.mark.parametrize("ring", LIMITS)
def test_one_bit_more_is_refused(ring: int) -> None:
    check_security(ring, LIMITS[ring])
    with pytest.raises(EncryptionError, match=f"the product of W needs {LIMITS[ring] + 1} bits") as caught:
        check_security(ring, LIMITS[ring] + 1, "the product of W")
    assert caught.value.code == "insecure-parameters"


def test_the_refusal_names_a_ring_that_would_do() -> None:
    with pytest.raises(EncryptionError) as caught:
        check_security(8192, 300)
    assert caught.value.help == "ring 16384 allows 438 bits"


def test_unknown_rings_are_refused() -> None:
    with pytest.raises(EncryptionError, match="no ring of degree 5000"):
        limit(5000)


def test_parameters_cannot_be_insecure() -> None:
    with pytest.raises(EncryptionError, match="220 bits") as caught:
        Parameters(8192, (60, 40, 60, 60))
    assert caught.value.code == "insecure-parameters"


def test_chosen_chains_are_secure() -> None:
    for ring in USUAL_RINGS:
        for levels in range(12):
            for largest in (1.0, 64.0, 1e4, 1e9):
                found = chain(ring, levels, largest)
                assert found is None or sum(found.bits) <= LIMITS[ring]


def test_the_table_is_no_laxer_than_seal() -> None:
    seal = pytest.importorskip("tenseal.sealapi", reason="encrypted programs need tenseal")
    for ring, bits in LIMITS.items():
        assert bits <= seal.CoeffModulus.MaxBitCount(ring, seal.SEC_LEVEL_TYPE.TC128)
