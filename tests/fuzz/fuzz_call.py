"""One call of the einsum under test: the expression, the operands, the spelling and the keywords.

Outside the compiler. Labels are integers here; `Call.arguments` spells them as a string or as interleaved lists. What
the call should return is computed by `fuzz_oracle`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from fuzz_operands import Array, Operand, numpy_dtype

Term = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """einsum(expression, *operands, **keywords).

    `terms` and `output` are lists of labels; `batch` holds the labels that "..." stands for (a suffix of them in each
    operand named in `dotted`). `implicit` leaves the output away. `style` is "string", "spaced", "lists", "unicode",
    "hashable" or "named" (`names=True`). `out` is the recipe of an array passed as `out=`, or the number of an operand
    that is overwritten.
    """

    terms: tuple[Term, ...]
    output: Term
    operands: tuple[Operand, ...]
    style: str = "string"
    batch: Term = ()
    dotted: tuple[bool, ...] = ()
    implicit: bool = False
    keywords: tuple[tuple[str, Any], ...] = ()
    out: Operand | int | None = None

    @property
    def semiring(self) -> str:
        """The semiring's name."""
        return str(dict(self.keywords).get("semiring", "plustimes"))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the result."""
        given = dict(self.keywords).get("dtype")
        return numpy_dtype(given) if given is not None else result_dtype(self.operands)

    @property
    def is_view(self) -> bool:
        """Nothing is computed: NumPy returns a view of the one operand."""
        return (
            len(self.terms) == 1 and set(self.terms[0]) == set(self.output) and not self.keywords and self.out is None
        )

    def sizes(self) -> dict[int, int]:
        """The length of each label, where 1 gives way."""
        sizes: dict[int, int] = {}
        for term, operand in zip(self.terms, self.operands, strict=True):
            for label, n in zip(term, operand.shape, strict=True):
                if sizes.get(label, 1) == 1:
                    sizes[label] = n
        return sizes

    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        sizes = self.sizes()
        return tuple(sizes[label] for label in self.output)

    def spelling(self) -> tuple[Any, ...]:
        """The expression: one string, or a list per operand and one for the output (absent if implicit)."""
        dots = self.dotted or (False,) * len(self.terms)
        sides = [self._side(t, d) for t, d in zip(self.terms, dots, strict=True)]
        output = [] if self.implicit else [self._side(self.output, bool(self.batch))]
        if self.style in ("lists", "hashable"):
            return (*sides, *output)
        if self.style == "named":
            parts = [" ".join(str(x) for x in side) for side in (*sides, *output)]
        else:
            gap = " " if self.style == "spaced" else ""
            parts = [gap.join(str(x) for x in side) for side in (*sides, *output)]
        text = ("," if self.style != "spaced" else " , ").join(parts[: len(sides)])
        return (text if self.implicit else text + "->" + parts[-1],)

    def _side(self, term: Term, dotted: bool) -> list[Any]:
        side: list[Any] = []
        for label in term:
            if label in self.batch:
                if dotted and "..." not in side and Ellipsis not in side:
                    side.append(Ellipsis if self.style in ("lists", "hashable") else "...")
                continue
            side.append(self._label(label))
        if dotted and not any(label in self.batch for label in term):
            side.insert(0, Ellipsis if self.style in ("lists", "hashable") else "...")
        return side

    def _label(self, label: int) -> Any:
        if self.style == "lists":
            return label
        if self.style == "hashable":
            return f"bond{label:03d}"
        if self.style == "named":
            return f"axis_{label}"
        if self.style == "unicode":
            return chr(0x3B1 + label) if label < 17 else chr(0x4E00 + label)
        return string.ascii_letters[label] if label < 52 else chr(0xC0 + 0x40 + label)

    def arguments(self, arrays: list[Any], out: Array | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for the einsum under test."""
        keywords = dict(self.keywords)
        if self.style == "named":
            keywords["names"] = True
        if "dtype" in keywords:
            keywords["dtype"] = numpy_dtype(keywords["dtype"])
        if out is not None:
            keywords["out"] = out
        spelling = self.spelling()
        if self.style in ("lists", "hashable"):
            pairs = [x for pair in zip(arrays, spelling, strict=False) for x in pair]
            return (*pairs, *spelling[len(arrays) :]), keywords
        return (*spelling, *arrays), keywords

    def code(self) -> str:
        """A runnable snippet of the call (from the root of the repository)."""
        lines = ['import sys; sys.path.insert(0, "tests/fuzz")', "import numpy as np, stein"]
        lines.append("from fuzz_operands import Operand")
        lines += [f"a{i} = {operand!r}.build()" for i, operand in enumerate(self.operands)]
        names = [_Name(f"a{i}") for i in range(len(self.operands))]
        args, keywords = self.arguments(list(names), None)
        extra = [f"{k}={v!r}" if k != "dtype" else f"dtype={str(v)!r}" for k, v in keywords.items()]
        if isinstance(self.out, int):
            extra.append(f"out=a{self.out}")
        elif self.out is not None:
            lines.append(f"out = {self.out!r}.build()")
            extra.append("out=out")
        lines.append(f"r = stein.einsum({', '.join([*(repr(a) for a in args), *extra])})")
        lines.append("print(r)")
        return "\n".join(lines)


class _Name:
    """Prints as a bare name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Scenario:
    """Calls that belong together: made in order, or by `threads` threads at once; checked after all were made.

    With `mutate`, the operands of a call are overwritten once it has returned: no earlier result may change.
    """

    name: str
    calls: tuple[Call, ...]
    threads: int = 1
    mutate: bool = False
    notes: str = field(default="", compare=False)


def result_dtype(operands: tuple[Operand, ...]) -> np.dtype[Any]:
    """The promotion of all operand types, by NumPy's rules (bfloat16 as in `stein.ir.types.promote`)."""
    names = {o.dtype for o in operands}
    if "bfloat16" in names:
        from stein.ir.types import dtype_of, promote

        return promote(*(dtype_of(numpy_dtype(n)) for n in names)).numpy
    return np.result_type(*(np.dtype(n) for n in names))


def with_implicit_output(call: Call) -> Call:
    """The call without an output: the labels that occur once, in the order of their spelling."""
    counts: dict[int, int] = {}
    for term in call.terms:
        for label in term:
            counts[label] = counts.get(label, 0) + 1
    single = [x for x, n in counts.items() if n == 1 and x not in call.batch]
    ordered = sorted(single, key=call._label)
    return replace(call, output=(*call.batch, *ordered), implicit=True)
