"""The functions that `Linalg` nodes name: shapes, types, what they cost, and their meaning in plain NumPy.

The language has `solve`, `inv`, `logdet` and `powm`. The others are parts that the solvers of `passes.solve` are made
of: an eigendecomposition, a Schur form, a banded matrix kept by its diagonals, divisors and bases that are looked at
before they are used. A matrix argument has the shape (..., n, n): leading axes are a batch, as in `numpy.linalg`.
`evaluate` is the definition, written to be read; a backend calls LAPACK and is held to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, TypeAlias

import numpy as np

from .errors import SingularError
from .expr import Structure
from .types import DType, real_type

Array: TypeAlias = "np.ndarray[Any, Any]"
Shape: TypeAlias = "tuple[Any, ...]"  # numbers, or `Size` values where only shapes are asked for

TYPES = ("f32", "f64", "c64", "c128")  # what LAPACK computes in
LANGUAGE = {"solve": 2, "inv": 1, "logdet": 1, "powm": 2}  # the functions of the language and their arguments
PART = "part"  # in `assume`: the matrix is a part of one that is solved in parts


@dataclass(frozen=True)
class Function:
    """One function: the fewest arguments, the shape of the value, its operations, its meaning, its kind of type.

    `matrix` is the place of the argument that must be square (None: there is none). `kind` is "same" for the type of
    the first argument, "real" for its real type, "complex" for its complex type.
    """

    arity: int
    shape: Callable[[Sequence[Shape]], Shape]
    operations: Callable[[Sequence[Shape]], int]
    meaning: Callable[[Sequence[Array], tuple[Structure, ...]], Array]
    matrix: int | None = 0
    kind: str = "same"
    variadic: bool = False

    def result(self, dtype: DType) -> DType:
        """The type of the value for a first argument of `dtype`."""
        from .types import C64, C128

        if self.kind == "complex":
            return C64 if dtype.bits <= 32 or dtype == C64 else C128
        return real_type(dtype) if self.kind == "real" else dtype


def evaluate(function: str, args: Sequence[Array], assume: tuple[Structure, ...] = ()) -> Array:
    """The value for arrays of the shapes that the function takes; `SingularError` where there is none.

    >>> evaluate("solve", [np.diag([2.0, 4.0]), np.array([2.0, 2.0])])
    array([1. , 0.5])
    """
    try:
        return FUNCTIONS[function].meaning(args, assume)
    except np.linalg.LinAlgError:
        raise of_part(SingularError("the matrix is singular", code="singular", help=HELP), assume) from None
    except SingularError as error:
        raise of_part(error, assume) from None


def of_part(error: SingularError, assume: Sequence[Structure]) -> SingularError:
    """The error as what it is where the matrix is a part of the user's, which may not be singular itself."""
    if not any(s.name == PART for s in assume):
        return error
    sentence = error.sentence.replace("the matrix is singular", "the matrix is solved in parts, and one is singular")
    return SingularError(sentence, code=error.code, help="give the matrix as one argument to solve it as a whole")


HELP = "add a multiple of the identity, or use a larger type"


def option(assume: Sequence[Structure], name: str, key: str) -> int:
    """The value of an option of an assumed structure (`banded(lo=1, hi=2)`).

    >>> from .size import Size
    >>> option([Structure("banded", (("lo", Size.of(1)),))], "banded", "lo")
    1
    """
    value = next(dict(s.options)[key] for s in assume if s.name == name).constant
    assert value is not None, f"{key} of {name} is no number"
    return value


def product_terms(assume: Sequence[Structure]) -> tuple[tuple[int, ...], ...]:
    """For each term of `solve_kronecker`, the factors that it has; where it has none of a digit, the identity stands.

    >>> from .size import ONE, ZERO
    >>> product_terms([Structure("term", (("factor", ZERO), ("factor", ONE))), Structure("term")])
    ((0, 1), ())
    """
    return tuple(tuple(v.evaluate({}) for _, v in s.options) for s in assume if s.name == "term")


def checked_divisors(values: Array) -> Array:
    """The same values; `SingularError` if one is zero (nothing can be divided by it).

    >>> checked_divisors(np.array([1.0, -2.0]))
    array([ 1., -2.])
    """
    if values.size and not np.all(values):
        place = [int(k) for k in np.argwhere(values == 0)[0]]
        raise SingularError(
            f"the matrix is singular: entry {place} of its diagonal form is 0", code="singular", help=HELP
        )
    return values


def checked_powers(values: Array, power: Any) -> Array:
    """values ** power for the eigenvalues of a positive semidefinite matrix.

    What rounding made of a zero (up to n times the machine epsilon times the largest) counts as zero. `SingularError`
    for a negative power of zero, and for a power of a negative eigenvalue that is not whole (complex ones have them).

    >>> checked_powers(np.array([4.0, 9.0]), 0.5)
    array([2., 3.])
    """
    whole = float(power).is_integer()
    work = np.array(values)
    if not whole or power < 0:
        largest = float(np.max(np.abs(work), initial=0.0))
        noise = len(work.reshape(-1)) * np.finfo(work.dtype).eps * largest
        work[np.abs(work) <= noise] = 0
        if power < 0 and not np.all(work):
            raise SingularError(f"the matrix is singular, it has no power {power:g}", code="singular", help=HELP)
        if not whole and work.dtype.kind == "f" and np.any(work < 0):
            raise SingularError(
                f"the matrix has the eigenvalue {float(np.min(work)):.3g}, so it has no real power {power:g}",
                code="negative-eigenvalue",
                help="powm takes a symmetric positive semidefinite matrix; add a multiple of the identity",
            )
    powers: Array = (work ** np.asarray(power).astype(work.dtype)).astype(values.dtype)
    return powers


def from_diagonals(bands: Array, lower: int, upper: int) -> Array:
    """The square matrix whose diagonals are the rows of `bands`: bands[upper + i - j, j] stands at [i, j].

    >>> from_diagonals(np.array([[0, 7, 8], [1, 2, 3]]), 0, 1)
    array([[1, 7, 0],
           [0, 2, 8],
           [0, 0, 3]])
    """
    n = bands.shape[1]
    out = np.zeros((n, n), bands.dtype)
    for d in range(-lower, upper + 1):
        for j in range(max(0, d), min(n, n + d)):
            out[j - d, j] = bands[upper - d, j]
    return out


def circulant(column: Array) -> Array:
    """The circulant matrix with this first column.

    >>> circulant(np.array([1, 2, 3]))
    array([[1, 3, 2],
           [2, 1, 3],
           [3, 2, 1]])
    """
    n = np.arange(len(column))
    return np.asarray(column[np.mod(n[:, None] - n, max(len(column), 1))])


def circulant_power(column: Array, power: float) -> Array:
    """The first column of a power of a circulant matrix, by the discrete Fourier transform.

    `SingularError` for a negative power of a singular matrix, and where a real matrix has no real power: some value of
    its transform is negative, and the power is not whole.

    >>> circulant_power(np.array([2.0, 0.0, 0.0]), 2).tolist()
    [4.0, 0.0, 0.0]
    """
    values = np.fft.fft(column)
    real = column.dtype.kind == "f"
    eps = np.finfo(column.dtype).eps
    size = np.abs(values)
    if power < 0 and size.size and not size.min() > eps * size.max():
        raise SingularError(f"the matrix is singular, it has no power {power:g}", code="singular", help=HELP)
    if real and not float(power).is_integer():
        check_axis(values, power, column.dtype)
    found = np.fft.ifft(values ** complex(power) if not float(power).is_integer() else values ** int(power))
    return np.asarray(found.real if real else found).astype(column.dtype)


# --- meanings ---------------------------------------------------------------------------------------------------------


def _solve(args: Sequence[Array], assume: tuple[Structure, ...]) -> Array:
    matrix, right = known_part(args[0], assume), args[1]
    if right.ndim == matrix.ndim:
        return np.asarray(np.linalg.solve(matrix, right))
    return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])


def known_part(matrix: Array, assume: Sequence[Structure]) -> Array:
    """The part of a matrix that a declaration leaves: the other triangle of a triangular one is not looked at."""
    names = {s.name for s in assume}
    if "lower" in names:
        matrix = np.tril(matrix)
    return np.triu(matrix) if "upper" in names else matrix


def _logdet(args: Sequence[Array], assume: tuple[Structure, ...]) -> Array:
    return np.asarray(np.linalg.slogdet(known_part(args[0], assume))[1], real_type_of(args[0]))


def real_type_of(array: Array) -> np.dtype[Any]:
    """The NumPy type of the real parts."""
    return np.dtype(array.real.dtype)


def _powm(args: Sequence[Array], assume: tuple[Structure, ...]) -> Array:
    matrix, power = known_part(args[0], assume), args[1].item()
    if matrix.ndim > 2:
        flat = matrix.reshape(-1, *matrix.shape[-2:])
        return np.array([_powm([m, args[1]], assume) for m in flat], matrix.dtype).reshape(matrix.shape)
    if float(power).is_integer():
        return np.asarray(np.linalg.matrix_power(matrix, int(power)))
    symmetric = matrix.dtype.kind == "f" and any(s.name == "symmetric" for s in assume)
    if symmetric or np.array_equal(matrix, matrix.conj().T):
        values, vectors = np.linalg.eigh(matrix)
        powers = checked_powers(values.astype(matrix.dtype), power)
        return np.asarray((vectors * powers) @ vectors.conj().T)
    return general_power(matrix, power)


def general_power(matrix: Array, power: float) -> Array:
    """A fractional power of any square matrix by SciPy; `SingularError` where a real matrix has none that is real."""
    from scipy.linalg import fractional_matrix_power

    if not np.isfinite(power):
        return np.full_like(matrix, np.nan)
    found = np.asarray(fractional_matrix_power(matrix, power))
    if not np.all(np.isfinite(found)):
        raise SingularError(f"the matrix is singular, it has no power {power:g}", code="singular", help=HELP)
    if found.dtype.kind == "c" and matrix.dtype.kind != "c":
        check_axis(np.linalg.eigvals(matrix), power, matrix.dtype)
        found = found.real
    return found.astype(matrix.dtype)


def check_axis(values: Array, power: float, dtype: np.dtype[Any]) -> None:
    """`SingularError` if an eigenvalue is negative and real, up to rounding: a real matrix has no real root then."""
    noise = len(values) * np.finfo(dtype).eps * np.max(np.abs(values), initial=0.0)
    if np.any((np.abs(values.imag) <= noise) & (values.real < -noise)):
        raise SingularError(
            f"the matrix has eigenvalues on the negative axis, so it has no real power {power:g}",
            code="negative-eigenvalue",
            help="declare it c128",
        )


def _schur(args: Sequence[Array], place: int) -> Array:
    from scipy.linalg import schur

    kind = np.result_type(args[0].dtype, np.complex64)
    return np.asarray(schur(args[0].astype(kind), output="complex")[place])


def _solve_kronecker(args: Sequence[Array], assume: tuple[Structure, ...]) -> Array:
    right, terms = args[0], product_terms(assume)
    coefficients, factors = args[1 : 1 + len(terms)], args[1 + len(terms) :]
    size = prod(len(f) for f in factors)
    total = np.zeros((size, size), right.dtype)
    for c, term in zip(coefficients, terms, strict=True):
        parts = [f if k in term else np.eye(len(f)) for k, f in enumerate(factors)]
        total = total + c * reduce(np.kron, parts)
    return np.asarray(np.linalg.solve(total, right.reshape(size, -1))).reshape(right.shape)


def _banded(args: Sequence[Array], assume: tuple[Structure, ...]) -> Array:
    return from_diagonals(args[0], option(assume, "banded", "lo"), option(assume, "banded", "hi"))


# --- the table --------------------------------------------------------------------------------------------------------


def _cube(shapes: Sequence[Shape]) -> int:
    return prod((*shapes[0], shapes[0][-1]))


def _columns(shapes: Sequence[Shape]) -> int:
    matrix, right = shapes[0], shapes[1]
    return int(right[-1]) if len(right) == len(matrix) else 1


def _transform(shapes: Sequence[Shape]) -> int:
    n = int(shapes[0][0])
    return 10 * n * n.bit_length()


def _first(shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


FUNCTIONS: Mapping[str, Function] = {
    "solve": Function(
        2, lambda s: s[1], lambda s: 2 * _cube(s) // 3 + 2 * prod(s[0]) * _columns(s), _solve
    ),
    "inv": Function(1, _first, lambda s: 2 * _cube(s), lambda a, k: np.linalg.inv(known_part(a[0], k))),
    "logdet": Function(1, lambda s: s[0][:-2], lambda s: 2 * _cube(s) // 3, _logdet, kind="real"),
    "powm": Function(2, _first, lambda s: 11 * _cube(s), _powm),
    "eigenvalues": Function(
        1, lambda s: s[0][:-1], lambda s: 4 * _cube(s) // 3, lambda a, _: np.linalg.eigvalsh(a[0]), kind="real"
    ),
    "eigenvectors": Function(1, _first, lambda s: 23 * _cube(s) // 3, lambda a, _: np.linalg.eigh(a[0])[1]),
    "schur_form": Function(1, _first, lambda s: 10 * _cube(s), lambda a, _: _schur(a, 0), kind="complex"),
    "schur_vectors": Function(1, _first, lambda s: 15 * _cube(s), lambda a, _: _schur(a, 1), kind="complex"),
    "solve_kronecker": Function(
        2,
        _first,
        lambda s: prod(s[0]) * sum(m[0] for m in s[1:] if len(m) == 2),
        _solve_kronecker,
        None,
        variadic=True,
    ),
    "solve_banded": Function(
        2,
        lambda s: s[1],
        lambda s: 2 * prod(s[0]) * (s[0][0] + 2 * _columns(s)),
        lambda a, k: _solve([_banded(a, k), a[1]], ()),
        None,
    ),
    "logdet_banded": Function(
        1, lambda s: (), lambda s: 2 * prod(s[0]) * s[0][0], lambda a, k: _logdet([_banded(a, k)], ()), None, "real"
    ),
    "solve_circulant": Function(
        2,
        lambda s: s[1],
        lambda s: 10 * prod(s[1]) * int(s[0][0]).bit_length(),
        lambda a, _: _solve([circulant(a[0]), a[1]], ()),
        None,
    ),
    "logdet_circulant": Function(
        1, lambda s: (), _transform, lambda a, _: _logdet([circulant(a[0])], ()), None, "real"
    ),
    "power_circulant": Function(2, _first, _transform, lambda a, _: circulant_power(a[0], a[1].item()), None),
    "divisors": Function(1, _first, lambda s: 0, lambda a, _: checked_divisors(a[0]), None),
    "powers": Function(2, _first, lambda s: prod(s[0]), lambda a, _: checked_powers(a[0], a[1].item()), None),
}  # fmt: skip
