"""S4D: a diagonal state space model as a convolution, its kernel made of powers (a Vandermonde matrix).

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models" (2022). K[h,l] = C z^l and a
causal Toeplitz product with the input; the matrices of order T are never formed.
"""

import numpy as np
from _system import Array, Report, normal, study

EXPECTED = ("toeplitz",)
PROGRAM = """
    z, C: c64[H, N]
    K: f32[H, T] pad=0
    u: f32[B, H, T] pad=0
    K[h,l] = real(sum[n] C[h,n] * z[h,n]^l)
    y[b,h,i] = K[h,i-j] * u[b,h,j] for i in 0..T
    return y
"""


def main(scale: str = "full") -> Report:
    """Run `channels` models with `states` states each over a batch of sequences."""
    channels, states, length, batch = (16, 32, 1024, 16) if scale == "full" else (2, 3, 9, 2)
    rng = np.random.default_rng(0)
    z = np.exp(-rng.uniform(0.001, 0.1, (channels, states)) + 1j * np.pi * np.arange(states) / states)
    C = (rng.standard_normal((channels, states)) + 1j * rng.standard_normal((channels, states))) / states
    return study(
        18,
        "S4D",
        scale,
        PROGRAM,
        {"z": z.astype(np.complex64), "C": C.astype(np.complex64), "u": normal(batch, channels, length)},
        EXPECTED,
        matrix=lambda z, C: causal(np.real(kernel(z, C, length))),
        apply=lambda W, u: np.einsum("hij,bhj->bhi", W, u, optimize=True),
        torch=lambda z, C, u: lambda: _by_fft(z, C, u),
        argument="u",
        summands=length + states,  # a power is a product of up to `length` factors
        slack=lambda z, C, u: transform_bound(kernel(np.abs(z), np.abs(C), length), u),
        notes=["dense and torch: the dense matrices are formed ahead, torch forms the kernel and runs the FFT"],
    )


def kernel(z: Array, C: Array, length: int) -> Array:
    """K[h,l] = sum over n of C[h,n] z[h,n]^l."""
    return np.einsum("hn,hnl->hl", C, z[:, :, None] ** np.arange(length))


def causal(K: Array) -> Array:
    """W[h,i,j] = K[h,i-j], zero above the diagonal."""
    i = np.arange(K.shape[1])
    return np.where(i[:, None] >= i, K[:, i[:, None] - i], 0)


def transform_bound(K: Array, u: Array) -> Array:
    """What a convolution by FFT may add: see `_system.transform_error`."""
    from _system import transform_error

    size = np.linalg.norm(K, axis=-1) * np.linalg.norm(u, axis=-1)
    return transform_error(2 * K.shape[1], np.float32) * np.broadcast_to(size[..., None], u.shape)


def _by_fft(z: Array, C: Array, u: Array) -> Array:
    import torch

    n = u.shape[-1]
    K = torch.einsum("hn,hnl->hl", C, z[:, :, None] ** torch.arange(n)).real
    return torch.fft.irfft(torch.fft.rfft(K, 2 * n) * torch.fft.rfft(u, 2 * n), 2 * n)[..., :n]


if __name__ == "__main__":
    main()
