"""Functions of matrices on the CPU: the leaves that no kernel of ours computes are calls of LAPACK through SciPy.

The runtime runs a program with `Linalg` equations in stages, kernels of ours and then leaves; `leaf` is one leaf. It
does what `ir.linalg.evaluate` says, with the algorithm that fits what is known of the matrix: Cholesky for a symmetric
one (LDL' where it is not positive definite), substitution for a triangular one, band elimination, LU for all others.
A matrix whose reciprocal condition number is below the machine epsilon counts as singular: no digit of a solution
would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ...ir.errors import SingularError
from ...ir.expr import Structure
from ...ir.linalg import (
    HELP,
    checked_divisors,
    checked_powers,
    circulant_power,
    general_power,
    of_part,
    option,
    product_terms,
)

Array: TypeAlias = "np.ndarray[Any, Any]"
Assumed: TypeAlias = "tuple[Structure, ...]"
Leaf: TypeAlias = "Callable[[Sequence[Array], Assumed], Array]"


def leaf(function: str, args: Sequence[Array], assume: Assumed = ()) -> Array:
    """The value of a function of `ir.linalg`; `SingularError` where the matrix has none.

    >>> leaf("solve", [np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([3.0, 4.0])])
    array([1., 1.])
    """
    try:
        return np.asarray(_LEAVES[function](args, assume), order="C")
    except np.linalg.LinAlgError:
        raise of_part(_singular(), assume) from None
    except SingularError as error:
        raise of_part(error, assume) from None


def method(function: str, assume: Assumed = ()) -> str:
    """What `explain` says of a leaf: the routine of LAPACK or SciPy.

    >>> method("solve"), method("solve", (Structure("lower"),))
    ('LU (gesv)', 'substitution (trtrs)')
    """
    names = {s.name for s in assume}
    if function in ("solve", "inv", "logdet"):
        if names & {"lower", "upper"}:
            return {"logdet": "product of the diagonal"}.get(function, "substitution (trtrs)")
        return "Cholesky (posv), else LDL' (sysv)" if "symmetric" in names else "LU (gesv)"
    if function == "powm":
        return "eigendecomposition (syevd)" if "symmetric" in names else "eigendecomposition or Schur form (gees)"
    return _METHODS[function]


_METHODS = {
    "eigenvalues": "eigendecomposition (syevd)",
    "eigenvectors": "eigendecomposition (syevd)",
    "schur_form": "Schur form (gees)",
    "schur_vectors": "Schur form (gees)",
    "solve_kronecker": "substitution over the Kronecker product of triangles",
    "solve_banded": "band LU (gbsv)",
    "logdet_banded": "band LU (gbtrf)",
    "solve_circulant": "fast Fourier transform",
    "logdet_circulant": "fast Fourier transform",
    "power_circulant": "fast Fourier transform",
    "divisors": "check for zeros",
    "powers": "elementwise power, checked",
}


def _lapack(name: str, *arrays: Array) -> Callable[..., Any]:
    from scipy.linalg import get_lapack_funcs

    found: Callable[..., Any] = get_lapack_funcs(name, arrays)
    return found


def _names(assume: Assumed, matrix: Array) -> frozenset[str]:
    """What is assumed, of a matrix of this type: symmetric is of use for real matrices only."""
    names = frozenset(s.name for s in assume)
    return names if matrix.dtype.kind == "f" else names - {"symmetric"}


def _singular(reason: str = "") -> SingularError:
    return SingularError("the matrix is singular" + reason, code="singular", help=HELP)


def _demand(matrix: Array, reciprocal: float) -> None:
    """`SingularError` for a reciprocal condition number that leaves no digit."""
    if not reciprocal >= np.finfo(matrix.dtype).eps:  # NaN too
        raise _singular(f" to working precision (reciprocal condition number {reciprocal:.1e})")


def _finite(matrix: Array) -> bool:
    return bool(np.isfinite(matrix).all())


# --- solve, inv, logdet -----------------------------------------------------------------------------------------------


def _solve(args: Sequence[Array], assume: Assumed) -> Array:
    matrix, right = args
    if matrix.ndim > 2:
        return _each(_solve, args, assume, 2)
    if 0 in (matrix.size, right.size):
        return np.zeros(right.shape, right.dtype)
    if not _finite(matrix):
        return np.full(right.shape, np.nan, right.dtype)
    names = _names(assume, matrix)
    if names & {"lower", "upper"}:
        return _solve_triangular(matrix, right, "lower" in names)
    if "symmetric" in names:
        return _solve_symmetric(matrix, right)
    lu, _, found, info = _lapack("gesv", matrix, right)(matrix, right)
    if info > 0:
        raise _singular()
    _demand(matrix, _lapack("gecon", matrix)(lu, np.abs(matrix).sum(axis=0).max())[0])
    return np.asarray(found).reshape(right.shape)


def _each(run: Leaf, args: Sequence[Array], assume: Assumed, parts: int) -> Array:
    """One value for each matrix of a batch; the first `parts` arguments have the batch axes."""
    lead = args[0].shape[:-2]
    flat = [a.reshape(prod(lead), *a.shape[len(lead) :]) for a in args[:parts]]
    found = [run([*(a[k] for a in flat), *args[parts:]], assume) for k in range(prod(lead))]
    if found:
        return np.stack(found).reshape(*lead, *found[0].shape)
    if run is _logdet:
        return np.zeros(lead, args[0].real.dtype)
    return np.zeros_like(args[1] if run is _solve else args[0])


def _solve_triangular(matrix: Array, right: Array, lower: bool) -> Array:
    if not np.diagonal(matrix).all():
        raise _singular(": a diagonal entry is 0")
    _demand(matrix, _lapack("trcon", matrix)(matrix, uplo="L" if lower else "U")[0])
    return np.asarray(_lapack("trtrs", matrix, right)(matrix, right, lower=lower)[0])


def _solve_symmetric(matrix: Array, right: Array) -> Array:
    norm = np.abs(matrix).sum(axis=0).max()
    columns = right.reshape(len(matrix), -1)
    factor, found, info = _lapack("posv", matrix, columns)(matrix, columns, lower=True)
    if info == 0:
        _demand(matrix, _lapack("pocon", matrix)(factor, norm, uplo="L")[0])
        return np.asarray(found).reshape(right.shape)
    factor, pivots, found, info = _lapack("sysv", matrix, columns)(matrix, columns, lower=True)
    if info > 0:
        raise _singular()
    _demand(matrix, _lapack("sycon", matrix)(factor, pivots, norm, lower=True)[0])
    return np.asarray(found).reshape(right.shape)


def _inv(args: Sequence[Array], assume: Assumed) -> Array:
    matrix = args[0]
    if matrix.ndim > 2:
        return _each(_inv, args, assume, 1)
    names = _names(assume, matrix)
    inverse = _solve([matrix, np.eye(len(matrix), dtype=matrix.dtype)], assume)
    if names & {"lower", "upper"}:  # zeros beyond the diagonal stay exact
        return np.tril(inverse) if "lower" in names else np.triu(inverse)
    return inverse


def _logdet(args: Sequence[Array], assume: Assumed) -> Array:
    matrix = args[0]
    if matrix.ndim > 2:
        return _each(_logdet, args, assume, 1)
    kind = matrix.real.dtype
    if not matrix.size:
        return np.zeros((), kind)
    names = _names(assume, matrix)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 is -inf, and NaN spreads
        if names & {"lower", "upper"}:
            return np.asarray(np.log(np.abs(np.diagonal(matrix))).sum(), kind)
        if "symmetric" in names:
            factor, info = _lapack("potrf", matrix)(matrix, lower=True)
            if info == 0:
                return np.asarray(2 * np.log(np.diagonal(factor)).sum(), kind)
        return np.asarray(np.linalg.slogdet(matrix)[1], kind)


# --- powers and decompositions ----------------------------------------------------------------------------------------


def _powm(args: Sequence[Array], assume: Assumed) -> Array:
    matrix, power = args[0], args[1].item()
    if matrix.ndim > 2:
        return _each(_powm, args, assume, 1)
    names = _names(assume, matrix)
    whole = float(power).is_integer()
    if whole and power >= 0:
        return np.asarray(np.linalg.matrix_power(matrix, int(power)))
    if whole:
        return np.asarray(np.linalg.matrix_power(_inv([matrix], assume), -int(power)))
    if "symmetric" in names or np.array_equal(matrix, matrix.conj().T):
        values, vectors = _eigh(matrix)
        powers = checked_powers(values.astype(matrix.dtype), power)
        return np.asarray((vectors * powers) @ vectors.conj().T)
    return general_power(matrix, power) if _finite(matrix) else np.full_like(matrix, np.nan)


def _eigh(matrix: Array) -> tuple[Array, Array]:
    from scipy.linalg import eigh

    if not matrix.size or not _finite(matrix):
        return np.full(len(matrix), np.nan, matrix.real.dtype), np.full_like(matrix, np.nan)
    values, vectors = eigh(matrix, driver="evd", check_finite=False)
    return values, vectors


def _schur(matrix: Array) -> tuple[Array, Array]:
    """T and Q of M = Q T Q*, complex; T is exactly diagonal where M is exactly Hermitian."""
    kind = np.result_type(matrix.dtype, np.complex64)
    if np.array_equal(matrix, matrix.conj().T):
        values, vectors = _eigh(matrix)
        return np.diag(values).astype(kind), vectors.astype(kind)
    if not _finite(matrix):
        return np.full(matrix.shape, np.nan, kind), np.full(matrix.shape, np.nan, kind)
    from scipy.linalg import schur

    form, vectors = schur(matrix.astype(kind), output="complex", check_finite=False)
    return form, vectors


def decompose(functions: Sequence[str], matrix: Array) -> dict[str, Array]:
    """Values of several of eigenvalues, eigenvectors, schur_form and schur_vectors, from one decomposition.

    >>> decompose(("eigenvalues", "eigenvectors"), np.diag([1.0, 4.0]))["eigenvalues"]
    array([1., 4.])
    """
    values, vectors = (_eigh if functions[0].startswith("eigen") else _schur)(matrix)
    found = {"eigenvalues": values, "eigenvectors": vectors, "schur_form": values, "schur_vectors": vectors}
    return {f: np.asarray(found[f], order="C") for f in functions}


# --- Kronecker products of triangles, bands ---------------------------------------------------------------------------


def _solve_kronecker(args: Sequence[Array], assume: Assumed) -> Array:
    """X with (sum over terms of coefficient x the Kronecker product of its factors) X = B, all factors triangular.

    B has an axis for each factor, and maybe one of columns. Where every factor is diagonal so is the sum, and this is
    one division; else back substitution, factor by factor (the Bartels and Stewart idea for any number of factors).
    """
    right, terms = args[0], product_terms(assume)
    coefficients, factors = [a.item() for a in args[1 : 1 + len(terms)]], args[1 + len(terms) :]
    if all(np.count_nonzero(f) == np.count_nonzero(np.diagonal(f)) for f in factors):
        total = np.zeros(tuple(map(len, factors)), right.dtype)
        for c, term in zip(coefficients, terms, strict=True):
            one = np.asarray(c, right.dtype)
            for k, f in enumerate(factors):
                one = one * (np.diagonal(f) if k in term else np.ones(1)).reshape((-1, *[1] * (len(factors) - 1 - k)))
            total = total + one
        _check_pivots(total)
        return np.asarray(right / total.reshape(total.shape + (1,) * (right.ndim - total.ndim)), right.dtype)
    columns = right.reshape(*map(len, factors), -1)
    return _substituted(list(zip(coefficients, terms, strict=True)), factors, 0, columns).reshape(right.shape)


def _substituted(
    terms: list[tuple[complex, tuple[int, ...]]], factors: Sequence[Array], level: int, right: Array
) -> Array:
    """Back substitution for the factors from `level` on; each term has a coefficient and the factors that it has."""
    if level == len(factors) - 1:
        last = factors[level]
        matrix = sum((c * (last if level in t else np.eye(len(last))) for c, t in terms), np.zeros_like(last))
        _check_pivots(np.diagonal(matrix))
        return np.asarray(_lapack("trtrs", matrix, right)(matrix, right)[0])
    here, out = factors[level], np.empty_like(right)
    for i in reversed(range(len(here))):
        rest = right[i]
        if i + 1 < len(here):
            carried = np.tensordot(here[i, i + 1 :], out[i + 1 :], axes=1)
            rest = rest - sum((c * _product(t, factors, level + 1, carried) for c, t in terms if level in t), 0)
        inner = [(c * here[i, i] if level in t else c, t) for c, t in terms]
        out[i] = _substituted(inner, factors, level + 1, rest)
    return out


def _product(term: tuple[int, ...], factors: Sequence[Array], level: int, x: Array) -> Array:
    """The Kronecker product of a term's factors from `level` on, times x."""
    for axis, k in enumerate(range(level, len(factors))):
        if k in term:
            x = np.moveaxis(np.tensordot(factors[k], x, axes=(1, axis)), 0, axis)
    return x


def _check_pivots(values: Array) -> None:
    """`SingularError` for an eigenvalue that is zero beside the largest."""
    size = np.abs(values)
    if size.size and size.min() <= np.finfo(values.dtype).eps * size.max():  # NaN spreads instead
        raise _singular(f" to working precision (its smallest eigenvalue is {size.min():.1e})")


def _band(args: Sequence[Array], assume: Assumed) -> tuple[Array, Array, Array, int, int]:
    """The LU of a band matrix that is kept by diagonals, its pivots, and the widths."""
    lower, upper = option(assume, "banded", "lo"), option(assume, "banded", "hi")
    bands = args[0]
    room = np.zeros((lower + len(bands), bands.shape[1]), bands.dtype)
    room[lower:] = bands
    lu, pivots, info = _lapack("gbtrf", bands)(room, lower, upper)
    return lu, pivots, np.asarray(info), lower, upper


def _solve_banded(args: Sequence[Array], assume: Assumed) -> Array:
    right = args[1]
    if not right.size:
        return right.copy()
    lu, pivots, info, lower, upper = _band(args, assume)
    if info > 0:
        raise _singular()
    return np.asarray(_lapack("gbtrs", lu, right)(lu, lower, upper, right, pivots)[0])


def _logdet_banded(args: Sequence[Array], assume: Assumed) -> Array:
    kind = args[0].real.dtype
    if not args[0].size:
        return np.zeros((), kind)
    lu, _, _, lower, upper = _band(args, assume)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.abs(lu[lower + upper])).sum(), kind)


# --- circulant matrices -----------------------------------------------------------------------------------------------


def _solve_circulant(args: Sequence[Array], assume: Assumed) -> Array:
    """Transform, divide, transform back."""
    from scipy.fft import fft, ifft

    column, right = args
    if not right.size:
        return right.copy()
    values = fft(column)
    _check_pivots(values)
    found = ifft(fft(right, axis=0) / values.reshape(-1, *[1] * (right.ndim - 1)), axis=0)
    return np.asarray(found if right.dtype.kind == "c" else found.real)


def _logdet_circulant(args: Sequence[Array], assume: Assumed) -> Array:
    from scipy.fft import fft

    column = args[0]
    if not column.size:
        return np.zeros((), column.real.dtype)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.abs(fft(column))).sum(), column.real.dtype)


_LEAVES: Mapping[str, Leaf] = {
    "solve": _solve,
    "inv": _inv,
    "logdet": _logdet,
    "powm": _powm,
    "eigenvalues": lambda a, _: _eigh(a[0])[0],
    "eigenvectors": lambda a, _: _eigh(a[0])[1],
    "schur_form": lambda a, _: _schur(a[0])[0],
    "schur_vectors": lambda a, _: _schur(a[0])[1],
    "solve_kronecker": _solve_kronecker,
    "solve_banded": _solve_banded,
    "logdet_banded": _logdet_banded,
    "solve_circulant": _solve_circulant,
    "logdet_circulant": _logdet_circulant,
    "power_circulant": lambda a, _: circulant_power(a[0], a[1].item()),
    "divisors": lambda a, _: checked_divisors(a[0]),
    "powers": lambda a, _: checked_powers(a[0], a[1].item()),
}
