"""PyTorch tensors in, PyTorch tensors out, without a copy."""

import stein


def main(n: int = 32) -> None:
    """Compare stein with torch on torch's own tensors."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed")
        return
    torch.manual_seed(0)
    A, B = torch.randn(n, n), torch.randn(n, n)
    C = stein.einsum("ij,kj->ik", A, B)
    assert isinstance(C, torch.Tensor)
    torch.testing.assert_close(C, A @ B.T, rtol=1e-4, atol=1e-4)

    layer = stein.compile("y[b,i] = relu(sum[j] W[i,j] * x[b,j] + c[i])", W=(n, n), dtype="float32")
    y = layer(W=A, x=B, c=torch.ones(n))
    torch.testing.assert_close(y, torch.relu(B @ A.T + 1), rtol=1e-4, atol=1e-4)

    half = stein.einsum("ij,jk->ik", A.bfloat16(), B.bfloat16())  # accumulates in float32
    print(type(C).__name__, C.dtype, "and", half.dtype)


if __name__ == "__main__":
    main()
