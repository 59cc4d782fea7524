"""Text of the named language -> `syntax.Program`.

Lark parses by `einsum.lark` (LALR, contextual lexer); the tree is then turned into `syntax` nodes. Lark is imported,
and its tables are built, on first use; parsed programs are cached by text. A tree is refused when it is nested too
deep for the recursive passes behind, so that hostile input gets an error with a place and never a `RecursionError`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NoReturn

from ..ir.errors import EinsumSyntaxError, Source, Span
from ..ir.semiring import Scalar
from . import syntax as s
from .lists import has_list, written_out

if TYPE_CHECKING:
    from lark import Lark, Token, Tree
    from lark.exceptions import UnexpectedInput

REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "logsumexp", "softmax")
RESERVED = frozenset({*REDUCTIONS, "for", "in", "over", "mod", "return"})
MAX_DEPTH = 150  # nested nodes; the terms of one sum and the factors of one product count as nesting
MAX_DIGITS = 300
_OPEN, _CLOSE = {"(": ")", "[": "]"}, {")": "(", "]": "["}
_DANGLING = frozenset(
    [
        "PLUS",
        "MINUS",
        "MUL",
        "STAR",
        "POW",
        "CMP",
        "ASSIGN",
        "ACCUMULATE",
        "COMMA",
        "COLON",
        "MOD",
        "EQUAL",
        "FOR",
        "IN",
        "OVER",
        "__ANON_0",
        "RETURN",
        "ARROW",
    ]
)


def parse_program(text: str, name: str = "<program>") -> s.Program:
    """Parse a program; `name` stands for the text in messages. Raises `EinsumSyntaxError` with the place.

    >>> parse_program("y[i] = A[i,k]*x[k]").statements[0].target.text
    'y'
    """
    return _parse_cached(text, name)


@lru_cache(maxsize=256)
def _parse_cached(text: str, name: str) -> s.Program:
    source = Source(name, text)
    return written_out(_Reader(source).program(_parse(source, "program")))


def parse_items(text: str, name: str = "<structure>") -> tuple[tuple[s.Item, ...], Source]:
    """Parse the items of a declaration alone: `bsr(block=32)`, `const lower`."""
    source = Source(name, text)
    tree = _parse(source, "items")
    return tuple(_Reader(source).item(c) for c in tree.children if not isinstance(c, str)), source


def parse_size(text: str, name: str = "<shape>") -> tuple[s.IndexExpr, Source]:
    """Parse one size of a shape: `2*n-1`."""
    source = Source(name, text)
    child = _parse(source, "size").children[0]
    assert not isinstance(child, str)
    return _Reader(source).index(child), source


class Separators:
    """The post-lexer: newline and `;` end a statement, but a newline inside brackets or after an operator does not."""

    always_accept = ("_SEP",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Drop the separators that end nothing, collapse runs."""
        depth, last = 0, ""
        for token in stream:
            depth += (token.type in ("LPAR", "LSQB")) - (token.type in ("RPAR", "RSQB"))
            if token.type == "_SEP" and (
                last in ("", "_SEP") or (str(token) == "\n" and (depth > 0 or last in _DANGLING))
            ):
                continue
            last = token.type
            yield token


class NoSeparators:
    """The post-lexer of classic strings, where a newline is white space."""

    always_accept = ("_SEP",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Drop newlines."""
        return (t for t in stream if not (t.type == "_SEP" and str(t) == "\n"))


def grammar() -> str:
    """The text of `einsum.lark`."""
    return resources.files(__package__).joinpath("einsum.lark").read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def lark_parser(start: str) -> Lark:
    """Lark's parser for one start of the grammar (`program`, `items`, `size`, `einsum`, `einsum_names`)."""
    from lark import Lark

    separators = NoSeparators() if start.startswith("einsum") else Separators()
    return Lark(
        grammar(), parser="lalr", lexer="contextual", start=start, postlex=separators,
        propagate_positions=True, maybe_placeholders=True,
    )  # fmt: skip


def _parse(source: Source, start: str) -> Tree[Token]:
    from lark.exceptions import UnexpectedInput

    try:
        tree = lark_parser(start).parse(source.text)
    except UnexpectedInput as error:
        _explain(source, error)
    _check_depth(tree, source)
    return tree


def _check_depth(tree: Tree[Token], source: Source) -> None:
    level: list[Any] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise EinsumSyntaxError(
                f"this is nested more than {MAX_DEPTH} deep",
                code="too-deep",
                source=source,
                spans=(_span(level[0]),),
                help="give inner parts a name in statements of their own",
            )
        level = [c for t in level for c in t.children if hasattr(c, "children")]


# ---------------------------------------------------------------- messages

_SHOWN = {
    "NAME": "a name", "NUMBER": "a number", "LPAR": "'('", "RPAR": "')'", "LSQB": "'['", "RSQB": "']'", "COMMA": "','",
    "COLON": "':'", "ASSIGN": "'='", "ACCUMULATE": "'+='", "_SEP": "the end of the line", "$END": "the end",
    "PLUS": "'+'",
    "MINUS": "'-'", "MUL": "'*'", "STAR": "'*'", "FOR": "'for'", "IN": "'in'", "OVER": "'over'", "__ANON_0": "'..'",
    "REDUCE": "a reduction", "ELLIPSIS": "'...'", "MOD": "'mod'", "RETURN": "'return'",
}  # fmt: skip


def _explain(source: Source, error: UnexpectedInput) -> NoReturn:
    """Raise our error for Lark's."""
    from lark.exceptions import UnexpectedToken

    text = source.text
    if not isinstance(error, UnexpectedToken):
        position: int = getattr(error, "pos_in_stream", None) or 0
        at = min(position, len(text))
        expected: set[str] = set(getattr(error, "allowed", None) or ())
        found = Span(at, at + 1)
    else:
        token = error.token
        expected = set(error.accepts or error.expected)
        at = len(text) if token.type == "$END" else token.start_pos or 0
        found = Span(at, at + max(1, len(token)))
    if at >= len(text):
        shown = "the end"
    else:
        shown = "the end of the line" if text[at] == "\n" else repr(text[found.start : found.end])
    opened = _open_bracket(text[:at])
    if opened is not None:
        closing = _OPEN[text[opened]]
        factor = re.search(r"\*\s*\w+\s*\[", text[opened + 1 : at]) if closing == "]" else None
        if factor and shown.startswith("the end"):  # an index times an element: the bracket was forgotten before it
            found, shown = Span(opened + factor.end(), opened + factor.end() + 1), repr("[")
        if {")": "RPAR", "]": "RSQB"}[closing] in expected:
            raise EinsumSyntaxError(
                f"'{closing}' expected before {shown}",
                code="syntax",
                source=source,
                spans=(found, Span(opened, opened + 1)),
                help=_bracket_help(text, opened, found),
            )
    glued = re.compile(r"[\d.]*\d\w+").match(text, at)
    if glued and expected & {"NUMBER"}:
        raise EinsumSyntaxError(
            f"{glued[0]!r} is no number",
            code="number",
            source=source,
            spans=(Span(at, glued.end()),),
            help="numbers are decimal (16, 0.5, 1e-3, 2j); a product needs its sign: 2*x",
        )
    words = sorted({_SHOWN.get(e, "") for e in expected} - {""})
    raise EinsumSyntaxError(
        f"{shown} cannot stand here",
        code="syntax",
        source=source,
        spans=(found,),
        help=f"expected {', '.join(words[:-1])}{' or ' if words[1:] else ''}{words[-1]}" if words else "",
    )


def _open_bracket(text: str) -> int | None:
    """Where the innermost bracket that is still open at the end of `text` stands."""
    stack: list[int] = []
    for match in re.finditer(r"#[^\n]*|[()\[\]]", text):
        if match[0] in _OPEN:
            stack.append(match.start())
        elif match[0] in _CLOSE and stack:
            stack.pop()
    return stack[-1] if stack else None


def _bracket_help(text: str, opened: int, found: Span) -> str:
    word = text[found.start : found.end]
    if word in ("mod", "%"):
        inside = text[opened + 1 : found.start].rpartition(",")[2].strip()
        return f"mod takes one name or a parenthesis: ({inside}) mod ..."
    if text[opened] == "[" and word in ("/", "^", "**"):
        return "a slot is a sum of indices times whole numbers or sizes"
    line, column = Source("", text).place(opened)
    return f"the '{text[opened]}' opened at {line}:{column} is not closed"


def _span(tree: Any) -> Span:
    meta = tree.meta if hasattr(tree, "children") else tree
    start = getattr(meta, "start_pos", None)
    return Span(0, 0) if start is None else Span(start, meta.end_pos)


# ---------------------------------------------------------------- tree -> nodes


class _Reader:
    """Turns Lark's trees into nodes; recursion is bounded by `MAX_DEPTH`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def fail(self, sentence: str, code: str, span: Span, help: str = "") -> NoReturn:
        raise EinsumSyntaxError(sentence, code=code, source=self.source, spans=(span,), help=help)

    def name(self, token: Any, reserved: bool = False) -> s.Name:
        text = unicodedata.normalize("NFKC", str(token))
        span = _span(token)
        if text in RESERVED and not reserved:
            self.fail(f"'{text}' is a reserved word", "reserved", span, "choose another name")
        if not text.isidentifier():
            self.fail(f"{text!r} is not a name", "name", span, "names are Python identifiers")
        return s.Name(text, span)

    def names(self, tree: Any) -> tuple[s.Name, ...]:
        return tuple(self.name(c) for c in tree.children)

    def number(self, token: Any) -> Scalar:
        text = str(token)
        if len(text) > MAX_DIGITS:
            self.fail(f"a number of {len(text)} characters", "number", _span(token), f"at most {MAX_DIGITS}")
        if text.endswith("j"):
            return complex(text)
        return int(text) if text.isdecimal() else float(text)

    # statements

    def program(self, tree: Any) -> s.Program:
        return s.Program(tuple(self.statement(c) for c in tree.children if c is not None), self.source)

    def statement(self, tree: Any) -> s.Statement:
        span = _span(tree)
        if tree.data == "decl":
            return s.Declare(self.names(tree.children[0]), tuple(self.item(c) for c in tree.children[1:]), span)
        if tree.data == "return_":
            return s.Return(self.names(tree.children[0]), span)
        left, operator, value, ranges, algebra = tree.children
        slots = None if left.children[1] is None else tuple(self.slot(c) for c in left.children[1].children)
        return s.Assign(
            self.name(left.children[0]),
            slots,
            str(operator) == "+=",
            self.expr(value),
            () if ranges is None else tuple(self.range(c) for c in ranges.children),
            None if algebra is None else self.name(algebra.children[0], reserved=True),
            _span(left),
            span,
        )

    def range(self, tree: Any) -> s.Range:
        name, low, high = tree.children
        return s.Range(self.name(name), self.index(low), self.index(high), _span(tree))

    def item(self, tree: Any) -> s.Item:
        span, name = _span(tree), self.name(tree.children[0])
        if tree.data == "array":
            return s.Array(name, tuple(self.dim(c) for c in tree.children[1:]), span)
        if tree.data == "option":
            _, sign, token = tree.children
            if token.type == "NAME" and str(token) != "inf":
                word = self.name(token)
                if sign is not None:
                    self.fail(f"'-{word.text}' is no value", "pad", word.span, "pad is a number, edge or wrap")
                return s.Option(name, word, span)
            value = float("inf") if token.type == "NAME" else self.number(token)
            return s.Option(name, value if sign is None else -value, span)
        if tree.data == "word_call":
            return s.Word(name, self.arguments(tree.children[1]), span)
        return s.Word(name, None, span)

    def dim(self, tree: Any) -> s.Dim:
        first, second = tree.children
        if second is None:
            return s.Dim(None, self.index(first), _span(tree))
        return s.Dim(self.index(first), self.index(second), _span(tree))

    # slots

    def slot(self, tree: Any) -> s.Slot:
        if tree.data == "modulo":
            value, modulus = self.index(tree.children[0], True), self.index(tree.children[2])
            if has_list(value):
                self.fail(
                    "a position that a tensor holds has no modulus here", "list-modulus", _span(tree),
                    "make a tensor of the remainders first",
                )  # fmt: skip
            return s.Modulo(value, modulus, _span(tree))
        if tree.data == "composite":
            return s.Composite(self.names(tree), span=_span(tree))
        if tree.data == "ellipsis":
            return s.Dots(_span(tree) if tree.children else Span(tree.meta.start_pos, tree.meta.end_pos))
        return self.index(tree, True)

    def index(self, tree: Any, slot: bool = False) -> s.IndexExpr:
        span, children = _span(tree), tree.children
        if tree.data == "ilist":
            if not slot:
                self.fail("a size is no element of a tensor", "size-element", span, "sizes are integers and names")
            slots = tuple(self.slot(c) for c in children[1].children)
            return s.IndexList(s.Access(self.name(children[0]), slots, span), span)
        if tree.data == "iname":
            return s.IndexName(self.name(children[0]).text, span)
        if tree.data == "inumber":
            value = self.number(children[0])
            if not isinstance(value, int):
                self.fail(f"{children[0]} is no whole number", "index-number", span, "an index is an integer")
            return s.IndexNumber(value, span)
        if tree.data == "ineg":
            return s.IndexNegative(self.index(children[1], slot), span)
        return s.IndexBinary(str(children[1]), self.index(children[0], slot), self.index(children[2], slot), span)

    # expressions

    def expr(self, tree: Any) -> s.Expr:
        span, children = _span(tree), tree.children
        match str(tree.data):
            case "paren":
                return self.expr(children[0])
            case "number":
                return s.Number(self.number(children[0]), span)
            case "access":
                slots = None if children[1] is None else tuple(self.slot(c) for c in children[1].children)
                return s.Access(self.name(children[0]), slots, span)
            case "call":
                name, args, body = children
                more = None if body is None else self.expr(body)
                return s.Call(self.name(name, reserved=True), self.arguments(args), more, span)
            case "bind" | "reduce":
                operation, names = children[0].children
                return s.Reduce(self.name(operation, reserved=True), self.names(names), self.expr(children[1]), span)
            case "sign":
                return s.Sign(self.operator(children[0]), self.expr(children[1]), span)
            case "transpose":
                return s.Transpose(self.expr(children[0]), _span(children[1]), span)
        left, operator, right = children
        return s.Binary(self.operator(operator), self.expr(left), self.expr(right), span)

    def operator(self, token: Any) -> s.Name:
        return s.Name("^" if str(token) == "**" else str(token), _span(token))

    def arguments(self, tree: Any) -> tuple[s.Argument, ...]:
        return () if tree is None else tuple(self.argument(c) for c in tree.children)

    def argument(self, tree: Any) -> s.Argument:
        if tree.data == "keyword":
            return s.Keyword(self.name(tree.children[0]), self.value(tree.children[-1]), _span(tree))
        return self.value(tree)

    def value(self, tree: Any) -> s.Value:
        if tree.data == "interval":
            return s.Interval(self.expr(tree.children[0]), self.expr(tree.children[1]), _span(tree))
        if tree.data == "tuple":
            return s.Tuple(tuple(self.expr(c) for c in tree.children), _span(tree))
        return self.expr(tree)
