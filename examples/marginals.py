"""Several outputs of one program: the marginals of a small graphical model, with the shared work done once."""

import numpy as np

import stein

CHAIN = """
    F: f64[a, b]; G: f64[b, c]; H: f64[c, d]
    pa[a] = sum[b,c,d] F[a,b] * G[b,c] * H[c,d]
    pb[b] = sum[a,c,d] F[a,b] * G[b,c] * H[c,d]
    pc[c] = sum[a,b,d] F[a,b] * G[b,c] * H[c,d]
    pd[d] = sum[a,b,c] F[a,b] * G[b,c] * H[c,d]
"""


def main(n: int = 12) -> None:
    """Compute four marginals at once; they come back by name."""
    rng = np.random.default_rng(0)
    F, G, H = rng.random((n, n + 1)), rng.random((n + 1, n + 2)), rng.random((n + 2, n + 3))
    marginals = stein.compile(CHAIN)(F=F, G=G, H=H)
    joint = np.einsum("ab,bc,cd->abcd", F, G, H)
    for k, (name, values) in enumerate(marginals.items()):
        np.testing.assert_allclose(values, joint.sum(axis=tuple(m for m in range(4) if m != k)))
        print(name, np.round(values / values.sum(), 3)[:4], "...")


if __name__ == "__main__":
    main()
