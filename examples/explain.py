"""Everything the compiler did can be seen: the plan, the IR at each stage, the generated code, the figures."""

import tempfile
from pathlib import Path

import numpy as np

import stein


def main(n: int = 64) -> None:
    """Compile one program and look at it from all sides."""
    f = stein.compile("y[i,j] = A[i,k] * B[j,l] * x[k,l]", A=(n, n), B=(n, n), x=(n, n), dtype="float32")
    f(*(np.ones((n, n), np.float32) for _ in range(3)))

    print("signature:", f.signature)
    print("flops:", f.stats["flops"])
    explanation = f.explain()
    print(explanation)  # a notebook shows the same as HTML

    print(f.ir("planned"))  # "elaborated", "normal", "planned"
    assembly = f.source("asm").splitlines()
    print(f"{len(f.source('llvm').splitlines())} lines of LLVM IR, {len(assembly)} lines of assembly")

    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("install stein[demo] to draw the contraction tree")
    else:
        with tempfile.TemporaryDirectory() as folder:
            picture = explanation.draw(Path(folder) / "tree.png")
            print(f"contraction tree: a picture of {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
