"""R17: results that equal themselves with two axes exchanged, such as a Gram matrix `G[i,j] = X[k,i]*X[k,j]`.

A fact about the equation, proved by its form: exchanging the two indices everywhere gives the same canonical text. A
backend may compute half of the result and mirror it.
"""

from __future__ import annotations

from itertools import combinations

from ..ir.expr import Equation, substitute
from ..ir.index import Affine
from .common import key
from .tools import is_plain


def symmetric_axes(equation: Equation) -> tuple[tuple[int, int], ...]:
    """The pairs of axes whose exchange provably leaves the result as it is.

    Only indices of equal extent that have an axis to themselves are tried. A form that the canonical text does not see
    through is not found; what is found holds in exact arithmetic, and in floating point up to the order of the sum.

    >>> from ..ir.text import parse_ir
    >>> gram = "G[i, j]: f64[n, n] = einsum[plustimes, f64](k; X[k, i], X[k, j]) over i<n, j<n, k<m"
    >>> symmetric_axes(parse_ir(f"input X: f64[m, n]\\n{gram}\\nreturn G").equations[0])
    ((0, 1),)
    """
    if not is_plain(equation):
        return ()
    own = None
    found = []
    for (a, first), (b, second) in combinations(enumerate(s.bare for s in equation.slots), 2):
        if first is None or second is None or equation.extents[first] != equation.extents[second]:
            continue
        own = key(equation.expr, equation.extents) if own is None else own
        exchanged = substitute(equation.expr, {first: Affine.of(second), second: Affine.of(first)})
        if key(exchanged, equation.extents) == own:
            found.append((a, b))
    return tuple(found)
