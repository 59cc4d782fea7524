"""Reads programs: the reading half of `ir.text`, which describes the form.

A hand-written tokenizer and recursive descent; expressions get spans into the text, so that messages can point there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from .errors import EinsumSyntaxError, Source, Span
from .expr import (
    Approx,
    Const,
    Constraint,
    Einsum,
    Equation,
    Expr,
    Input,
    Linalg,
    Map,
    Pad,
    Position,
    Program,
    Read,
    SizeValue,
    Softmax,
    Structure,
)
from .functions import CAST
from .index import Affine, Index
from .semiring import ALL, PLUS_TIMES, PRODUCT, SEMIRINGS, Scalar, Semiring
from .size import Size
from .text_print import KEYWORDS, WORD, natural_type
from .types import DTYPES, I64, DType

T = TypeVar("T")

_TOKEN = re.compile(
    r'(?P<skip>[ \t\r]+|#[^\n]*)|(?P<line>\n)|(?P<string>"(?:[^"\\\n]|\\.)*")'
    rf"|(?P<name>{WORD})|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<mark>==|>=|[-+*=<:;,(){{}}\[\]])"
)


def parse_ir(text: str, semirings: Mapping[str, Semiring] | None = None, name: str = "<ir>") -> Program:
    """The program that a text in the form of `ir.text` says, with spans into that text.

    `semirings` adds those of the user by name. A text in another form raises `EinsumSyntaxError` with the place.
    Nothing is checked beyond the form (see `ir.check`).

    >>> program = parse_ir("input x: i8[n]\\ny: i8 = einsum[maxplus, i8](i; x[i]) over i<n\\nreturn y")
    >>> program.equations[0].extents
    {'i': Size(terms=((('n',), 1),))}
    """
    known = SEMIRINGS | {PRODUCT.name: PRODUCT, ALL.name: ALL} | dict(semirings or {})
    source = Source(name, text)
    try:
        return _Reader(source, _tokens(source), known).program()
    except RecursionError:
        raise EinsumSyntaxError("the text is nested too deeply", code="too-deep", source=source) from None


@dataclass(frozen=True)
class _Token:
    kind: str  # name, string, number, mark, line or end
    text: str
    span: Span


def _tokens(source: Source) -> list[_Token]:
    found, place, depth = [], 0, 0
    while place < len(source.text):
        match = _TOKEN.match(source.text, place)
        if match is None:
            span = Span(place, place + 1)
            raise EinsumSyntaxError("no token begins here", code="ir-syntax", source=source, spans=(span,))
        kind, text = str(match.lastgroup), match[0]
        depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
        if kind != "skip" and (kind != "line" or depth <= 0):
            found.append(_Token(kind, text, Span(place, match.end())))
        place = match.end()
    end = Span(place, place)
    return [*found, _Token("line", "", end), _Token("end", "", end)]


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, source: Source, tokens: list[_Token], semirings: Mapping[str, Semiring]) -> None:
        self.source, self.tokens, self.semirings = source, tokens, semirings
        self.at = 0
        self.types: dict[str, DType] = {}

    # tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def fail(self, sentence: str, token: _Token | None = None) -> EinsumSyntaxError:
        span = (token or self.next).span
        return EinsumSyntaxError(sentence, code="ir-syntax", source=self.source, spans=(span,))

    def take(self) -> _Token:
        token = self.next
        self.at += token.kind != "end"
        return token

    def sees(self, text: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.at + ahead, len(self.tokens) - 1)]
        return token.text == text and token.kind in ("name", "mark")

    def accept(self, text: str) -> bool:
        found = self.sees(text)
        self.at += found
        return found

    def expect(self, text: str) -> _Token:
        if not self.sees(text):
            raise self.fail(f"'{text}' expected")
        return self.take()

    def many(self, item: Callable[[], T], end: str) -> tuple[T, ...]:
        """Items between commas, up to and with `end`."""
        items: list[T] = []
        while not self.accept(end):
            if items:
                self.expect(",")
            items.append(item())
        return tuple(items)

    def listed(self, item: Callable[[], T]) -> tuple[T, ...]:
        """One or more items between commas."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        return tuple(items)

    def name(self) -> str:
        token = self.next
        if token.kind == "string":
            return self.string()
        if token.kind != "name" or token.text in KEYWORDS:
            raise self.fail("a name expected")
        return self.take().text

    def string(self) -> str:
        if self.next.kind != "string":
            raise self.fail("a text in quotes expected")
        try:
            return str(json.loads(self.next.text))
        except ValueError:
            raise self.fail("no such text in quotes (the form is JSON's)") from None
        finally:
            self.take()

    def dtype(self) -> DType:
        if self.next.text not in DTYPES:
            raise self.fail(f"a type expected, one of {', '.join(DTYPES)}")
        return DTYPES[self.take().text]

    def semiring(self) -> Semiring:
        token, name = self.next, self.name()
        if name not in self.semirings:
            raise self.fail(f"no semiring is called '{name}'; there are {', '.join(self.semirings)}", token)
        return self.semirings[name]

    def integer(self) -> int:
        token = self.next
        if token.kind != "number" or not token.text.isdecimal() or len(token.text) > 4000:
            raise self.fail("an integer expected")
        return int(self.take().text)

    # statements

    def program(self) -> Program:
        inputs: list[Input] = []
        equations: list[Equation] = []
        constraints: list[Constraint] = []
        outputs: tuple[str, ...] | None = None
        while self.next.kind != "end":
            if self.next.kind == "line":
                self.take()
                continue
            if self.accept("input"):
                inputs.append(self.input())
            elif self.accept("require"):
                constraints.append(self.constraint())
            elif self.sees("return") and outputs is None:
                self.take()
                outputs = () if self.next.kind == "line" else self.listed(self.name)
            else:
                equations.append(self.equation())
            if self.next.kind != "line":
                raise self.fail("the end of the line expected")
        if outputs is None:
            raise self.fail("no line says what to return")
        return Program(tuple(inputs), tuple(equations), outputs, tuple(constraints), self.source)

    def input(self) -> Input:
        const, encrypted, token = self.accept("const"), self.accept("encrypted"), self.next
        name = self.name()
        self.expect(":")
        dtype = self.types[name] = self.dtype()
        shape = self.sizes() if self.sees("[") else ()
        structures: list[Structure] = []
        while self.next.kind in ("name", "string") and not self.sees("pad") and not self.sees("origin"):
            structures.append(self.structure())
        pad: Pad | None = None
        if self.accept("pad"):
            self.expect("=")
            pad = self.pad()
        origin: tuple[Size, ...] = ()
        if self.accept("origin"):
            self.expect("=")
            origin = self.sizes()
        return Input(name, shape, dtype, tuple(structures), const, encrypted, pad, origin, token.span)

    def structure(self) -> Structure:
        begin, label = self.next, self.name()
        self.expect("(")
        return Structure(label, self.many(self.option, ")"), begin.span)

    def option(self) -> tuple[str, Size]:
        key = self.name()
        self.expect("=")
        return key, self.size()

    def equation(self) -> Equation:
        begin, name = self.next, self.name()
        slots = self.many(self.affine, "]") if self.accept("[") else ()
        self.expect(":")
        dtype = self.types[name] = self.dtype()
        shape = self.sizes() if self.sees("[") else ()
        self.expect("=")
        expr = self.expr()
        indices = self.listed(self.index) if self.accept("over") else ()
        semiring = self.semiring() if self.accept("in") else PLUS_TIMES
        update = self.name() if self.accept("updating") else None
        return Equation(name, slots, shape, indices, expr, dtype, semiring, update, self.since(begin))

    def index(self) -> Index:
        name = self.name()
        self.expect("<")
        return Index(name, self.size())

    def constraint(self) -> Constraint:
        begin, left = self.next, self.size()
        relation = self.take().text
        if relation not in ("==", ">=", "divides"):
            raise self.fail("'==', '>=' or 'divides' expected", self.tokens[self.at - 1])
        right = self.size()
        texts = {"code": "", "sentence": "", "help": ""}
        values: tuple[Size, ...] = ()
        while self.accept(","):
            key = self.take()
            self.expect("=")
            if key.text in texts:
                texts[key.text] = self.string()
            elif key.text == "values":
                values = self.sizes()
            else:
                raise self.fail("'code', 'sentence', 'help' or 'values' expected", key)
        code, sentence, help = texts.values()
        return Constraint(relation, left, right, code, sentence, help, values, (self.since(begin),))

    def since(self, begin: _Token) -> Span:
        return begin.span.to(self.tokens[self.at - 1].span)

    # expressions

    def expr(self) -> Expr:
        begin = self.next
        if begin.kind == "number" or begin.text in ("-", "inf", "nan", "true", "false", "complex"):
            value = self.number()
            self.expect(":")
            return Const(value, self.dtype(), self.since(begin))
        parsed = self.bare()
        dtype = self.dtype() if self.accept(":") else natural_type(parsed, self.types)
        if isinstance(parsed, Map) and parsed.function == CAST:
            dtype = parsed.dtype
        if dtype is None:
            raise self.fail("this expression needs a type (`:f32`)", begin)
        return replace(parsed, dtype=dtype, span=self.since(begin))

    def bare(self) -> Expr:
        """An expression but for its type, which is provisional."""
        if self.sees("size") and self.sees("(", 1):
            return SizeValue(self.within(self.size))
        if self.sees("at") and self.sees("(", 1):
            return Position(self.within(self.affine))
        if self.accept("einsum"):
            self.expect("[")
            semiring = self.semiring()
            self.expect(",")
            accumulate = self.dtype()
            self.expect("]")
            self.expect("(")
            bound = self.many(self.name, ";")
            return Einsum(bound, self.many(self.expr, ")"), accumulate, accumulate, semiring)
        if self.accept("softmax"):
            self.expect("[")
            along = self.many(self.name, "]")
            self.expect("(")
            body = self.expr()
            self.expect(")")
            return Softmax(along, body, body.dtype)
        if self.accept("linalg"):
            return self.linalg()
        if self.accept("cast"):
            self.expect("[")
            dtype = self.dtype()
            self.expect("]")
            return self.map(CAST, dtype)
        name = self.name()
        if self.sees("("):
            return self.map(name, I64)
        if not self.accept("["):
            raise self.fail("'(' or '[' expected")
        slots: list[Affine] = []
        while not self.sees("]") and not self.sees(";"):
            if slots:
                self.expect(",")
            slots.append(self.affine())
        pad: Pad | None = None
        if self.accept(";"):
            self.expect("pad")
            self.expect("=")
            pad = self.pad()
        self.expect("]")
        return Read(name, tuple(slots), I64, pad)

    def map(self, function: str, dtype: DType) -> Map:
        """The arguments of a function, perhaps with the leave to approximate it."""
        args: list[Expr] = []
        self.expect("(")
        while not self.sees(")") and not self.sees(";"):
            if args:
                self.expect(",")
            args.append(self.expr())
        approx: Approx | None = None
        if self.accept(";"):
            self.expect("approx")
            self.expect("=")
            degree = self.integer()
            self.expect(",")
            low = self.number()
            self.expect(",")
            high = self.number()
            if isinstance(low, complex) or isinstance(high, complex):
                raise self.fail("real bounds expected")
            approx = Approx(degree, low, high)
        self.expect(")")
        return Map(function, tuple(args), dtype, approx=approx)

    def linalg(self) -> Linalg:
        """A function of whole tensors: its name and what is assumed, then result, bound indices and arguments."""
        self.expect("[")
        function = self.name()
        assume: tuple[Structure, ...] = ()
        if self.accept(","):
            assume = self.listed(self.structure)
        self.expect("]")
        self.expect("(")
        result, bound = self.many(self.name, ";"), self.many(self.name, ";")
        return Linalg(function, result, bound, self.many(self.expr, ")"), I64, assume)

    def within(self, item: Callable[[], T]) -> T:
        """A keyword's argument in parentheses."""
        self.take()
        self.expect("(")
        inner = item()
        self.expect(")")
        return inner

    def pad(self) -> Pad:
        numeric = self.next.text in ("-", "inf", "nan", "true", "false", "complex") or self.next.kind == "number"
        return self.number() if numeric else self.name()  # type: ignore[return-value]  # complex and bool pads are numbers

    def number(self) -> Scalar:
        if self.accept("complex"):
            self.expect("(")
            parts = self.many(self.number, ")")
            if len(parts) != 2 or any(isinstance(p, complex) for p in parts):
                raise self.fail("complex(real, imaginary) expected")
            return complex(float(parts[0].real), float(parts[1].real))
        negative, token = self.accept("-"), self.take()
        if token.text in ("true", "false") and not negative:
            return token.text == "true"
        if token.text not in ("inf", "nan") and token.kind != "number":
            raise self.fail("a number expected", token)
        whole = token.text.isdecimal() and len(token.text) <= 4000
        value: int | float = int(token.text) if whole else float(token.text)
        return -value if negative else value

    # sizes and index expressions

    def sizes(self) -> tuple[Size, ...]:
        self.expect("[")
        return self.many(self.size, "]")

    def size(self) -> Size:
        negative = self.accept("-")
        total = self.size_product() * (-1 if negative else 1)
        while self.sees("+") or self.sees("-"):
            negative = self.take().text == "-"
            total = total + self.size_product() * (-1 if negative else 1)
        return total

    def size_product(self) -> Size:
        product = self.size_atom()
        while self.accept("*"):
            product = product * self.size_atom()
        return product

    def size_atom(self) -> Size:
        if self.accept("("):
            inner = self.size()
            self.expect(")")
            return inner
        if self.next.kind == "number":
            return Size.of(self.integer())
        token, name = self.next, self.name()
        if not self.accept("("):
            return Size.name(name)
        args = self.many(self.size, ")")
        if name == "floordiv" and len(args) == 2:
            if args[1].constant == 0:
                raise self.fail("a size is divided by 0", token)
            return args[0] // args[1]
        if name in ("min", "max") and args:
            return Size.least(args) if name == "min" else Size.greatest(args)
        raise self.fail("floordiv(size, size), min(sizes) or max(sizes) expected", token)

    def affine(self) -> Affine:
        if self.accept("("):
            inner = self.affine()
            self.expect(")")
            self.expect("mod")
            if inner.modulus is not None:
                raise self.fail("an expression has one modulus")
            return inner.mod(self.braced())
        negative = self.accept("-")
        total = self.affine_term() * (-1 if negative else 1)
        while self.sees("+") or self.sees("-"):
            negative = self.take().text == "-"
            total = total + self.affine_term() * (-1 if negative else 1)
        return total

    def affine_term(self) -> Affine:
        if self.next.kind != "number" and not self.sees("{"):
            return Affine.of(self.name())
        size = self.braced()
        return Affine.of(self.name()) * size if self.accept("*") else Affine.constant(size)

    def braced(self) -> Size:
        """A size inside an index expression."""
        if self.next.kind == "number":
            return Size.of(self.integer())
        self.expect("{")
        inner = self.size()
        self.expect("}")
        return inner
