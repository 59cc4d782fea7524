"""How many bits a modulus chain may have: the limits of 128-bit security.

The table is that of the homomorphic encryption standard (Albrecht et al. 2018, table 1: ternary secret, classical
attacks, 128 bits). SEAL has one of its own and checks it too; every set of parameters passes through here first, so
that security never rests on how a library was called.
"""

from __future__ import annotations

from ....ir.errors import EncryptionError

LIMITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
RINGS = tuple(LIMITS)


def limit(ring: int) -> int:
    """The most bits that all primes of a chain in this ring may have together, the special one included.

    >>> limit(8192)
    218
    """
    if ring not in LIMITS:
        raise EncryptionError(
            f"there is no ring of degree {ring}",
            code="unknown-ring",
            help=f"rings with a known level of security have degree {', '.join(map(str, RINGS))}",
        )
    return LIMITS[ring]


def check_security(ring: int, bits: int, asked_by: str = "the modulus chain") -> None:
    """Refuse a chain below 128-bit security; `asked_by` says in the message what wants so many bits.

    Raises `EncryptionError`.

    >>> check_security(8192, 218)
    """
    most = limit(ring)
    if bits > most:
        larger = [r for r in RINGS if LIMITS[r] >= bits]
        raise EncryptionError(
            f"{asked_by} needs {bits} bits of modulus, but ring {ring} is secure (128 bits) up to {most}",
            code="insecure-parameters",
            help=f"ring {larger[0]} allows {LIMITS[larger[0]]} bits"
            if larger
            else "ask for fewer levels, or less precision",
        )
