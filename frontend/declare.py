"""What is said about a tensor before it is used: declarations in the text, keywords of `stein.compile`, or both.

Here sizes written as text become `Size` values and structures are checked against the list of known ones. The two
sources of one tensor are merged in `scope`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..ir.errors import NOWHERE, EinsumSyntaxError, ShapeError, Source, Span, StructureError
from ..ir.expr import Structure
from ..ir.size import Size
from ..ir.types import DType
from . import syntax as s
from .parser import parse_items, parse_size

# Every structure of the language with its options; `block` may be one size or one per axis. A declaration is trusted:
# what the values are is only looked at with `check=True`. `hadamard` of a power of two is Sylvester's matrix.
STRUCTURES: dict[str, tuple[str, ...]] = dict.fromkeys(
    [
        "diag",
        "lower",
        "upper",
        "symmetric",
        "toeplitz",
        "hankel",
        "circulant",
        "permutation",
        "orthogonal",
        "hadamard",
        "vandermonde",
        "psd",
        "doubly_stochastic",
        "unit",
        "mask",
        "identity",
        "zeros",
        "ones",
    ],
    (),
) | {"bsr": ("block", "pad"), "blockdiag": ("block",), "banded": ("lo", "hi"), "lowrank": ("r",), "monarch": ("b",)}
SPECIAL = ("identity", "zeros", "ones")  # known without a value: no arguments
SQUARE = frozenset({"circulant", "symmetric", "permutation", "hadamard", "psd", "doubly_stochastic"})
AXES = {"mask": 0, "zeros": 0, "ones": 0, "unit": 1}  # the last axes that a structure speaks of; 2 for all others


@dataclass(frozen=True)
class Declaration:
    """What a keyword of `stein.compile` says about a tensor.

    `shape` holds integers and size expressions (`"n"`, `"2*n-1"`) per axis; None (as for `dtype`) says nothing.

    >>> Declaration(("n", 4), None).const
    False
    """

    shape: tuple[int | str, ...] | None = None
    dtype: DType | None = None
    structure: tuple[Structure, ...] = ()
    const: bool = False
    encrypted: bool = False


def near(word: str, words: Iterable[str]) -> str:
    """A hint with the nearest spelling, "" if none is near.

    >>> near("blok", ["block", "pad"])
    "did you mean 'block'?"
    """
    match = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f"did you mean {match[0]!r}?" if match else ""


def parse_structure(text: str) -> tuple[Structure, ...]:
    """The structures of a text such as `"bsr(block=32)"` or `"lower toeplitz"`; "" gives none.

    Raises `StructureError` for an unknown structure or option, `EinsumSyntaxError` for a text that is none.

    >>> parse_structure("banded(lo=1, hi=2)")[0].name
    'banded'
    """
    if not text.strip():
        return ()
    items, source = parse_items(text)
    out = []
    for item in items:
        if not isinstance(item, s.Word):
            raise StructureError(
                f"'{source.text[item.span.start : item.span.end]}' is no structure",
                code="structure",
                source=source,
                spans=(item.span,),
                help="give types and sizes as shape= and dtype=",
            )
        out.append(structure_of(item, source))
    return tuple(out)


def parse_extent(value: int | str) -> Size:
    """One axis of a shape: an integer, or a size expression.

    >>> str(parse_extent("2*n - 1"))
    '2*n-1'
    """
    if not isinstance(value, str):
        size = int(value)
        if size < 0:
            raise ShapeError(f"an axis of size {size}", code="negative-size", help="sizes are 0 or more")
        return Size.of(size)
    tree, source = parse_size(value)
    return size_of(tree, source)


def size_of(tree: s.IndexExpr, source: Source) -> Size:
    """The size that an expression of size names stands for."""
    match tree:
        case s.IndexName(name=name):
            return Size.name(name)
        case s.IndexNumber(value=value):
            return Size.of(value)
        case s.IndexNegative(operand=operand):
            return -size_of(operand, source)
        case s.IndexBinary(operator=operator, left=left, right=right):
            a, b = size_of(left, source), size_of(right, source)
            if len(a.terms) * len(b.terms) > 1000:
                raise EinsumSyntaxError("this size is too long", code="too-long", source=source, spans=(tree.span,))
            return a + b if operator == "+" else a - b if operator == "-" else a * b
    raise AssertionError(tree)


def structure_of(word: s.Word, source: Source) -> Structure:
    """The structure that a word of a declaration names. A block per axis is the option twice, in order of axes."""
    name = word.name.text
    if name not in STRUCTURES:
        _fail(
            f"there is no structure '{name}'",
            source,
            word.name.span,
            near(name, STRUCTURES) or "structures: " + ", ".join(STRUCTURES),
        )
    options: list[tuple[str, Size]] = []
    for arg in word.args or ():
        if not isinstance(arg, s.Keyword):
            _fail(f"options of {name} are named", source, arg.span, _options_help(name))
        option = arg.name.text
        if option not in STRUCTURES[name]:
            _fail(
                f"{name} has no option '{option}'",
                source,
                arg.name.span,
                near(option, STRUCTURES[name]) or _options_help(name),
            )
        if any(option == o for o, _ in options):
            _fail(f"option '{option}' is given twice", source, arg.name.span, "give it once")
        values: Sequence[s.Value] = arg.value.items if isinstance(arg.value, s.Tuple) else (arg.value,)
        if len(values) > 1 and option != "block":
            _fail(f"{option} is one size", source, arg.value.span, f"{option}=1")
        options += [(option, _option_size(v, source)) for v in values]
    return Structure(name, tuple(options), word.span)


def _options_help(name: str) -> str:
    options = STRUCTURES[name]
    return f"{name}({', '.join(o + '=' for o in options)})" if options else f"{name} takes no options"


def _option_size(value: s.Value, source: Source) -> Size:
    match value:
        case s.Number(value=int(number)):
            return Size.of(number)
        case s.Access(name=name, slots=None):
            return Size.name(name.text)
        case s.Binary(operator=operator, left=left, right=right) if operator.text in "+-*":
            a, b = _option_size(left, source), _option_size(right, source)
            return a + b if operator.text == "+" else a - b if operator.text == "-" else a * b
    _fail("an option is a size", source, value.span, "a whole number or a size name")


def _fail(sentence: str, source: Source, span: Span, help: str) -> NoReturn:
    raise StructureError(sentence, code="structure", source=source, spans=() if span == NOWHERE else (span,), help=help)
