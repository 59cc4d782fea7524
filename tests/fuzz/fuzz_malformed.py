"""Malformed calls: each must raise a ValueError or TypeError whose text names the label, operand or keyword at fault.

Outside the compiler. `malformed` makes one of some thirty kinds from a seeded generator, with random labels and sizes.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True)
class Malformed:
    """A wrong call; the message must hold one of `names` (any case), unless `names` is empty."""

    kind: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    names: tuple[str, ...]

    def code(self) -> str:
        """A runnable snippet; arrays are shown by shape, since their values do not matter."""
        shown = [f"np.ones({a.shape}, {str(a.dtype)!r})" if isinstance(a, np.ndarray) else repr(a) for a in self.args]
        shown += [
            f"{k}={f'np.ones({v.shape}, {str(v.dtype)!r})' if isinstance(v, np.ndarray) else repr(v)}"
            for k, v in self.keywords.items()
        ]
        return f"import numpy as np, stein\nstein.einsum({', '.join(shown)})"


def _letters(rng: Rng, count: int) -> list[str]:
    return [str(x) for x in rng.permutation(list(string.ascii_letters))[:count]]


def _ones(*shape: int, dtype: str = "float64") -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype)


def _operand(k: int) -> tuple[str, ...]:
    return (f"operand {k}", f"operand{k}", f"operands[{k}]")


def malformed(rng: Rng) -> Malformed:
    """One wrong call."""
    kinds = list(KINDS)
    kind = kinds[int(rng.integers(len(kinds)))]
    args, keywords, names = KINDS[kind](rng)
    return Malformed(kind, args, keywords, names)


Made = tuple[tuple[Any, ...], dict[str, Any], tuple[str, ...]]


def _size_mismatch(rng: Rng) -> Made:
    i, j, k = _letters(rng, 3)
    n = int(rng.integers(2, 9))
    return (f"{i}{j},{j}{k}->{i}{k}", _ones(3, n), _ones(n + 1, 4)), {}, (f"'{j}'",)


def _size_mismatch_lists(rng: Rng) -> Made:
    n, j = int(rng.integers(2, 9)), int(rng.integers(3, 20))
    return (_ones(3, n), [0, j], _ones(n + 2, 4), [j, 1], [0, 1]), {}, (str(j), string.ascii_letters[j], "operand")


def _diagonal_mismatch(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}{i}->{i}", _ones(2, int(rng.integers(3, 7)))), {}, (f"'{i}'",)


def _diagonal_of_one(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}{i}", _ones(1, int(rng.integers(2, 7)))), {}, (f"'{i}'",)


def _unknown_output(rng: Rng) -> Made:
    i, j, k = _letters(rng, 3)
    return (f"{i}{j}->{i}{k}", _ones(2, 3)), {}, (f"'{k}'",)


def _output_twice(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->{i}{j}{i}", _ones(2, 3)), {}, (f"'{i}'",)


def _diagonal_output(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->{i}{i}", _ones(int(rng.integers(1, 5)))), {}, (f"'{i}'",)


def _too_few(rng: Rng) -> Made:
    i, j, k = _letters(rng, 3)
    return (f"{i}{j},{j}{k}->{i}{k}", _ones(2, 3)), {}, ("operand",)


def _too_many(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->{i}", *[_ones(2, 3)] * int(rng.integers(2, 5))), {}, ("operand",)


def _too_few_axes(rng: Rng) -> Made:
    i, j, k = _letters(rng, 3)
    return (f"{i}{j},{i}{j}{k}->{i}", _ones(2, 3), _ones(2, 3)), {}, _operand(1)


def _too_many_axes(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i},{i}{j}->{j}", _ones(2), _ones(2, 3, 2)), {}, _operand(1)


def _axes_under_dots(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"...{i}{j}->...", _ones(3)), {}, (*_operand(0), f"...{i}{j}")


def _two_dots(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}..{j}->{i}", _ones(2, 3)), {}, ("..", "ellipsis")


def _dots_twice(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"...{i}...->{i}", _ones(2, 3)), {}, ("...", "ellipsis")


def _dots_from_nowhere(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->...{i}{j}...", _ones(2, 3)), {}, ("...", "ellipsis")


def _dots_mismatch(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    n = int(rng.integers(2, 6))
    return (f"...{i},...{i}->...", _ones(n, 4), _ones(n + 1, 4)), {}, ("ellipsis", "...")


def _punctuation(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    bad = str(rng.choice(list("%&$#@!?/|~")))
    return (f"{i}{bad}{j}->{i}", _ones(2, 3, 4)), {}, (f"'{bad}'", bad)


def _two_arrows(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->{i}->{j}", _ones(2, 3)), {}, ("->",)


def _half_arrow(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}{rng.choice(['-', '>', '=>'])}{i}", _ones(2, 3)), {}, ("'-'", "'>'", "'='", "->", "'=>'")


def _no_operands(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->",), {}, ("operand",)


def _not_a_string(rng: Rng) -> Made:
    return (int(rng.integers(9)), _ones(2)), {}, ("int", "string", "list")


def _nothing(rng: Rng) -> Made:
    return (), {}, ("expression", "operand", "argument")


def _nones(rng: Rng) -> Made:
    return (None,) * int(rng.integers(2, 64)), {}, ("none", "string", "list")


def _float_label(rng: Rng) -> Made:
    return (_ones(2, 3), [0, 0.5]), {}, ("0.5", "float")


def _list_label(rng: Rng) -> Made:
    return (_ones(2, 3), [0, ["a"]]), {}, ("list", "'a'")


def _strings_as_operand(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i},{j}->{i}", _ones(1), np.array(["text"])), {}, (*_operand(1), "str", "<u4")


def _bad_order(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    bad = str(rng.choice(list("WZX")))
    return (f"{i}->", _ones(2)), {"order": bad}, ("order", bad)


def _bad_casting(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->", _ones(2)), {"casting": "blah"}, ("casting", "blah")


def _bad_dtype(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->", _ones(2)), {"dtype": "no_type"}, ("no_type", "dtype")


def _unsafe_dtype(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    narrow = str(rng.choice(["float32", "int64", "int8", "float16"]))
    return (f"{i}{j}->{i}", _ones(2, 3)), {"dtype": narrow}, (narrow, "f32", "i64", "i8", "f16", "casting", "safe")


def _bad_keyword(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->", _ones(2)), {"bad_arg": 0}, ("bad_arg",)


def _bad_optimize(rng: Rng) -> Made:
    i, j, k, m = _letters(rng, 4)  # three operands: NumPy looks at `optimize` only where there is a choice
    operands = (_ones(2, 3), _ones(3, 2), _ones(2, 4))
    return (f"{i}{j},{j}{k},{k}{m}->{i}{m}", *operands), {"optimize": "no-such"}, ("no-such", "optimize", "path")


def _bad_semiring(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->{i}", _ones(2, 3)), {"semiring": "maxpluss"}, ("maxpluss", "semiring")


def _bad_out_shape(rng: Rng) -> Made:
    i, j, k = _letters(rng, 3)
    out = _ones(2, int(rng.integers(3, 9)))
    return (f"{i}{j},{j}{k}->{i}{k}", _ones(2, 3), _ones(3, 2)), {"out": out}, ("out",)


def _bad_out_type(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    return (f"{i}{j}->{i}", _ones(2, 3)), {"out": _ones(2, dtype="int32")}, ("out", "int32", "i32", "cast")


def _out_is_text(rng: Rng) -> Made:
    (i,) = _letters(rng, 1)
    return (f"{i}->", _ones(2)), {"out": "test"}, ("out",)


def _out_read_only(rng: Rng) -> Made:
    i, j = _letters(rng, 2)
    out = _ones(2)
    out.flags.writeable = False
    return (f"{i}{j}->{i}", _ones(2, 3)), {"out": out}, ("out", "read-only", "writ")


KINDS: dict[str, Callable[[Rng], Made]] = {
    f.__name__[1:].replace("_", " "): f
    for f in (
        _size_mismatch, _size_mismatch_lists, _diagonal_mismatch, _diagonal_of_one, _unknown_output, _output_twice,
        _diagonal_output, _too_few, _too_many, _too_few_axes, _too_many_axes, _axes_under_dots, _two_dots, _dots_twice,
        _dots_from_nowhere, _dots_mismatch, _punctuation, _two_arrows, _half_arrow, _no_operands, _not_a_string,
        _nothing, _nones, _float_label, _list_label, _strings_as_operand, _bad_order, _bad_casting, _bad_dtype,
        _unsafe_dtype, _bad_keyword, _bad_optimize, _bad_semiring, _bad_out_shape, _bad_out_type, _out_is_text,
        _out_read_only,
    )
}  # fmt: skip
