"""Programs that the GPU backend is held to: text, shapes by tensor, and the types they are checked in.

Plain data, imported by the tests and by the process that runs them in Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Case:
    """One program. Kind "product" has sums and products only (its bound is a formula), "function" anything (its bound
    is followed point by point), "exact" has integers or jumps and must give what the definition gives.

    `texts` are the types of tensors whose type is not that of the case.
    """

    name: str
    text: str
    shapes: dict[str, tuple[int, ...]]
    kind: str = "product"
    dtypes: tuple[str, ...] = FLOATS
    texts: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


def _case(name: str, text: str, kind: str = "product", dtypes: tuple[str, ...] = FLOATS, /, **shapes: object) -> Case:
    types = {n: s[-1] for n, s in shapes.items() if isinstance(s, tuple) and s and isinstance(s[-1], str)}
    sizes = {n: tuple(d for d in s if isinstance(d, int)) for n, s in shapes.items() if isinstance(s, tuple)}
    return Case(name, text, sizes, kind, dtypes, types)


INTEGERS = ("int8", "int32", "int64", "uint8")
SHORT = ("float32",)

PRODUCTS = (
    _case("matrix", "y[i,k] = A[i,j] * B[j,k]", A=(100, 90), B=(90, 72)),
    _case("matrix_nt", "y[i,k] = A[i,j] * B[k,j]", A=(65, 48), B=(33, 48)),
    _case("matrix_tn", "y[i,k] = A[j,i] * B[j,k]", A=(48, 65), B=(48, 33)),
    _case("matrix_to_transposed", "y[k,i] = A[i,j] * B[j,k]", A=(65, 48), B=(48, 33)),
    _case("narrow_rows", "y[i,k] = A[i,j] * B[j,k]", A=(17, 64), B=(64, 128)),
    _case("tall", "y[i,k] = A[i,j] * B[j,k]", A=(200, 16), B=(16, 9)),
    _case("batched", "y[b,i,k] = A[b,i,j] * B[b,j,k]", A=(3, 40, 33), B=(3, 33, 20)),
    _case("batch_inside", "y[i,b,k] = A[i,b,j] * B[j,k,b]", A=(20, 3, 33), B=(33, 20, 3)),
    _case("one_batch", "y[b,i,k] = A[b,i,j] * B[j,k]", A=(5, 20, 33), B=(33, 24)),
    _case("vector", "y[i] = A[i,j] * x[j]", A=(70, 90), x=(90,)),
    _case("vector_columns", "y[j] = A[i,j] * x[i]", A=(70, 90), x=(70,)),
    _case("dot", "y = sum[i] x[i] * z[i]", x=(1000,), z=(1000,)),
    _case("outer", "y[i,j] = x[i] * z[j]", x=(70,), z=(33,)),
    _case("norm", "y[i] = sum[j] A[i,j] * A[i,j]", A=(33, 70)),
    _case("gram", "y[i,k] = A[i,j] * A[k,j]", A=(40, 70)),
    _case("sum_rows", "y[i] = sum[j] A[i,j]", A=(33, 300)),
    _case("sum_columns", "y[j] = sum[i] A[i,j]", A=(300, 33)),
    _case("sum_all", "y = sum[i,j] A[i,j]", A=(40, 50)),
    _case("sum_middle", "y[i,k] = sum[j] A[i,j,k]", A=(9, 20, 33)),
    _case("trace", "y = sum[i] A[i,i]", A=(50, 50)),
    _case("diagonal", "y[i] = A[i,i]", A=(50, 50)),
    _case("to_diagonal", "y[i,i] = x[i]", x=(40,)),
    _case("transposed", "y[j,i] = A[i,j]", A=(70, 33)),
    _case("permuted", "y[k,i,j] = A[i,j,k]", A=(7, 20, 33)),
    _case("kronecker", "y[b,i,j] = A[i,k] * B[j,l] * x[b,k,l]", A=(16, 16), B=(20, 20), x=(5, 16, 20)),
    _case(
        "three_digits",
        "y[b,i,j,k] = A[i,l] * B[j,m] * C[k,n] * x[b,l,m,n]",
        A=(8, 8),
        B=(6, 6),
        C=(9, 9),
        x=(3, 8, 6, 9),
    ),
    _case("monarch", "y[b,l,j] = L[j,l,k] * R[k,j,i] * x[b,k,i]", L=(8, 9, 7), R=(7, 8, 10), x=(5, 7, 10)),
    _case("low_rank", "y[b,i] = U[i,r] * V[r,j] * x[b,j]", U=(40, 8), V=(8, 50), x=(9, 50)),
    _case(
        "plus_low_rank",
        "y[b,i] = W[i,j]*x[b,j] + sum[j,r] U[i,r]*V[r,j]*x[b,j]",
        W=(40, 50),
        U=(40, 8),
        V=(8, 50),
        x=(9, 50),
    ),
    _case("mttkrp", "y[i,r] = T[i,j,k] * B[j,r] * C[k,r]", T=(10, 12, 14), B=(12, 8), C=(14, 8)),
    _case("high_order", "y[a,b,d,c] = x[a,e,b,f] * w[d,f,c,e]", x=(4, 6, 5, 7), w=(3, 7, 8, 6)),
    _case("bilinear", "y[b,o] = x[b,i] * W[o,i,j] * z[b,j]", x=(6, 9), W=(7, 9, 10), z=(6, 10)),
    _case("hadamard_product", "y[i,j] = A[i,j] * B[i,j] * C[j]", A=(20, 33), B=(20, 33), C=(33,)),
    _case("sum_of_terms", "y[i] = A[i,j]*x[j] + b[i] + 2*z[i]", A=(30, 40), x=(40,), b=(30,), z=(30,)),
    _case("two_results", "y[i] = A[i,j]*x[j]; z[j] = A[i,j]*y[i]\nreturn y, z", A=(30, 40), x=(40,)),
    _case("toeplitz", "y[b,i] = t[i-j+39] * x[b,j] for i in 0..40", t=(79,), x=(5, 40)),
    _case("hankel", "y[b,i] = t[i+j] * x[b,j] for i in 0..30", t=(69,), x=(5, 40)),
    _case("circulant", "y[i] = c[(i-j) mod 37] * x[j] for i in 0..37", c=(37,), x=(37,)),
    _case("convolution", "y[b,p] = x[b,p+u] * w[u] for p in 0..58", x=(4, 64), w=(7,)),
    _case("strided_convolution", "y[p,o] = x[2*p+u,c] * w[o,u,c] for p in 0..15", x=(32, 5), w=(6, 3, 5)),
    _case("padded_convolution", "x: pad=0\ny[p] = x[p+u-1] * w[u] for p in 0..40", x=(40,), w=(3,)),
    _case(
        "image",
        "x: pad=0\ny[o,p,q] = x[c,p+u-1,q+v-1] * w[o,c,u,v] for p in 0..10, q in 0..12",
        x=(3, 10, 12),
        w=(4, 3, 3, 3),
    ),
    _case(
        "padded_channels",
        "x: pad=0\ny[o,p] = x[c,p+u-1] * w[o,c,u] for p in 0..40",
        x=(16, 40),
        w=(20, 16, 3),
    ),
    _case("turned", "y[i] = x[(i+3) mod 60] * z[i]", x=(60,), z=(60,)),
    _case("turned_back", "y[i,j] = x[(i-7) mod 30, j] * z[i]", x=(30, 20), z=(30,)),
    _case("reversed", "y[i] = x[49-i] * z[i]", x=(50,), z=(50,)),
    _case("composite", "y[(i k)] = A[i,j] * x[j,k]", A=(12, 9), x=(9, 10)),
    _case("split", "y[i,k] = x[(i k)] * z[k] for i in 0..12", x=(120,), z=(10,)),
    _case("spread_result", "y[2*i+1] = x[i] * 3", x=(30,)),
    _case("fold", "y[i+j] = x[i] * z[j]", x=(20,), z=(9,)),
    _case("gather", "y[s,b] = x[J[s],b]", x=(20, 33), J=(50, "int32")),
    _case("gather_product", "y[s,k] = x[J[s],j] * W[j,k]", x=(20, 33), W=(33, 18), J=(50, "int64")),
    _case("embedding_bag", "y[b,d] = sum[s] E[J[b,s],d]", E=(20, 33), J=(6, 4, "int64")),
    _case("scatter", "y[i,a] = (i == I[s]) * t[s,a] for i in 0..20", t=(50, 12), I=(50, "int32")),
    _case(
        "block_list",
        "y[i,a] = (i == I[s]) * w[s,a,c] * x[J[s],c] for i in 0..6",
        w=(10, 8, 9),
        x=(5, 9),
        I=(10, "int32"),
        J=(10, "int32"),
    ),
    _case("update", "y[i] += A[i,j] * x[j]", A=(30, 20), x=(20,), y=(30,)),
    _case("update_part", "y[2*i] += x[i]", x=(30,), y=(64,)),
    _case("constant", "y[i] = x[i] * 2.5 + 1", x=(100,)),
    _case("broadcast", "y[i,j] = x[i] + z[j]", x=(30,), z=(40,)),
    _case("triangle", "y[i] = (i >= j) * A[i,j] * x[j]", A=(30, 30), x=(30,)),
    _case("band", "y[i] = (i-j <= 2) * (j-i <= 1) * A[i,j] * x[j]", A=(30, 30), x=(30,)),
    _case("long_sum", "y = sum[i] x[i]", x=(90000,)),
    _case("long_sum_and_more", "y = 1 + 0.5 * (sum[i] x[i])", x=(90001,)),
    _case("long_rows", "y[i] = sum[j,k] A[i,j,k] * A[i,j,k]", A=(2, 70, 130)),
    _case("long_inner", "y[i,k] = A[j,i] * B[j,k]", A=(1500, 17), B=(1500, 19)),
)

FUNCTIONS = (
    _case("exp", "y[i] = exp(x[i])", "function", x=(60,)),
    _case("functions", "y[i] = tanh(x[i]) + sigmoid(z[i]) * erf(x[i])", "function", x=(60,), z=(60,)),
    _case("activations", "y[i] = gelu(x[i]) + silu(z[i]) + relu(x[i])", "function", x=(60,), z=(60,)),
    _case("waves", "y[i] = sin(x[i]) * cos(x[i])", "function", x=(60,)),
    _case("small_tanh", "y[i] = tanh(0.01 * x[i])", "function", SHORT, x=(60,)),
    _case("roots", "y[i] = sqrt(abs(x[i]) + 1) / (z[i]*z[i] + 1)", "function", x=(60,), z=(60,)),
    _case("logarithm", "y[i] = log(x[i]*x[i] + 1)", "function", x=(60,)),
    _case("power", "y[i] = (abs(x[i]) + 1)^2.5", "function", SHORT, x=(40,)),
    _case("cube", "y[i] = x[i]^3", "function", x=(40,)),
    _case("choice", "y[i] = where(x[i] > z[i], x[i], -z[i])", "exact", x=(60,), z=(60,)),
    _case("steps", "y[i] = floor(x[i]) + ceil(z[i]) + round(2*x[i]) + sign(z[i])", "exact", x=(60,), z=(60,)),
    _case("clip", "y[i] = clip(x[i], -1, 1)", "exact", x=(60,)),
    _case("fused_ends", "y[i,k] = exp(0.1 * (sum[j] A[i,j] * B[j,k]))", "function", A=(18, 20), B=(20, 17)),
    _case("bias_relu", "y[i,k] = relu((sum[j] A[i,j] * B[j,k]) + c[k])", "function", A=(18, 20), B=(20, 17), c=(17,)),
    _case("softmax", "y[i,j] = softmax[j](A[i,j])", "function", A=(10, 33)),
    _case(
        "attention",
        "s[q,k] = sum[d] Q[q,d] * K[k,d]; p[q,k] = softmax[k](s[q,k]); y[q,e] = sum[k] p[q,k] * V[k,e]",
        "function",
        SHORT,
        Q=(10, 16),
        K=(12, 16),
        V=(12, 8),
    ),
    _case("largest", "y[i] = max[j](A[i,j])", "exact", A=(20, 70)),
    _case("least", "y = min[i,j](A[i,j])", "exact", A=(20, 30)),
    _case("shortest_paths", "y[i,k] = A[i,j] * B[j,k] over minplus", "function", A=(18, 20), B=(20, 17)),
    _case("widest_paths", "y[i,k] = A[i,j] * B[j,k] over maxmin", "exact", A=(18, 20), B=(20, 17)),
    _case("viterbi", "y[i] = A[i,j] * x[j] over maxplus", "function", A=(20, 33), x=(33,)),
    _case("logsumexp", "y[i] = logsumexp[j](A[i,j])", "function", A=(6, 33)),
    _case("log_product", "y[i,k] = A[i,j] * B[j,k] over logsumexp", "function", SHORT, A=(6, 9), B=(9, 5)),
    _case("product_of_all", "y[i] = prod[j](A[i,j])", "function", SHORT, A=(5, 6)),
    _case("edge_pad", "x: pad=edge\ny[i] = x[i+1] + x[i-1] for i in 0..30", "function", x=(30,)),
    _case("wrap_pad", "x: pad=wrap\ny[i] = x[i+1] + x[i-1] for i in 0..30", "function", x=(30,)),
    _case("number_pad", "x: pad=1.5\ny[i] = sum[u] x[i+u-2] * w[u] for i in 0..30", "function", x=(30,), w=(5,)),
    _case("positions", "y[i] = i * x[i] + i^2", "function", SHORT, x=(20,)),
    _case("position_weights", "y[i] = sum[j] x[j] / (1 + abs(i - j)) for i in 0..12", "function", SHORT, x=(20,)),
)

EXACT = (
    _case("int_matrix", "y[i,k] = A[i,j] * B[j,k]", "exact", INTEGERS, A=(40, 33), B=(33, 20)),
    _case("int_sum", "y[i] = sum[j] A[i,j]", "exact", INTEGERS, A=(20, 70)),
    _case("int_elementwise", "y[i] = x[i]*x[i] + 3*z[i]", "exact", INTEGERS, x=(50,), z=(50,)),
    _case("int_largest", "y[i] = max[j](A[i,j])", "exact", INTEGERS, A=(20, 33)),
    _case("int_minplus", "y[i,k] = A[i,j] * B[j,k] over minplus", "exact", ("int32", "int64"), A=(18, 20), B=(20, 17)),
    _case("int_power", "y[i] = x[i]^3", "exact", ("int32", "int64"), x=(50,)),
    _case("int_fold", "y[i+j] = x[i] * z[j]", "exact", INTEGERS, x=(20,), z=(9,)),
    _case("int_scatter", "y[i] = (i == I[s]) * t[s] for i in 0..20", "exact", INTEGERS, t=(50,), I=(50, "int32")),
    _case("reachable", "y[i,k] = A[i,j] * B[j,k] over boolean", "exact", ("bool",), A=(20, 33), B=(33, 18)),
    _case("any_true", "y[i] = any[j](A[i,j])", "exact", ("bool",), A=(20, 33)),
    _case("all_true", "y[i] = all[j](A[i,j])", "exact", ("bool",), A=(20, 3)),
    _case("double_matrix", "y[i,k] = A[i,j] * B[j,k]", "product", ("float64",), A=(40, 33), B=(33, 20)),
    _case("double_functions", "y[i] = exp(x[i]) * tanh(x[i])", "function", ("float64",), x=(50,)),
    _case("long_largest", "y = max[i](x[i])", "exact", ("float32", "int32"), x=(90000,)),
    _case("complex_matrix", "y[i,k] = A[i,j] * B[j,k]", "product", ("complex64", "complex128"), A=(20, 33), B=(33, 18)),
    _case(
        "complex_functions",
        "y[i] = exp(x[i]) * conj(z[i]) + real(x[i]) / abs(z[i])",
        "function",
        ("complex64",),
        x=(20,),
        z=(20,),
    ),
    _case(
        "complex_three",
        "y[i] = A[i,j] * conj(x[j]) * z[j] + 2*w[i]",
        "product",
        ("complex64",),
        A=(9, 10),
        x=(10,),
        z=(10,),
        w=(9,),
    ),
    _case("complex_update", "y[i] += sum[j] x[i,j]", "product", ("complex64",), x=(20, 30), y=(20,)),
    _case("mixed", "y[i] = A[i,j] * x[j]", "product", ("float32",), A=(20, 30, "float16"), x=(30,)),
    _case("cast", "y[i] = f32(x[i]) * z[i]", "product", ("float32",), x=(40, "int32"), z=(40,)),
)

CASES: tuple[Case, ...] = PRODUCTS + FUNCTIONS + EXACT
