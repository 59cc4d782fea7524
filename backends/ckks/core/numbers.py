"""Products of ciphertexts with numbers: by additions where the number is a small integer, which takes no level."""

from __future__ import annotations

from ....ir.errors import NOWHERE, Span
from .circuit import Builder

MOST_ADDED = 16  # integers up to this are multiplied by additions


def is_whole(number: float) -> bool:
    """Whether the product with a number takes additions alone.

    >>> is_whole(-3.0), is_whole(0.5), is_whole(1000.0)
    (True, False, False)
    """
    return number == int(number) and 0 < abs(number) <= MOST_ADDED


def times(builder: Builder, value: int, number: float, span: Span = NOWHERE) -> int:
    """The product with an integer for which `is_whole` holds."""
    assert is_whole(number)
    left, power, total = abs(int(number)), value, None
    while True:
        if left & 1:
            total = power if total is None else builder.add(total, power, span)
        left >>= 1
        if not left:
            break
        power = builder.add(power, power, span)
    assert total is not None
    return builder.negate(total, span) if number < 0 else total
