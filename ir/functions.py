"""Elementwise functions of the IR: name, number of arguments, type rule and meaning in NumPy.

`Map` nodes, semirings and backends all refer to a function by its name here; a backend that can compile a new function
needs one entry here and one in its own table. The names are NumPy's where NumPy has the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .types import BOOL, F64, DType, promote, real_type


@dataclass(frozen=True)
class Function:
    """One elementwise function. `rule` gives the result type from the promoted argument type:

    same: that type; float: that type, integers and bool give f64; bool: always bool; real: the real type of it;
    select: the promotion of the arguments after the first. `additive` functions let a sum pass (`conj(a+b)`);
    `zero_preserving` ones map 0 to 0 (rule R19).
    """

    name: str
    arity: int
    numpy: Callable[..., Any]
    rule: str = "same"
    additive: bool = False
    zero_preserving: bool = False
    commutative: bool = False

    def result(self, dtypes: tuple[DType, ...]) -> DType:
        """The type of the result for arguments of `dtypes`."""
        if self.rule == "bool":
            return BOOL
        joint = promote(*(dtypes[1:] if self.rule == "select" else dtypes))
        if self.rule == "float" and joint.kind in "biu":
            return F64
        return real_type(joint) if self.rule == "real" else joint


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(np.asarray(x).dtype)


def _erf(x: Any) -> Any:
    from scipy.special import erf

    return erf(x)


def _gelu(x: Any) -> Any:
    return (0.5 * x * (1 + _erf(x / np.sqrt(2.0)))).astype(np.asarray(x).dtype)


def _logical_not(x: Any) -> Any:
    return np.logical_not(x)


def _logaddexp(a: Any, b: Any) -> Any:
    return np.logaddexp(a, b)


_ALL = (
    # arithmetic
    Function("add", 2, np.add, commutative=True),
    Function("sub", 2, np.subtract),
    Function("mul", 2, np.multiply, commutative=True),
    Function("div", 2, np.divide, "float"),
    Function("pow", 2, np.power),
    Function("neg", 1, np.negative, additive=True, zero_preserving=True),
    Function("maximum", 2, np.maximum, commutative=True),
    Function("minimum", 2, np.minimum, commutative=True),
    Function("logaddexp", 2, _logaddexp, "float", commutative=True),
    # logic
    Function("logical_or", 2, np.logical_or, "bool", commutative=True),
    Function("logical_and", 2, np.logical_and, "bool", commutative=True),
    Function("logical_not", 1, _logical_not, "bool"),
    Function("eq", 2, np.equal, "bool", commutative=True),
    Function("ne", 2, np.not_equal, "bool", commutative=True),
    Function("lt", 2, np.less, "bool"),
    Function("le", 2, np.less_equal, "bool"),
    Function("gt", 2, np.greater, "bool"),
    Function("ge", 2, np.greater_equal, "bool"),
    Function("where", 3, np.where, "select"),
    Function("clip", 3, lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi)),
    # transcendental and rounding
    Function("exp", 1, np.exp, "float"),
    Function("log", 1, np.log, "float"),
    Function("sqrt", 1, np.sqrt, "float", zero_preserving=True),
    Function("abs", 1, np.abs, "real", zero_preserving=True),
    Function("sign", 1, np.sign, zero_preserving=True),
    Function("sin", 1, np.sin, "float", zero_preserving=True),
    Function("cos", 1, np.cos, "float"),
    Function("tanh", 1, np.tanh, "float", zero_preserving=True),
    Function("sigmoid", 1, _sigmoid, "float"),
    Function("relu", 1, lambda x: np.maximum(x, np.zeros((), np.asarray(x).dtype)), zero_preserving=True),
    Function("gelu", 1, _gelu, "float", zero_preserving=True),
    Function("silu", 1, lambda x: x * _sigmoid(x), "float", zero_preserving=True),
    Function("erf", 1, _erf, "float", zero_preserving=True),
    Function("floor", 1, np.floor, zero_preserving=True),
    Function("ceil", 1, np.ceil, zero_preserving=True),
    Function("round", 1, np.round, zero_preserving=True),
    Function("conj", 1, np.conj, additive=True, zero_preserving=True),
    Function("real", 1, np.real, "real", additive=True, zero_preserving=True),
    Function("imag", 1, np.imag, "real", additive=True, zero_preserving=True),
)
FUNCTIONS: dict[str, Function] = {f.name: f for f in _ALL}

# `cast` is the one function whose result type is not a function of its arguments: `Map.dtype` says it.
CAST = "cast"
