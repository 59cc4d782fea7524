"""Index arithmetic: convolutions, Toeplitz and circulant products are einsums with sums of indices in a slot."""

import numpy as np

import stein


def main(n: int = 64) -> None:
    """Run a convolution layer, a Toeplitz, a causal and a circulant product, each checked against NumPy."""
    rng = np.random.default_rng(0)

    # A strided convolution layer. The range of p and q follows: the largest that keeps every access inside.
    x, w = rng.standard_normal((2, 3, n, n)), rng.standard_normal((4, 3, 3, 3))
    layer = stein.compile("y[b,o,p,q] = x[b,c,2*p+u,2*q+v] * w[o,c,u,v]", dtype="float64")
    y = layer(x=x, w=w)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    np.testing.assert_allclose(y, np.einsum("bcpquv,ocuv->bopq", windows, w, optimize=True), rtol=1e-9, atol=1e-9)
    print("convolution layer", x.shape, "->", y.shape)

    # A Toeplitz matrix is never stored: 2n-1 numbers, with an origin, so that the program reads as the mathematics.
    v, t = rng.standard_normal((5, n)), rng.standard_normal(2 * n - 1)
    toeplitz = stein.compile("x: f64[b, n]; t: f64[-(n-1)..n]; y[b,i] = t[i-j] * x[b,j]")
    matrix = t[np.arange(n)[:, None] - np.arange(n) + n - 1]
    np.testing.assert_allclose(toeplitz(t=t, x=v), v @ matrix.T, rtol=1e-9, atol=1e-9)
    print("Toeplitz product of order", n)

    # What lies outside a padded tensor is its pad: a causal filter over the whole signal.
    causal = stein.compile("x: f64[n] pad=0; h: f64[m]; y[i] = h[k] * x[i-k] for i in 0..n")
    filtered = causal(h=t[:5], x=v[0])
    np.testing.assert_allclose(filtered, np.convolve(t[:5], v[0])[:n], rtol=1e-9, atol=1e-9)
    print("causal filter of 5 taps over", n, "samples")

    # Indices may wrap around.
    circulant = stein.compile("c, x: f64[n]; y[i] = c[(i-j) mod n] * x[j]")
    product = np.fft.ifft(np.fft.fft(t[:n]) * np.fft.fft(v[0])).real
    np.testing.assert_allclose(circulant(c=t[:n], x=v[0]), product, rtol=1e-9, atol=1e-9)
    print("circular convolution of length", n)


if __name__ == "__main__":
    main()
