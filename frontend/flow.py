"""Information flow: which values of a program are encrypted, and what may not be done with those.

`encrypted` spreads through every operation. Under CKKS there are sums, products and polynomials only: no comparison, no
max or min, no division by an encrypted value; other functions need `approx` (language page 3.3, rule 13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from ..ir.errors import EncryptionError, Span
from ..ir.functions import FUNCTIONS
from ..ir.types import parse_dtype
from . import syntax as s
from .build import CALLABLE
from .promotion import COMPARISONS
from .scope import Scope

_POLYNOMIAL = ("kron", "approx")


@dataclass(frozen=True)
class Flow:
    """Follows encryption through the expressions of one program."""

    scope: Scope

    def encrypted(self, node: s.Argument) -> bool:
        """Whether the value of `node` is encrypted. Raises `EncryptionError` for what cannot be evaluated."""
        if isinstance(node, s.Access):
            tensor = self.scope.tensors.get(node.name.text)
            return tensor is not None and tensor.encrypted
        if isinstance(node, s.Call) and node.function.text == "approx":
            return node.body is not None and self.encrypted(node.body)
        below = [self.encrypted(p) for p in s.parts(node)]
        if not any(below):
            return False
        match node:
            case s.Binary(operator=operator) if operator.text == "/" and below[1]:
                self._fail(
                    "division by an encrypted value", operator.span, "multiply by approx of its inverse, or decrypt"
                )
            case s.Binary(operator=operator) if operator.text in COMPARISONS:
                self._fail("comparison of an encrypted value cannot be evaluated under CKKS", operator.span)
            case s.Binary(operator=operator, right=right) if operator.text == "^":
                whole = isinstance(right, s.Number) and isinstance(right.value, int) and right.value > 0
                if below[1] or not whole:
                    self._fail(
                        "an encrypted value has whole positive powers only", operator.span, "x^2, x^3, ..., or approx"
                    )
            case s.Reduce(operation=operation) if operation.text not in ("sum", "prod"):
                self._fail(f"{operation.text} of an encrypted value cannot be evaluated under CKKS", node.span)
            case s.Call(function=function):
                self._check_call(function.text, node.span, function.span)
        return True

    def _check_call(self, name: str, span: Span, place: Span) -> None:
        function = FUNCTIONS.get(CALLABLE.get(name, ""))
        if name in _POLYNOMIAL or parse_dtype(name) is not None or (function is not None and function.additive):
            return
        if function is None or function.arity != 1:
            self._fail(f"{name} of an encrypted value cannot be evaluated under CKKS", span)
        self._fail(
            f"{name} of an encrypted value is no polynomial", place, f"approx({name}, degree=3, range=-8..8)(...)"
        )

    def _fail(self, sentence: str, span: Span, help: str = "decrypt first") -> NoReturn:
        self.scope.fail(EncryptionError, sentence, "encrypted", span, help=help)
