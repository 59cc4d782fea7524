"""The public cases of recognition, as programs of the language: what must be found, and what must not be.

`case` declares every operand that the text does not: its shape follows from the bare indices that it is read at, whose
extents are `SIZES` with the case's own changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.expr import Program, Structure
from stein.passes.recognise import Finding

_EXTENTS = (4, 5, 6, 3, 4, 5, 3, 7, 4, 5, 6, 7, 3, 3, 5, 6, 7, 2, 2, 3, 4, 5)
SIZES = dict(zip("abcdefghijklmnopqrstuv", _EXTENTS, strict=True))
_ACCESS = re.compile(r"\b([A-Za-z]\w*)\[([\w, ]*)\]")


@dataclass(frozen=True)
class Case:
    """One program: `kind` is what must be found for `argument` as a whole (None: nothing)."""

    number: str
    text: str
    kind: str | None
    argument: str = "x"
    has: Callable[[Finding], bool] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    unit: tuple[str, ...] = ()  # operands that are known to be of length 1

    @cached_property
    def program(self) -> Program:
        """The elaborated program."""
        program = elaborate(parse_program(self.declared), {})
        inputs = (replace(i, structure=(Structure("unit"),)) if i.name in self.unit else i for i in program.inputs)
        return replace(program, inputs=tuple(inputs))

    @cached_property
    def declared(self) -> str:
        """The text with a declaration for each operand."""
        extents = SIZES | dict(self.sizes)
        statements = [t.strip() for t in self.text.split(";")]
        known: set[str] = set()
        lines: dict[str, str] = {}
        for statement in statements:
            if re.match(r"[\w, ]+:", statement):
                known.update(n.strip() for n in statement.split(":")[0].split(","))
                continue
            left, right = statement.split("=", 1)
            for name, slots in _ACCESS.findall(right):
                if name not in known and name not in lines and name not in ("sum", "for"):
                    shape = ", ".join(str(extents[i.strip()]) for i in slots.split(","))
                    lines[name] = f"{name}: f64[{shape}]"
            known.add(left.split("[")[0].strip())
        return "; ".join([*lines.values(), self.text])


def case(
    number: str,
    text: str,
    kind: str | None,
    argument: str = "x",
    has: Any = None,
    unit: tuple[str, ...] = (),
    **sizes: int,
) -> Case:
    """A case with its own sizes."""
    return Case(number, text, kind, argument, has, sizes, unit)


KRON = "y[i,k] = A[i,j]*B[k,l]*x[j,l]"
MONARCH = "y[l,j] = L[j,l,k]*R[k,j,i]*x[k,i]"
BTT = "y[l,j] = L[j,l,k,r]*R[k,j,i,r]*x[k,i]"

CASES = (
    case("1", KRON, "kronecker", has=lambda f: not f.options["permuted"]),
    case("2", "y[u,p] = Q[p,q]*z[v,q]*P[u,v]", "kronecker", "z"),
    case("3", "y[k,i] = A[i,j]*B[k,l]*x[j,l]", "kronecker", has=lambda f: f.options["permuted"]),
    case("4", "y[i,k] = A[j,i]*B[k,l]*x[j,l]", "kronecker"),
    case("5", "z[b,c,d] = B[b,e]*(C[c,f]*x[d,e,f]); y[a,b,c] = A[a,d]*z[b,c,d]", "kronecker",
         has=lambda f: len(f.options["factors"]) == 3),
    case("5b", "z[a,b,d,e] = A[a,d]*B[b,e]; y[a,b,c] = z[a,b,d,e]*(C[c,f]*x[d,e,f])", "kronecker"),
    case("6-", "y[i] = A[i,j]*B[i,l]*x[j,l]", None),
    case("7-", "y[i] = A[i,j]*B[j,l]*x[j,l]", None),
    case("8", "y[i,l] = A[i,j]*x[j,l]", None),
    case("9", MONARCH, "monarch"),
    case("10", "y[l,j] = L[l,k,j]*R[i,k,j]*x[k,i]", "monarch"),
    case("11-", "y[l,j,m] = L[j,l,k]*R[m,j,i]*x[k,i]", None),
    case("12", BTT, "monarch", r=1),
    case("12b", BTT, "btt", has=lambda f: f.options["rank"] == 2),
    case("12c", "y[j,l] = L[j,l,k,r]*R[k,j,i,r]*x[k,i]", "block_low_rank"),
    case("13-", BTT, None, r=9),
    case("14", "y[i] = U[i,r]*V[r,j]*x[j]", "low_rank", i=9, j=9),
    case("15-", "y[i] = U[i,r]*V[r,j]*x[j]", None, i=9, j=9, r=5),
    case("16", "y[i] = U[i,r]*V[r,s]*Z[s,j]*x[j]", "low_rank", has=lambda f: f.options["rank"] == 2,
         i=20, j=20, r=3, s=2),
    case("17", "y[i] = a[i]*b[j]*x[j] + c[i]*d[j]*x[j]", "low_rank", has=lambda f: f.options["rank"] == 2, i=9, j=9),
    case("17b", "y[i] = a[i]*b[j]*x[j] + c[i]*b[j]*x[j]", "outer_product", i=9, j=9),
    case("18", "y[g,o] = W[g,o,i]*x[g,i]", "block_diagonal"),
    case("19-", "y[o] = M[g,o,i]*x[g,i]", None),
    case("20", "y[i] = A[i,i]*x[i]", "diagonal"),
    case("21", "y[i] = (i == j)*(j == k)*x[k] for i in 0..4, j in 0..4", "identity", k=4),
    case("22", "x: f64[4,4]; y = x[i,i]", "trace"),
    case("23", "t: f64[13]; y[i] = t[i-j+6]*x[j] for i in 0..7", "toeplitz", j=7),
    case("24", "t: f64[6] pad=0; x: f64[9] pad=0; y[i] = t[c]*x[i-c] for i in 0..9", "toeplitz",
         has=lambda f: f.options["banded"]),
    case("24b", "t: f64[7] pad=0; y[i] = t[i-j]*x[j]*(i >= j) for i in 0..7", "toeplitz",
         has=lambda f: f.options["lower"], j=7),
    case("25", "t: f64[7]; y[i] = t[(i-j) mod 7]*x[j] for i in 0..7", "circulant", j=7),
    case("26-", "t: f64[3]; y[i] = t[(i-j) mod 3]*x[j] for i in 0..7", "toeplitz", j=7),
    case("26b", "t: f64[3]; y[i] = t[(i-j) mod 3]*x[j] for i in 0..6", "circulant", j=6),
    case("27", "h: f64[8]; y[i] = h[i+j]*x[j] for i in 0..4", "hankel", j=5),
    case("28-", "t, u: f64[13]; y[i] = t[i-j+6]*u[i+j]*x[j] for i in 0..7", None, j=7),
    case("29", "t: f64[9,13]; y[i,k] = t[i-j+4,k-l+6]*x[j,l] for i in 0..5, k in 0..7", "block_toeplitz"),
    case("30-", "t: f64[11]; y[i] = t[2*i-j+4]*x[j] for i in 0..4", "strided_convolution"),
    case("31", "y[u,p] = A[n,u,v]*F[n,p,q]*x[v,q]", "kronecker_sum_of", has=lambda f: f.options["terms"] == 3),
    case("32", "y[i,p] = A[n,i,j]*s[n,p,r]*t[n,r,q]*x[j,q]", "kronecker_sum_of", r=1),
    case("32b", "y[i,p] = A[n,i,j]*s[n,p,r]*t[n,r,q]*x[j,q]", "kronecker_sum_of",
         has=lambda f: "low_rank" in f.options["factors"]),
    case("33", "y[i,k] = A[i,j]*x[j,k] + B[k,l]*x[i,l]", "kronsum", j=4, l=6),
    case("34-", KRON + " + C[i,l]*D[k,j]*x[j,l]", "sum",
         has=lambda f: f.options["parts"] == ("kronecker", "kronecker_permuted")),
    case("34b", KRON + " + C[i,j]*D[k,l]*x[j,l]", "kronecker_sum_of"),
    case("34c", KRON + " + A[i,j]*D[k,l]*x[j,l]", "kronecker"),
    case("35", "y[o] = B[o,r]*A[r,i]*(sum[g] x[g,i])", "low_rank",
         has=lambda f: "the argument is summed first over" in f.options["first"], o=9, i=9),
    case("36", "y[b,j] = q[b,c]*k[j,c]", None, "q"),
    case("37", "y[i] = x[i] - 2*v[i]*v[j]*x[j]", "householder", unit=("v",), i=8, j=8),
    case("37b", "y[i] = x[i] - 2*v[i]*v[j]*x[j]", "dplr", i=8, j=8),
    case("37-", "y[i] = x[i] - 2*u[i]*v[j]*x[j]", "dplr", i=8, j=8),
    case("38", "x: f64[12]; z[a,b] = x[(a b)] for a in 0..3, b in 0..4; w[(c d)] = z[c,d]; y[p] = w[p]", "identity"),
    case("38b", "z[(a b)] = x[a,b]; y[c,d] = z[(c d)] for c in 0..3, d in 0..2", "identity", a=2, b=3),
    case("38c", "x: f64[35]; K[(a b),(c d)] = A[a,c]*B[b,d]; z[p] = K[p,q]*x[q]; y[p] = z[p]", "kronecker",
         a=4, b=6, c=5, d=7),
    case("38d", "x: f64[35]; K[(a b),(c d)] = A[a,c]*B[b,d]; z[p] = K[p,q]*x[q]; "
         "y[s,t] = z[(s t)] for s in 0..3, t in 0..8", "kronecker", a=4, b=6, c=5, d=7),
    case("38-", "z[(a b)] = A[b,e]*x[a,e]; y[c,p] = z[(c d)]*B[p,d] for c in 0..3, d in 0..2", None,
         a=2, b=3, e=3, d=2, p=2),
    case("39a", "y[i,j] = G[a,b,c]*U[i,a]*V[j,b]*W[k,c]*x[k]", "tucker", a=2, b=2, c=2),
    case("39b", "y[i,j,k] = A[i,a,r]*B[r,j,b,s]*C[s,k,c]*x[a,b,c]", "tensor_train"),
    case("39c", "y[i,j,k,l,m] = A[i,a,r]*B[r,j,b,s]*C[s,k,c,t]*D[t,l,d,u]*F[u,m,e]*x[a,b,c,d,e]", "tensor_train",
         a=2, b=3, c=2, d=3, e=2, i=2, j=2, k=3, l=2, m=2, u=2),
    case("39d", "y[k] = A[k,r]*B[i,r]*C[j,r]*x[i,j]", "cp"),
    case("40", "y[i,k] = A[i,j]*A[k,l]*x[j,l]", "kronecker", k=4, l=5),
    case("43", "x: f64[20]; y[i] = w[d]*x[2*i+d]", "strided_convolution", d=5),
    case("43b", "x: f64[20]; y[i] = w[d]*x[i+2*d]", "toeplitz", d=5, has=lambda f: f.options["dilations"] == (2,)),
    case("43c", "x: f64[2,3,9,11]; y[b,o,p,q] = x[b,c,2*p+u,3*q+v]*w[o,c,u,v]", "strided_convolution",
         o=4, c=3, u=2, v=3, has=lambda f: f.options["strides"] == (2, 3)),
    case("43d", "x: f64[2,3,6,7]; y[b,o,p,q] = x[b,c,p+u,q+v]*w[o,c,u,v]", "block_toeplitz", o=4, c=3, u=2, v=2),
    case("43e", "c: f64[4,6]; x: f64[4,6]; y[i,k] = c[(i-j) mod 4,(k-l) mod 6]*x[j,l]", "block_circulant"),
    case("44", "a, b, c: f64[9]; x: f64[9] pad=0; y[i] = a[i]*x[i-1] + b[i]*x[i] + c[i]*x[i+1] for i in 0..9", "banded",
         has=lambda f: f.options["band"] == (1, 1)),
    case("44b", "x: f64[9] pad=0; y[i] = x[i-1] - 2*x[i] + x[i+1] for i in 0..9", "toeplitz",
         has=lambda f: f.options["band"] == (1, 1)),
    case("44c", "a: f64[-1..2,9]; x: f64[9] pad=0; y[i] = a[d,i]*x[i+d] for i in 0..9", "banded",
         has=lambda f: f.options["band"] == (1, 1)),
    case("44d", "A: f64[9,9] banded(lo=1,hi=1); B: f64[9,9] banded(lo=1,hi=0); x: f64[9]; y = A @ B @ x", "banded",
         has=lambda f: f.options["band"] == (2, 1)),
    case("44e", "x: f64[5]; y[i] = (i >= j)*x[j] for i in 0..5, j in 0..5", "toeplitz",
         has=lambda f: f.options["lower"]),
    case("44f", "x: f64[5]; y[i] = (i <= j)*x[j] for i in 0..5, j in 0..5", "toeplitz",
         has=lambda f: not f.options["lower"]),
    case("45", "y[a,b] = h[a,c]*h[b,d]*s[c,d]*h[c,e]*h[d,f]*t[e,f]*x[e,f]", "product",
         a=2, b=2, c=2, d=2, e=2, f=2, has=lambda f: f.options["factors"] == ("kronecker", "diagonal") * 2),
    case("45b", "y[k,l] = Q[k,a]*P[l,b]*e[a,b]*Q[i,a]*P[j,b]*x[i,j]", "product", a=4, b=5, i=4, j=5, k=4, l=5,
         has=lambda f: f.options["factors"] == ("kronecker", "diagonal", "kronecker")),
    case("45c", "H: f64[8,8] hadamard; s, t, x: f64[8]; y[i] = H[i,j]*t[j]*H[j,k]*s[k]*x[k]", "product",
         has=lambda f: f.options["factors"].count("hadamard") == 2),
    case("45d", "c, d, x: f64[5]; y[i] = c[(i-j) mod 5]*d[(j-k) mod 5]*x[k]", "circulant"),
    case("45e", "P: f64[6,6] permutation; A: f64[6,6]; x: f64[6]; y = P @ A @ x", "product"),
    case("46", "f, g: f64[6,3]; c: f64[-5..6]; y[i,d] = f[i,m]*c[i-j]*g[j,m]*x[j,d]", "toeplitz_scaled_sum_of",
         has=lambda f: f.options["terms"] == 3, d=4, j=6),
    case("46b", "P: f64[3,4,4] permutation; w: f64[3]; x: f64[4,7]; y[i,c] = w[p]*P[p,i,j]*x[j,c]",
         "permutation_sum_of", has=lambda f: f.options["terms"] == 3),
    case("47", "W: f64[20,20]; U, V: f64[20,2]; x: f64[3,20]; y[b,i] = (W[i,j] + U[i,r]*V[j,r])*x[b,j]",
         "dense_plus_low_rank"),
    case("47b", "W: f64[24,35]; A: f64[3,4,5]; B: f64[3,6,7]; x: f64[35]; "
         "y[(i p)] = W[(i p),(j q)]*x[(j q)] + A[n,i,j]*B[n,p,q]*x[(j q)]", "sum",
         has=lambda f: f.options["parts"] == ("dense", "kronecker_sum_of")),
    case("48", "A: f64[4,5]; B: f64[6,7]; x: f64[35]; y = kron(A, B) @ x", "kronecker"),
    case("48b", "A: f64[4,5]; B: f64[6,7]; x: f64[24]; y = kron(A, B)' @ x", "kronecker"),
    case("48c", "A: f64[4,5]; B: f64[6,7]; C: f64[5,2]; D: f64[7,3]; x: f64[6]; y = kron(A, B) @ kron(C, D) @ x",
         "kronecker"),
    case("48d", "D: diag f64[9,9]; U, V: f64[9,2]; x: f64[9]; y = (D + U @ V') @ x", "dplr"),
    case("48e", "A: f64[4,4]; B: f64[5,5]; I: identity f64[4,4]; J: identity f64[5,5]; x: f64[20]; "
         "y = (kron(A, J) + kron(I, B)) @ x", "kronsum"),
    case("48f", "K: f64[4,4]; L: f64[5,5]; I: identity f64[20,20]; s: f64; x: f64[20]; y = (kron(K, L) + s*I) @ x",
         "sum"),
    case("48g", "A: f64[4,5]; B: f64[6,7]; X: f64[5,6]; y = A @ X @ B", "kronecker", "X"),
    case("48h", "L: f64[3,4,5]; R: f64[5,3,2]; x: f64[10]; y[(i k)] = L[k,i,j]*R[j,k,m]*x[(j m)]", "monarch"),
    case("48i", "U: f64[3,4,2]; S: f64[3,5,2]; V: f64[5,6,2]; x: f64[30]; "
         "y[(i a)] = U[i,a,r]*S[i,j,r]*V[j,c,r]*x[(j c)]",
         "blast"),
    case("49", "y[i,a] = U[i,j,a,r]*V[i,j,r,b]*x[j,b]", "block_low_rank", i=2, j=3, a=4, r=2, b=5),
    case("49b", "u: f64[8]; x: f64[8,3]; y[d,v] = x[d,v] - 2*u[d]*u[e]*x[e,v]", "dplr"),
    case("49c", "t: f64[9]; y[i] = d[i]*t[i-j+4]*e[j]*x[j]", "toeplitz_scaled", i=5, j=5),
    case("42-", "y[i] = x[i]*A[i,j]*x[j]", None, i=4, j=4),
    case("42b-", "z[j] = exp(x[j]); y[i] = A[i,j]*z[j]", None),
)  # fmt: skip
