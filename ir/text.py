"""Programs as text that reads back: `parse_ir(print_program(p)) == p` for every program, legal or not.

Golden tests compare this text, `explain` and `Compiled.ir` show it, and passes are tested by writing it. One statement
a line; a line goes on inside brackets; `#` starts a comment.

    input A: f32[m, k]
    input const W: f32["2nd", 2*n-1] bsr(block=32) pad=0.0
    y[i, j]: f32[m, n] = relu(einsum[plustimes, f32](k; A[i, k], W[k, j-i+{n-1}])) over i<m, j<n, k<l
    require 32 divides n, code="block", sentence="...", help="...", values=[n]
    return y

In a slot names are indices, and sizes stand in braces: `{n}*i+j`, `(i-j) mod {n}`. A number carries its type
(`2.0:f32`); other expressions have the type that follows from their parts and say so only where theirs differs
(`add(a[i], b[i]):f64`). A name that is no word of letters, digits and inner dots, or that is a keyword, is quoted.
The two directions are `ir.text_print` and `ir.text_read`.
"""

from .text_print import print_equation, print_expr, print_program
from .text_read import parse_ir

__all__ = ["parse_ir", "print_equation", "print_expr", "print_program"]
