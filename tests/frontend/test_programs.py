"""Programs of the language page and of the structure table, with its meaning in NumPy; wrong ones with their place.

The list settled the rules of the language (it ran first against a brute-force evaluator); here each good program is
elaborated with symbolic sizes and with known ones, interpreted, and compared with NumPy.
"""

# ruff: noqa: E731, E741
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stein.frontend.declare import Declaration
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.bind import bind_sizes
from stein.ir.errors import SteinError
from stein.ir.interpret import interpret
from stein.ir.types import dtype_of

rng = np.random.default_rng(0)
e = np.einsum
zeros = np.zeros
GOOD: list[tuple[str, str, Callable[..., Any] | None, dict[str, Any]]] = []


def R(*shape: int) -> Any:
    return rng.standard_normal(shape)


def good(name: str, text: str, meaning: Callable[..., Any] | None, **arrays: Any) -> None:
    GOOD.append((name, text, meaning, arrays))


good("4", "K = kron(A, B)\ny = K @ x", lambda A, B, x: np.kron(A, B) @ x, A=R(3, 4), B=R(5, 2), x=R(8))
good(
    "4b",
    "K = kron(A, B); y[(a b)] = K[(a b),(c d)]*x[(c d)] for a in 0..3, c in 0..4",
    lambda A, B, x: np.kron(A, B) @ x,
    A=R(3, 4),
    B=R(5, 2),
    x=R(8),
)
good(
    "5",
    "y[i,j,k] = A[i,a]*B[j,b]*C[k,c]*x[a,b,c]",
    lambda A, B, C, x: e("ia,jb,kc,abc->ijk", A, B, C, x),
    A=R(2, 3),
    B=R(3, 2),
    C=R(2, 2),
    x=R(3, 2, 2),
)
good("6", "y[i,j] = A[i,k]*x[k,j] + x[i,l]*B[j,l]", lambda A, B, x: A @ x + x @ B.T, A=R(4, 4), B=R(3, 3), x=R(4, 3))
good("7", "y[i] = U[i,r]*V[j,r]*x[j]", lambda U, V, x: U @ (V.T @ x), U=R(6, 2), V=R(5, 2), x=R(5))
good(
    "8",
    "y[b,i] = (D[i,j] + U[i,r]*V[j,r])*x[b,j]",
    lambda D, U, V, x: x @ (D + U @ V.T).T,
    D=R(6, 6),
    U=R(6, 2),
    V=R(6, 2),
    x=R(3, 6),
)
good(
    "9",
    "y[i] = d[i]*x[i] + U[i,r]*V[j,r]*x[j]",
    lambda d, U, V, x: d * x + U @ (V.T @ x),
    d=R(6),
    U=R(6, 2),
    V=R(6, 2),
    x=R(6),
)
toep = lambda t, x, i0: np.array([sum(t[i - j + i0] * x[j] for j in range(len(x))) for i in range(len(t) - len(x) + 1)])
good(
    "10",
    "x: f64[b,n]; t: f64[2*n-1]\ny[b,i] = t[i-j+n-1]*x[b,j]",
    lambda t, x: np.stack([toep(t, v, 5) for v in x]),
    t=R(11),
    x=R(3, 6),
)
good("10b", "t: f64[-(n-1)..n]; x: f64[n]; y[i] = t[i-j]*x[j]", lambda t, x: toep(t, x, 5), t=R(11), x=R(6))
good("11", "y[i] = h[i+j]*x[j]", lambda h, x: np.array([h[i : i + 6] @ x for i in range(8)]), h=R(13), x=R(6))
good(
    "12",
    "c, x: f64[n]; y[i] = c[(i-j) mod n]*x[j]",
    lambda c, x: np.array([sum(c[(i - j) % 6] * x[j] for j in range(6)) for i in range(6)]),
    c=R(6),
    x=R(6),
)
good(
    "13",
    "y[b,o,p,q] = x[b,c,p+u,q+v]*w[o,c,u,v]",
    lambda x, w: np.array(
        [
            [[[(x[b, :, p : p + 3, q : q + 2] * w[o]).sum() for q in range(5)] for p in range(3)] for o in range(2)]
            for b in range(2)
        ]
    ),
    x=R(2, 3, 5, 6),
    w=R(2, 3, 3, 2),
)
good(
    "13s", "y[p] = x[2*p+u]*w[u]", lambda x, w: np.array([x[2 * p : 2 * p + 3] @ w for p in range(4)]), x=R(10), w=R(3)
)
good("13d", "y[p] = x[p+2*u]*w[u]", lambda x, w: np.array([x[p : p + 5 : 2] @ w for p in range(6)]), x=R(10), w=R(3))
good(
    "14",
    "w: f64[-2..3]; x: f64[n] pad=0\ny[i] = w[d]*x[i+d] for i in 0..n",
    lambda w, x: np.array([sum(w[d + 2] * x[i + d] for d in range(-2, 3) if 0 <= i + d < 7) for i in range(7)]),
    w=R(5),
    x=R(7),
)
good(
    "14b",
    "t: f64[-2..3] pad=0; x: f64[n]; y[i] = t[i-j]*x[j] for i in 0..n",
    lambda t, x: np.array([sum(t[i - j + 2] * x[j] for j in range(7) if -2 <= i - j <= 2) for i in range(7)]),
    t=R(5),
    x=R(7),
)
L, Rr, xx = R(4, 3, 2), R(2, 4, 5), R(3, 10)


def mon(L, R, x):
    t = e("jkm,bjm->bjk", R, x.reshape(len(x), R.shape[0], R.shape[2]))
    return e("kij,bjk->bik", L, t)


good(
    "15",
    "t[b,j,k] = R[j,k,m]*x[b,j,m]; y[b,i,k] = L[k,i,j]*t[b,j,k]",
    lambda L, R, x: mon(L, R, x.reshape(3, 10)),
    L=L,
    R=Rr,
    x=xx.reshape(3, 2, 5),
)
good("15b", "y[b,(i k)] = L[k,i,j]*R[j,k,m]*x[b,(j m)]", lambda L, R, x: mon(L, R, x).reshape(3, -1), L=L, R=Rr, x=xx)
H = np.array([[1.0, 1], [1, -1]])
good(
    "16",
    "y[a,b,c] = h[a,d]*h[b,e]*h[c,f]*x[d,e,f]",
    lambda h, x: (np.kron(np.kron(h, h), h) @ x.ravel()).reshape(2, 2, 2),
    h=H,
    x=R(2, 2, 2),
)
good("16b", "y = kron(h, h, h) @ x", lambda h, x: np.kron(np.kron(h, h), h) @ x, h=H, x=R(8))
good("17", "W: f64[m,n] bsr(block=2); y[b,i] = W[i,j]*x[b,j]", lambda W, x: x @ W.T, W=R(4, 6), x=R(3, 6))
good(
    "18",
    "S: const bool[i,j] mask; P[i,j] = S[i,j]*Q[i,d]*K[j,d]",
    lambda S, Q, K: S * (Q @ K.T),
    S=R(4, 5) > 0,
    Q=R(4, 3),
    K=R(5, 3),
)
bd = np.zeros((6, 6))
bd[:3, :3] = R(3, 3)
bd[3:, 3:] = R(3, 3)
good("19", "B: f64[n,n] blockdiag(block=3); y = B @ x", lambda B, x: B @ x, B=bd, x=R(6))


def att(Q, K, V):
    s = e("bqhd,bkhd->bhqk", Q, K) / np.sqrt(Q.shape[-1])
    p = np.exp(s)
    p /= p.sum(-1, keepdims=True)
    return e("bhqk,bkhd->bqhd", p, V)


Q, K, V = R(2, 3, 4, 5), R(2, 6, 4, 5), R(2, 6, 4, 5)
good(
    "20",
    "Q: f64[b,q,h,d]\na[b,h,q,k] = softmax[k](sum[d] Q[b,q,h,d]*K[b,k,h,d]/sqrt(d))\n"
    "o[b,q,h,d] = a[b,h,q,k]*V[b,k,h,d]",
    None,
    Q=Q,
    K=K,
    V=V,
)
good(
    "20-2",
    "Q: f64[B,N,H,D]\na[b,h,q,k] = softmax[k](sum[d] Q[b,q,h,d]*K[b,k,h,d]/sqrt(D))\n"
    "o[b,q,h,d] = a[b,h,q,k]*V[b,k,h,d]",
    att,
    Q=Q,
    K=K,
    V=V,
)
good(
    "20g",
    "Q: f64[B,N,H,D]\na[b,h,g,q,k] = softmax[k](sum[d] Q[b,q,(h g),d]*K[b,k,h,d]/sqrt(D))\n"
    "o[b,q,(h g),d] = a[b,h,g,q,k]*V[b,k,h,d]",
    lambda Q, K, V: att(Q, K.repeat(2, 2), V.repeat(2, 2)),
    Q=Q,
    K=K[:, :, :2],
    V=V[:, :, :2],
)
good(
    "20f",
    "y[i,d] = softmax[j](sum[c] q[i,c]*k[j,c])*v[j,d]",
    lambda q, k, v: (lambda p: p / p.sum(1, keepdims=True))(np.exp(q @ k.T)) @ v,
    q=R(4, 3),
    k=R(5, 3),
    v=R(5, 2),
)
good("21", "d[i,j] = A[i,k]*B[k,j] over maxplus", lambda A, B: (A[:, :, None] + B[None]).max(1), A=R(4, 3), B=R(3, 5))
lse = lambda A, x: np.logaddexp.reduce(A + x, axis=1)
good("22", "s[i] = logsumexp[k](A[i,k] + x[k])", lse, A=R(4, 3), x=R(3))
good("22b", "s[i] = A[i,k]*x[k] over logsumexp", lse, A=R(4, 3), x=R(3))
good(
    "23",
    "r[i,k] = R[i,j]*S[j,k] over boolean",
    lambda R, S: (R.astype(int) @ S.astype(int)) > 0,
    R=R(4, 5) > 0.6,
    S=R(5, 3) > 0.6,
)
good(
    "24",
    "x: encrypted f64[n]; W: const f64[2*n-1]; y[i] = W[i-j+n-1]*x[j]",
    lambda W, x: toep(W, x, 5),
    W=R(11),
    x=R(6),
)
sg = lambda z: 1 / (1 + np.exp(-z))
good(
    "25",
    "x: encrypted f64[n]\nh[i] = approx(sigmoid, degree=3, range=-8..8)(sum[j] A[i,j]*x[j] + b[i])\ny = w[i]*h[i]",
    lambda A, b, w, x: w @ sg(A @ x + b),
    A=R(4, 6),
    b=R(4),
    w=R(4),
    x=R(6),
)
good("26", "D[i,i] = v[i]", lambda v: np.diag(v), v=R(5))
F, G = R(3, 4), R(4, 5)
good(
    "27",
    "ma[a] = sum[b,c] F[a,b]*G[b,c]; mb[b] = sum[a,c] F[a,b]*G[b,c]; mc[c] = sum[a,b] F[a,b]*G[b,c]",
    lambda F, G: {"ma": e("ab,bc->a", F, G), "mb": e("ab,bc->b", F, G), "mc": e("ab,bc->c", F, G)},
    F=F,
    G=G,
)
good("28", "G[i,j] = X[k,i]*X[k,j]", lambda X: X.T @ X, X=R(7, 4))
good(
    "30",
    "v[k,l] = (i+j == k+l)*T[i,j,k,l]*u[i,j]",
    lambda T, u: np.array(
        [
            [sum(T[i, j, k, l] * u[i, j] for i in range(3) for j in range(3) if i + j == k + l) for l in range(3)]
            for k in range(3)
        ]
    ),
    T=R(3, 3, 3, 3),
    u=R(3, 3),
)
# rows of the structure table
good(
    "r1",
    "t[b,k,j] = R[k,j,i]*x[b,k,i]; y[b,l,j] = L[j,l,k]*t[b,k,j]",
    lambda R, L, x: e("jlk,kji,bki->blj", L, R, x),
    R=R(2, 3, 4),
    L=R(3, 5, 2),
    x=R(2, 2, 4),
)
good(
    "r3",
    "y[l,j] = L[j,l,k,r]*R[k,j,i,r]*x[k,i]",
    lambda L, R, x: e("jlkr,kjir,ki->lj", L, R, x),
    L=R(3, 4, 2, 2),
    R=R(2, 3, 5, 2),
    x=R(2, 5),
)
good(
    "r4",
    "y[i,a] = U[i,a,r]*S[i,j,r]*V[j,c,r]*x[j,c]",
    lambda U, S, V, x: e("iar,ijr,jcr,jc->ia", U, S, V, x),
    U=R(2, 3, 2),
    S=R(2, 3, 2),
    V=R(3, 4, 2),
    x=R(3, 4),
)
good(
    "r5",
    "Y[a,b,c,d] = P[a,e]*Q[b,f]*R[c,g]*X[e,f,g,d]",
    lambda P, Q, R, X: e("ae,bf,cg,efgd->abcd", P, Q, R, X),
    P=R(2, 2),
    Q=R(2, 2),
    R=R(2, 2),
    X=R(2, 2, 2, 5),
)
good(
    "r6",
    "H[i,j] = w[p]*P[p,i,j]; y[i,c] = H[i,j]*x[j,c]",
    lambda w, P, x: e("p,pij,jc->ic", w, P, x),
    w=R(3),
    P=R(3, 4, 4),
    x=R(4, 2),
)
good(
    "r7",
    "y[b,u,v] = i8(round(clip(sum[i,j] x[b,i,j]*P[i,u]*Q[j,v]/s, -127, 127)))",
    lambda x, P, Q, s: np.round(np.clip(e("bij,iu,jv->buv", x, P, Q) / s, -127, 127)).astype("i1"),
    x=R(2, 3, 4),
    P=R(3, 3),
    Q=R(4, 4),
    s=np.array(0.05),
)
good(
    "r8",
    "y[i,p] = W[i,p,j,q]*x[j,q] + g[n]*A[n,i,j]*B[n,p,q]*x[j,q]",
    lambda W, g, A, B, x: e("ipjq,jq->ip", W, x) + e("n,nij,npq,jq->ip", g, A, B, x),
    W=R(2, 3, 4, 2),
    g=R(2),
    A=R(2, 2, 4),
    B=R(2, 3, 2),
    x=R(4, 2),
)
good(
    "r8b",
    "y[(i p)] = W[(i p),(j q)]*x[(j q)] + g[n]*A[n,i,j]*B[n,p,q]*x[(j q)]",
    lambda W, g, A, B, x: W @ x + e("n,nij,npq,jq->ip", g, A, B, x.reshape(4, 2)).ravel(),
    W=R(6, 8),
    g=R(2),
    A=R(2, 2, 4),
    B=R(2, 3, 2),
    x=R(8),
)
good(
    "r11",
    "y[i,p] = A[n,i,j]*s[n,p,r]*t[n,r,q]*x[j,q]",
    lambda A, s, t, x: e("nij,npr,nrq,jq->ip", A, s, t, x),
    A=R(2, 3, 4),
    s=R(2, 3, 2),
    t=R(2, 2, 5),
    x=R(4, 5),
)
good(
    "r12",
    "y[u,p] = A[n,u,v]*F[n,p,q]*x[v,q]",
    lambda A, F, x: e("nuv,npq,vq->up", A, F, x),
    A=R(4, 4, 4),
    F=R(4, 2, 3),
    x=R(4, 3),
)
good(
    "r13",
    "y[k,l] = sum[a,b] Q1[k,a]*Q2[l,b]*Q1[i,a]*Q2[j,b]*x[i,j]/(l1[a]*l2[b] + s)",
    lambda Q1, Q2, l1, l2, s, x: Q1 @ ((Q1.T @ x @ Q2) / (np.outer(l1, l2) + s)) @ Q2.T,
    Q1=R(3, 3),
    Q2=R(4, 4),
    l1=R(3) ** 2,
    l2=R(4) ** 2,
    s=np.array(0.5),
    x=R(3, 4),
)
good(
    "r14",
    "y[i,j] = a*x[i,j] + b*x[j,i] + c*(i == j)*x[k,k]",
    lambda a, b, c, x: a * x + b * x.T + c * np.eye(4) * np.trace(x),
    a=R(),
    b=R(),
    c=R(),
    x=R(4, 4),
)
good("r15", "L[i,k] = G[i,j]*G[k,j]; R[j,l] = G[i,j]*G[i,l]", lambda G: {"L": G @ G.T, "R": G.T @ G}, G=R(3, 4))
good(
    "r17",
    "c: f64[-(n-1)..n]; f: f64[n,m]; z[i,d] = f[i,m]*c[i-j]*g[j,m]*v[j,d]",
    lambda f, c, g, v: e("im,ij,jm,jd->id", f, np.array([[c[i - j + 4] for j in range(5)] for i in range(5)]), g, v),
    c=R(9),
    f=R(5, 2),
    g=R(5, 2),
    v=R(5, 3),
)


def s4(C, z, B, u):
    N = u.shape[1]
    K = np.real(e("hn,hnl,hn->hl", C, z[:, :, None] ** np.arange(N), B))
    return np.array([[sum(K[h, i - j] * u[h, j] for j in range(i + 1)) for i in range(N)] for h in range(len(u))])


good(
    "r18",
    "C, z, B: c128[h,N]; u: f64[h,T]; K: f64[h,T] pad=0\nK[h,l] = real(C[h,n]*z[h,n]^l*B[h,n])\n"
    "y[h,i] = K[h,i-j]*u[h,j] for i in 0..T",
    s4,
    C=R(2, 3) + 0j,
    z=0.5 * R(2, 3) + 0.2j,
    B=R(2, 3) + 0j,
    u=R(2, 6),
)
good(
    "r20",
    "a: f64[-1..2,n]; x: f64[n] pad=0; y[i] = a[d,i]*x[i+d]",
    lambda a, x: np.array([sum(a[d + 1, i] * x[i + d] for d in (-1, 0, 1) if 0 <= i + d < 6) for i in range(6)]),
    a=R(3, 6),
    x=R(6),
)
good("r21", "y[i] = U[i,r]*V[r,j]*x[j]", lambda U, V, x: U @ (V @ x), U=R(5, 2), V=R(2, 4), x=R(4))
sm = lambda s: np.exp(s) / np.exp(s).sum(1, keepdims=True)
good(
    "r22",
    "p[i,j] = softmax[j](sum[c] q[i,c]*k[j,c] + sum[r] f[i,r]*g[j,r])",
    lambda q, k, f, g: sm(q @ k.T + f @ g.T),
    q=R(4, 3),
    k=R(5, 3),
    f=R(4, 2),
    g=R(5, 2),
)
good("r23", "y[o] = B[o,r]*A[r,i]*(sum[g] x[g,i])", lambda B, A, x: B @ A @ x.sum(0), B=R(3, 2), A=R(2, 4), x=R(5, 4))
good(
    "r24",
    "W: f64[m,n] bsr(block=2); g[i] = W[i,j]*x[j]; u[i] = V[i,j]*x[j]; y[i] = silu(g[i])*u[i]",
    lambda W, V, x: (W @ x) * sg(W @ x) * (V @ x),
    W=R(4, 6),
    V=R(4, 6),
    x=R(6),
)
good(
    "r27",
    "h: f64[2,2]; y[a,b] = h[a,c]*h[b,d]*s2[c,d]*h[c,e]*h[d,f]*s1[e,f]*x[e,f]",
    lambda h, s2, s1, x: (np.kron(h, h) @ (s2.ravel() * (np.kron(h, h) @ (s1 * x).ravel()))).reshape(2, 2),
    h=H,
    s1=np.sign(R(2, 2)),
    s2=np.sign(R(2, 2)),
    x=R(2, 2),
)
good(
    "r32",
    "y[k] = a[k,r]*b[i,r]*c[j,r]*u[i]*v[j]",
    lambda a, b, c, u, v: a @ ((u @ b) * (v @ c)),
    a=R(3, 2),
    b=R(4, 2),
    c=R(5, 2),
    u=R(4),
    v=R(5),
)
good(
    "r34",
    "S: f64[d,v]; T[d,v] = S[d,v] - b*k[d]*k[e]*S[e,v]",
    lambda S, b, k: S - b * np.outer(k, k @ S),
    S=R(4, 3),
    b=R(),
    k=R(4),
)
good(
    "r38",
    "o[i,d] = softmax[j](sum[c] q[i,c]*k[j,c])*v[j,d]",
    lambda q, k, v: sm(q @ k.T) @ v,
    q=R(4, 3),
    k=R(5, 3),
    v=R(5, 2),
)
good(
    "r41",
    "o[i,d] = sum[j,m] exp(sum[c] q[i,c]*k[j,c]*l[m,c])*v[j,d]*w[m,d]",
    lambda q, k, l, v, w: e("ijm,jd,md->id", np.exp(e("ic,jc,mc->ijm", q, k, l)), v, w),
    q=R(3, 2),
    k=R(4, 2),
    l=R(3, 2),
    v=R(4, 2),
    w=R(3, 2),
)
# corners
good("c1", "x: f64[n]; y[i] = (j <= i)*x[j] for i in 0..n over maxplus", lambda x: np.maximum.accumulate(x), x=R(5))
good("c2", "y[i+j] = a[i]*b[j]", lambda a, b: np.convolve(a, b), a=R(4), b=R(3))
good("c3", "y[2*i] = x[i]", lambda x: np.array([x[0], 0, x[1], 0, x[2]]), x=R(3))
good("c4", "x: f64[n]; y[(i+1) mod n] = x[i]", lambda x: np.roll(x, 1), x=R(4))
good("c5", "y[...,i] = A[i,k]*x[...,k]", lambda A, x: x @ A.T, A=R(3, 4), x=R(2, 5, 4))
good("c6", "y = -2*A' @ x + b/2", lambda A, x, b: -2 * A.T @ x + b / 2, A=R(3, 4), x=R(3), b=R(4))
good(
    "c7",
    "y[i] = A[i,k] *\n   x[k] + (b[i]\n + b[i])  # twice\n\n",
    lambda A, x, b: A @ x + 2 * b,
    A=R(3, 4),
    x=R(4),
    b=R(3),
)
good("c8", "y[i] = A[i,k]*x[k]; y[i] += b[i]", lambda A, x, b: A @ x + b, A=R(3, 4), x=R(4), b=R(3))
good(
    "c9",
    "d[i,j] += A[i,k]*B[k,j] over minplus",
    lambda d, A, B: np.minimum(d, (A[:, :, None] + B[None]).min(1)),
    d=R(3, 3),
    A=R(3, 3),
    B=R(3, 3),
)
good(
    "c10",
    "F[k,l] = exp(-2j*pi*k*l/n) for k in 0..n, l in 0..n\ny[k] = F[k,l]*x[l]\nx: f64[n]\nreturn y",
    lambda x: np.fft.fft(x),
    x=R(5),
)
good("c11", "größe[β] = σ[β]*α", lambda σ, α: σ * α, σ=R(3), α=R())
good("c12", "y[i] = max(A[i,k]*x[k], 0)", None, A=R(3, 4), x=R(4))
good(
    "c13",
    "y[i] = max(sum[k] A[i,k]*x[k], 0) - max[k](A[i,k])*2",
    lambda A, x: np.maximum(A @ x, 0) - 2 * A.max(1),
    A=R(3, 4),
    x=R(4),
)
good("c14", "y[i] = sum[k](A[i,k])*x[k]", None, A=R(3, 4), x=R(4))
good("c15", "y[i] = x[i-1]", None, x=R(4))
good("c16", "x: f64[n] pad=wrap; y[i] = x[i-1] for i in 0..n", lambda x: np.roll(x, 1), x=R(4))
good("c17", "I: f64[3,3] identity; y = (A + 2*I) @ x", lambda A, x: A @ x + 2 * x, A=R(3, 3), x=R(3))
good(
    "c18",
    "L[i,j] = (i >= j)*A[i,j]; U[i,j] = where(i < j, A[i,j], 0)",
    lambda A: {"L": np.tril(A), "U": np.triu(A, 1)},
    A=R(4, 4),
)
good("c19", "y[i,0] = x[i]", lambda x: x[:, None], x=R(4))
good("c20", "return p\np[i] = q[i]*2\nq[i]=x[i]", None, x=R(4))
good("c21", "q[i] = x[i]; p[i] = q[i]*2; return q, p", lambda x: {"q": x, "p": 2 * x}, x=R(4))
good("c22", "y[i] = -x[i]^2 + x[i]^-1*2^x[i]", lambda x: -(x**2) + 2**x / x, x=R(4))
good("c23", "y = f32(x)", lambda x: x.astype("f4"), x=R(4))
good("c24", "max[k] = x[k]", None, x=R(4))
good(
    "c25", "m[i] = (x[i] > 0)*x[i]; n = any[i] x[i] > 5", lambda x: {"m": np.maximum(x, 0), "n": np.any(x > 5)}, x=R(4)
)
good(
    "c26",
    "n[i] = sum[k] max[j] A[i,j]*B[j,k]",
    lambda A, B: (A[:, :, None] * B[None]).max(1).sum(1),
    A=R(3, 4),
    B=R(4, 2),
)
good("c27", "y[i] = A[i,k]*(sum[k] B[i,k])", None, A=R(3, 4), B=R(3, 4))
good("c28", "y[k] = A[i,k]*(sum[k] B[i,k])", None, A=R(3, 4), B=R(3, 4))

good("c1-2", "y[i] = (j <= i)*x[j] over maxplus for i in 0..n", None, x=R(5))
BAD = [
    ("11", (1, 17), "y[i] = A[i,k * x[k]", {"A": zeros((2, 3)), "x": zeros(3)}),
    ("12", (1, 24), "y[i] = A[i,k]*x[k] + b[k]", {"A": zeros((2, 3)), "x": zeros(3), "b": zeros(3)}),
    ("13", (1, 17), "y[i] = relu(A[i,k]*x[k])", {"A": zeros((2, 3)), "x": zeros(3)}),
    ("14", (1, 5), "y[i,j] = A[i,k]*x[k]", {"A": zeros((2, 3)), "x": zeros(3)}),
    ("15", (1, 8), "y[i] = t[i-j]*x[j]", {"t": zeros(4), "x": zeros(4)}),
    ("16", (1, 10), "y[i] = x[i*j]", {"x": zeros(4)}),
    ("17", (2, 1), "y[i] = A[i,j]*x[j]\ny[i] = b[i]", {"A": zeros((2, 3)), "x": zeros(3), "b": zeros(2)}),
    ("18", (1, 15), "y[i] = A[i,j]*z[j]", {"A": zeros((2, 3)), "x": zeros(3)}),
    ("19", (1, 27), "A: f32[n,m]; y[i] = A[i,j,k]", {"A": zeros((2, 3), "f4")}),
    ("20", (1, 4), "W: bsr(block=32)\ny = W @ x", {"W": zeros((100, 64)), "x": zeros(64)}),
    ("22", (1, 5), "K = kron(A)", {"A": zeros((2, 3))}),
    ("22b", (1, 13), "K = kron(A, t)", {"A": zeros((2, 3)), "t": zeros((2, 3, 2))}),
    (
        "23",
        (1, 24),
        "d[i,j] = A[i,k]*B[k,j] - C[i,j] over maxplus",
        {"A": zeros((2, 3)), "B": zeros((3, 2)), "C": zeros((2, 2))},
    ),
    ("24", (1, 26), "x: encrypted f64[n]; y = max[i] x[i]", {"x": zeros(3)}),
    ("26", (1, 12), "y[i] = x[i]/s[i]", {"x": zeros(3), "s": zeros(3), "encrypted": ("s",)}),
    ("28", (2, 1), "y: i8[3]\ny[i] = A[i]*x[i]", {"A": zeros(3, "f4"), "x": zeros(3, "f4")}),
    ("30", (1, 8), "W: bsr(blok=32)", {"W": zeros((64, 64))}),
    ("c14", (1, 25), "y[i] = sum[k](A[i,k])*x[k]", {"A": zeros((2, 3)), "x": zeros(3)}),
    ("c27", (1, 12), "y[i] = A[i,k]*(sum[k] B[i,k])", {"A": zeros((2, 3)), "B": zeros((2, 3))}),
    ("c29", (1, 30), "y[i] = max[k](A[i,k])*c[i]/B[k]", {"A": zeros((2, 3)), "B": zeros(3), "c": zeros(2)}),
    (
        "size/index",
        (2, 59),
        "Q: f64[b,q,h,d]\na[b,h,q,k] = softmax[k](sum[d] Q[b,q,h,d]*K[b,k,h,d]/sqrt(d))",
        {"Q": zeros((1, 2, 3, 4)), "K": zeros((1, 2, 3, 4))},
    ),
    ("prime", (1, 6), "y = x' @ A", {"x": zeros(3), "A": zeros((3, 3))}),
    ("neg", (1, 8), "y[i] = A[i,-1]", {"A": zeros((3, 3))}),
    ("at", (1, 15), "y[i] = A[i,k] @ x[k]", {"A": zeros((3, 3)), "x": zeros(3)}),
    ("mix", (1, 8), "y[i] = A + b[i]", {"A": zeros((3, 3)), "b": zeros(3)}),
    ("bcast", (1, 7), "y = A + b", {"A": zeros((3, 3)), "b": zeros(3)}),
    ("1/..", (1, 14), "y[i] = 1/A[i,k]", {"A": zeros((3, 3))}),
    ("cmpchain", (1, 18), "y[i] = (x[i] < 2 < 3)", {"x": zeros(3)}),
    ("scalarlonely", (1, 7), "s = x[i]", {"x": zeros(3)}),
    ("undeclared scalar", (1, 8), "y[i] = alpha*x[i]", {"x": zeros(3)}),
    ("sum without idx", (1, 8), "y[i] = sum(x[i])", {"x": zeros(3)}),
    ("mod noparen", (1, 27), "c,x: f64[n]; y[i] = c[i-j mod n]*x[j]", {"x": zeros(3), "c": zeros(3)}),
    ("dots sum", (1, 10), "y[i] = x[...,i]", {"x": zeros((3, 4))}),
]


def declared(arrays: dict[str, Any], encrypted: tuple[str, ...] = ()) -> dict[str, Declaration]:
    return {
        n: Declaration(np.shape(v), dtype_of(np.asarray(v).dtype), encrypted=n in encrypted) for n, v in arrays.items()
    }


def symbolic(text: str, arrays: dict[str, Any]) -> dict[str, Declaration]:
    """Types only where the program itself says how many axes there are; else a name for each axis."""
    named = "..." in text or any("=" in part and "[" not in part for part in re.split(r"[;\n]", text))
    out = {}
    for n, v in arrays.items():
        in_text = any(
            part.split(":")[0].replace(" ", "").split(",").count(n) for part in text.split(";") if ":" in part
        )
        shape = tuple(f"{n}_{k}" for k in range(np.ndim(v))) if (named or not np.ndim(v)) and not in_text else None
        out[n] = Declaration(shape, dtype_of(np.asarray(v).dtype))
    return out


def check(text: str, meaning: Callable[..., Any] | None, arrays: dict[str, Any], said: dict[str, Declaration]) -> None:
    if meaning is None:
        with pytest.raises(SteinError):
            elaborate(parse_program(text), said)
        return
    program = elaborate(parse_program(text), said)
    bind_sizes(program, {i.name: np.shape(arrays[i.name]) for i in program.inputs})
    got = {name.split(".")[0]: value for name, value in interpret(program, arrays).items()}
    want = meaning(**arrays)
    if not isinstance(want, dict):
        assert len(got) == 1
        want = {next(iter(got)): want}
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == np.shape(value)
        assert np.allclose(got[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("text", "meaning", "arrays"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_program_with_known_sizes(text: str, meaning: Callable[..., Any] | None, arrays: dict[str, Any]) -> None:
    check(text, meaning, arrays, declared(arrays))


@pytest.mark.parametrize(("text", "meaning", "arrays"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_program_with_symbolic_sizes(text: str, meaning: Callable[..., Any] | None, arrays: dict[str, Any]) -> None:
    check(text, meaning, arrays, symbolic(text, arrays))


@pytest.mark.parametrize(("place", "text", "arrays"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_wrong_program_fails_at_its_place(place: tuple[int, int], text: str, arrays: dict[str, Any]) -> None:
    given = {n: v for n, v in arrays.items() if n != "encrypted"}
    with pytest.raises(SteinError) as caught:
        elaborate(parse_program(text), declared(given, arrays.get("encrypted", ())))
    assert (caught.value.line, caught.value.col) == place
    assert "^" in str(caught.value) and caught.value.code
