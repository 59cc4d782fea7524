"""What is known of an operand, as words: how declarations of a program become facts of operands, and back.

A declaration `banded(lo=1, hi=2)` gives the words `banded`, `banded.lo=1` and `banded.hi=2`. Rules ask for the first
("is it declared banded?") and take figures from the others; all of them count in labels, since operands of other
bandwidths are other operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..expr import Structure
from ..size import Size


def words(structures: Iterable[Structure], sizes: Mapping[str, int]) -> frozenset[str]:
    """The words of some declarations at known sizes; an option whose size is not known is left out.

    >>> sorted(words([Structure("bsr", (("block", Size.name("b")),))], {"b": 32}))
    ['bsr', 'bsr.block=32']
    """
    found = set[str]()
    for s in structures:
        found.add(s.name)
        found.update(f"{s.name}.{k}={v.evaluate(sizes)}" for k, v in s.options if v.names <= sizes.keys())
    return frozenset(found)


def declarations(known: Iterable[str]) -> tuple[Structure, ...]:
    """The declarations that give these words, sorted by name.

    >>> [str(s.name) for s in declarations({"toeplitz", "unit"})]
    ['toeplitz', 'unit']
    """
    known = sorted(known)
    names = [w for w in known if "=" not in w]
    return tuple(Structure(n, tuple((k, Size.of(v)) for k, v in options(known, n).items())) for n in names)


def options(known: Iterable[str], name: str) -> dict[str, int]:
    """The options of one declaration.

    >>> options({"banded", "banded.lo=1", "banded.hi=0"}, "banded") == {"hi": 0, "lo": 1}
    True
    """
    found = {}
    for w in sorted(known):
        if w.startswith(f"{name}.") and "=" in w:
            key, value = w[len(name) + 1 :].split("=")
            found[key] = int(value)
    return found
