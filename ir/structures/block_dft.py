"""Toeplitz products by a transform over blocks: three real matrix products instead of one large one.

Cut into blocks of p, a Toeplitz matrix is block Toeplitz with Toeplitz blocks: y[I,i] = sum g[(I-J)*p + i-j] x[J,j].
Over the block index this is a convolution, which a discrete Fourier transform of L >= I+J-1 points takes apart (odd L,
so that only frequency 0 is its own mirror image):

    X[f,q,j]  = sum over J of cos(2 pi f J / L + q pi/2) x[J,j]          # q = 0: real part, q = 1: imaginary part
    Z[f,q',i] = sum over q, j of G[f,q',q,i-j] X[f,q,j]                  # G: that of g, as [[re,-im],[im,re]]
    y[I,i]    = sum over f, q of w[f]/L cos(2 pi f I / L + q pi/2) Z[f,q,i]

With p near the square root of n these are 8 n^1.5 multiplications instead of n^2, all in products of matrices that are
large enough to run near the peak of a machine; the transform inside a block would save more arithmetic and lose that.
It is Cooley and Tukey's first step (1965), stopped there. Real or complex operands alike: the identities have real
coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod

from ..expr import Const, Expr, Map, Position
from ..functions import CAST
from ..index import Affine
from ..types import F64, I64
from .build import Builder, Value
from .operator import Atom, Operand, Term
from .slot import Slot, slot, var


def block_length(rows: int, cols: int, inside: tuple[int, int]) -> int:
    """The block length with the fewest multiplications; `inside` are rows and columns of what stands in each entry.

    >>> block_length(4096, 4096, (1, 1))
    64
    """
    most = max(rows, cols)
    tried: list[int] = [*range(1, 16), *range(16, most + 1, 16), most]
    return min(tried, key=lambda p: _multiplications(rows, cols, inside, p))


def _multiplications(rows: int, cols: int, inside: tuple[int, int], p: int) -> int:
    above, across = -(-rows // p), -(-cols // p)
    half = (above + across) // 2
    return 2 * half * (across * p * inside[1] + 2 * p * p * inside[0] * inside[1] + above * p * inside[0])


def blocked(b: Builder, x: Value, t: Value, rows: Sequence[int], cols: Sequence[int], turned: Sequence[bool]) -> Value:
    """y = T x for x of shape batch + `cols`; `t` is T's generator over i-j+cols-1 at each level, `turned` reverses x.

    The first level is cut into blocks and transformed, the others are applied as they stand.
    """
    depth = len(rows)
    m, n = rows[0], cols[0]
    p = block_length(m, n, (prod(rows[1:]), prod(cols[1:])))
    above, across = -(-m // p), -(-n // p)
    points = above + across - 1
    points += 1 - points % 2
    half = (points + 1) // 2
    batch = x.shape[: len(x.shape) - depth]
    seen = _transform(b, "blocks", half, points, across, 0)
    made = _transform(b, "generator", half, points, above + across - 1, 1 - across)
    back = _transform(b, "back", half, points, above, 0, weighted=True)

    # X[f,batch,q,j,...]: the orders of axes in which each product finds long runs, and few tensors are laid out anew
    f, q, block, j = b.indices((half, 2, across, p))
    outer, inner = b.indices(batch), b.indices(cols[1:])
    place = slot([(block, p), (j, 1)])
    places = [slot((), n - 1).plus(place, -1) if turned[0] else place]
    places += [slot([(k, -1)], c - 1) if w else var(k) for k, c, w in zip(inner, cols[1:], turned[1:], strict=True)]
    out = [f, *outer, q, j, *inner]
    read = Atom(x.name, (*map(var, outer), *places))
    X = b.let(_extents(b, out), map(var, out), [Term(1, (Atom(seen, tuple(map(var, (f, q, block)))), read))], x.complex)

    # T[f,q,e,...], e = i-j+p-1
    f, q, lag, e = b.indices((half, 2, above + across - 1, 2 * p - 1))
    inner = b.indices(t.shape[1:])
    out = [f, q, e, *inner]
    read = Atom(t.name, (slot([(lag, p), (e, 1)], n - across * p), *map(var, inner)))
    T = b.let(_extents(b, out), map(var, out), [Term(1, (Atom(made, tuple(map(var, (f, q, lag)))), read))], t.complex)

    # G[f,q',q,e,...] and Z[batch,f,q',i,...]: the blocks are Toeplitz too, so that they are never spread out
    f, to, q, part, e = b.indices((half, 2, 2, 2, 2 * p - 1))
    inner = b.indices(t.shape[1:])
    b.operands["complex.product"] = Operand((2, 2, 2), _PRODUCT)
    atoms = (
        Atom("complex.product", tuple(map(var, (to, q, part)))),
        Atom(T.name, tuple(map(var, (f, part, e, *inner)))),
    )
    out = [f, to, q, e, *inner]
    G = b.let(_extents(b, out), map(var, out), [Term(1, atoms)], T.complex)
    f, to, q, i, j = b.indices((half, 2, 2, p, p))
    ii, jj = b.indices(rows[1:]), b.indices(cols[1:])
    entry: list[Slot] = [slot([(i, 1), (j, -1)], p - 1)]
    entry += [slot([(r, 1), (c, -1)], b.extents[c] - 1) for r, c in zip(ii, jj, strict=True)]
    outer = b.indices(batch)
    product = (
        Atom(G.name, (var(f), var(to), var(q), *entry)),
        Atom(X.name, tuple(map(var, (f, *outer, q, j, *jj)))),
    )
    out = [*outer, f, to, i, *ii]
    Z = b.let(_extents(b, out), map(var, out), [Term(1, product)], G.complex or X.complex)

    # y
    f, q, block, i = b.indices((half, 2, above, p))
    outer, inner = b.indices(batch), b.indices(rows[1:])
    read = Atom(Z.name, tuple(map(var, (*outer, f, q, i, *inner))))
    whole = [*map(var, outer), slot([(block, p), (i, 1)]), *map(var, inner)]
    shape = (*batch, above * p, *rows[1:])
    y = b.let(shape, whole, [Term(1, (Atom(back, tuple(map(var, (f, q, block)))), read))], Z.complex)
    if above * p == m:
        return y
    kept = b.indices((*batch, *rows))
    return b.let((*batch, *rows), map(var, kept), [Term(1, (Atom(y.name, tuple(map(var, kept))),))], y.complex)


def _extents(b: Builder, indices: Sequence[str]) -> list[int]:
    return [b.extents[k] for k in indices]


def _transform(b: Builder, way: str, half: int, points: int, places: int, first: int, weighted: bool = False) -> str:
    """The name of the operand cos(2 pi f (s + first) / points + q pi/2), over f < half, q < 2 and s < places.

    The angle is reduced as an integer number of quarter steps, so that it is exact up to its last rounding. With
    `weighted`, times 2/points (1/points at frequency 0): the way back.
    """
    name = f"dft.{way}.{points}.{places}.{first}"
    f, q, s = (Map(CAST, (Position(Affine.of(a)),), I64) for a in ("0", "1", "2"))
    place: Expr = Map("add", (s, Const(first, I64)), I64) if first else s
    turns = Map("mul", (Const(4, I64), Map("mul", (f, place), I64)), I64)
    angle = Map(CAST, (Map("add", (turns, Map("mul", (q, Const(points, I64)), I64)), I64),), F64)
    round_ = Const(float(4 * points), F64)
    whole = Map("mul", (Map("floor", (Map("div", (angle, round_), F64),), F64), round_), F64)
    rest = Map("sub", (angle, whole), F64)
    value: Expr = Map("cos", (Map("mul", (rest, Const(2 * pi / (4 * points), F64)), F64),), F64)
    if weighted:
        twice = Map("add", (Const(1.0, F64), Map(CAST, (Map("sign", (f,), I64),), F64)), F64)
        value = Map("mul", (value, Map("div", (twice, Const(float(points), F64)), F64)), F64)
    b.operands[name] = Operand((half, 2, places), value)
    return name


def _product_signs() -> Expr:
    """1 - |q + part - to| over the axes to, q, part: (re, im) of a product of complex numbers."""
    to, q, part = (Map(CAST, (Position(Affine.of(a)),), I64) for a in ("0", "1", "2"))
    distance = Map("abs", (Map("sub", (Map("add", (q, part), I64), to), I64),), I64)
    return Map("sub", (Const(1, I64), distance), I64)


_PRODUCT = _product_signs()
