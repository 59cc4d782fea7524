"""What elaboration makes of statements: shapes, types, scopes, versions, flags: what values alone do not show."""

from typing import Any

import numpy as np
import pytest

from stein.frontend.declare import Declaration, parse_extent, parse_structure
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.bind import Binder, bind_sizes
from stein.ir.errors import (
    DTypeError,
    EinsumSyntaxError,
    EncryptionError,
    ShapeError,
    SteinError,
    StructureError,
)
from stein.ir.expr import Approx, Const, Einsum, Map, Position, Program, Read, SizeValue, Structure, walk
from stein.ir.interpret import interpret
from stein.ir.semiring import BOOLEAN, Semiring
from stein.ir.size import Size
from stein.ir.types import BF16, BOOL, C64, F16, F32, F64, I8, I32, I64, DType


def program(text: str, said: dict[str, Declaration] | None = None, **options: Any) -> Program:
    return elaborate(parse_program(text), said or {}, **options)


def typed(text: str, **dtypes: DType) -> DType:
    """The type of the last result, with the arguments' types given."""
    made = program(text, {n: Declaration(None, t) for n, t in dtypes.items()})
    return made.equations[-1].dtype


def test_undeclared_tensors_are_arguments_with_axes_of_their_own() -> None:
    p = program("y[i] = A[i,k]*x[k]")
    assert [i.name for i in p.inputs] == ["A", "x"]
    assert [[str(n) for n in i.shape] for i in p.inputs] == [["A.0", "A.1"], ["A.1"]]
    assert Binder(p)({"A": (2, 3), "x": (3,)}) == {"A.0": 2, "A.1": 3}
    assert not Binder(p).unsolved


def test_arguments_come_in_order_of_first_mention() -> None:
    p = program("y[i] = b[i] + A[i,k]*x[k]; z: f64[n]; w[i] = z[i]*y[i]")
    assert [i.name for i in p.inputs] == ["b", "A", "x", "z"]
    assert p.outputs == ("w",)


def test_bare_names_are_scalar_arguments_unless_keywords_list_the_arguments() -> None:
    p = program("y[i] = alpha*x[i] + beta", {"alpha": Declaration(None, F32)})
    assert [i.name for i in p.inputs if not i.shape] == ["alpha", "beta"] and p.inputs[0].dtype == F32
    with pytest.raises(EinsumSyntaxError, match="'alpha' is neither"):
        program("y[i] = alpha*x[i]", {"x": Declaration((3,))})
    with pytest.raises(EinsumSyntaxError, match="'alpa' is neither"):
        program("alpha: f64; x: f64[n]; y[i] = alpa*x[i]")


def test_a_product_is_one_einsum() -> None:
    expr = program("y[i] = A[i,k]*x[k]").equations[0].expr
    assert isinstance(expr, Einsum) and expr.bound == ("k",)
    assert all(isinstance(f, Read) for f in expr.factors)


def test_each_term_sums_its_own_indices_under_names_that_differ() -> None:
    equation = program("y[i] = A[i,k]*x[k] + B[i,k]*z[k]").equations[0]
    names = [i.name for i in equation.indices]
    assert len(set(names)) == len(names) == 3
    assert isinstance(equation.expr, Map) and equation.expr.function == "add"
    bound = [e.bound for e in walk(equation.expr) if isinstance(e, Einsum)]
    assert len(bound) == 2 and bound[0] != bound[1]


def test_parentheses_are_multiplied_out() -> None:
    expr = program("y[b,i] = (D[i,j] + U[i,r]*V[j,r])*x[b,j]").equations[0].expr
    assert isinstance(expr, Map) and [len(e.factors) for e in expr.args if isinstance(e, Einsum)] == [2, 3]


def test_elementwise_products_and_divisions() -> None:
    expr = program("y[i] = a[i]*b[i]/c[i]").equations[0].expr
    assert isinstance(expr, Map) and expr.function == "div"
    assert isinstance(expr.args[0], Einsum) and expr.args[0].bound == ()


def test_a_denominator_under_the_sum_is_a_factor() -> None:
    expr = program("y[i] = A[i,k]*x[k]/d[k]").equations[0].expr
    assert isinstance(expr, Einsum) and len(expr.factors) == 3


@pytest.mark.parametrize(
    ("text", "dtypes", "result"),
    [
        ("y[i] = x[i]*2", {"x": F32}, F32),
        ("y[i] = x[i]*2.5", {"x": I32}, F64),
        ("y[i] = x[i]*2.5", {"x": F16}, F16),
        ("y[i] = x[i]*2j", {"x": F32}, C64),
        ("y[i] = x[i]/2", {"x": I32}, F64),
        ("y[i] = x[i]*i", {"x": F32}, F32),
        ("y[i] = x[i]*i", {"x": I8}, I64),
        ("y[i] = x[i]*sqrt(2)", {"x": F32}, F32),
        ("y[i] = x[i]*z[i]", {"x": F32, "z": F64}, F64),
        ("y[i] = x[i] > 0", {"x": F32}, BOOL),
        ("y[i] = (x[i] > 0)*x[i]", {"x": F32}, F32),
        ("y[i] = i8(x[i])", {"x": F32}, I8),
        ("y[i] = abs(x[i])", {"x": C64}, F32),
        ("y[i] = exp(x[i])", {"x": I32}, F64),
        ("y[i] = x[i]^2", {"x": F32}, F32),
        ("y[i] = x[i]^-1", {"x": I32}, F64),
        ("s = any[i] x[i] > 1", {"x": F32}, BOOL),
        ("y[i] = max[k](A[i,k])", {"A": I8}, I8),
        ("y[i] = logsumexp[k](A[i,k])", {"A": I8}, F64),
        ("y[i] = softmax[i](x[i])", {"x": F32}, F32),
        ("y[i] = A[i,k]*x[k] over boolean", {"A": F32, "x": F32}, BOOL),
        ("y[i] = where(x[i] > 0, x[i], 0)", {"x": F32}, F32),
    ],
)
def test_types(text: str, dtypes: dict[str, DType], result: DType) -> None:
    assert typed(text, **dtypes) == result


def test_sizes_are_weak_numbers() -> None:
    p = program("x: f32[n]; y[i] = x[i]/sqrt(n)")
    assert p.equations[0].dtype == F32
    assert any(isinstance(e, SizeValue) for e in walk(p.equations[0].expr))


def test_accumulation_types() -> None:
    def accumulated(dtype: DType, **options: Any) -> DType:
        said = {"x": Declaration(None, dtype), "z": Declaration(None, dtype)}
        expr = program("s = x[i]*z[i]", said, **options).equations[0].expr
        assert isinstance(expr, Einsum) and expr.dtype == dtype
        return expr.accumulate

    assert [accumulated(t) for t in (BF16, F16, F32, I8)] == [F32, F32, F32, I8]
    assert accumulated(F32, accumulate=F64) == F64


def test_products_of_bools_are_or_and() -> None:
    expr = program("s = x[i]*z[i]", {n: Declaration(None, BOOL) for n in "xz"}).equations[0].expr
    assert isinstance(expr, Einsum) and expr.semiring == BOOLEAN and expr.dtype == BOOL
    with pytest.raises(DTypeError, match="no subtraction"):
        typed("y[i] = x[i] - z[i]", x=BOOL, z=BOOL)


def test_declared_results_convert_without_loss_only() -> None:
    assert typed("y: f64[n]; y[i] = x[i]", x=F32) == F64
    with pytest.raises(DTypeError, match="without loss"):
        typed("y: f32[n]; y[i] = x[i]", x=F64)
    assert typed("y: f32[n]; y[i] = 2*x[i]", x=I8) == F32


def test_default_type() -> None:
    assert program("y[i] = x[i]").inputs[0].dtype == F64
    assert program("y[i] = x[i]", default_dtype=F32).inputs[0].dtype == F32


def test_origins_become_offsets() -> None:
    p = program("w: f64[-2..3]; x: f64[n] pad=0\ny[i] = w[d]*x[i+d] for i in 0..n")
    w, x = (r for r in walk(p.equations[0].expr) if isinstance(r, Read))
    assert (str(w.slots[0]), str(x.slots[0]), x.pad) == ("d", "d+i-2", 0.0)
    assert [str(i.extent) for i in p.equations[0].indices] == ["n", "5"]
    assert p.inputs[0].origin == (Size.of(-2),)
    shifted = program("y[i] = x[i] for i in 2..5", {"x": Declaration((7,), None)})
    assert np.array_equal(interpret(shifted, {"x": np.arange(7.0)})["y"], [0, 0, 2, 3, 4])
    negative = program("y[i] = x[i+2] for i in -2..3", {"x": Declaration((7,), None)})
    assert np.array_equal(interpret(negative, {"x": np.arange(7.0)})["y"], [0, 1, 2, 3, 4])


def test_composites_are_affine_with_size_coefficients() -> None:
    p = program("y[b,(i k)] = L[k,i,j]*R[j,k,m]*x[b,(j m)]")
    assert str(p.equations[0].slots[1]) == "L.0*i+k"
    assert str(p.equations[0].shape[1]) == "L.0*L.1"
    divided = program("y[i,j] = x[(i j)]*a[i]")
    assert [c.relation for c in divided.constraints] == ["divides"]
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        bind_sizes(divided, {"x": (7,), "a": (2,)})


def test_strided_windows_have_symbolic_ranges() -> None:
    p = program("y[p] = x[2*p+u]*w[u]")
    sizes = bind_sizes(p, {"x": (10,), "w": (3,)})
    assert p.equations[0].shape[0].evaluate(sizes) == 4
    with pytest.raises(ShapeError, match="leaves its range"):
        bind_sizes(p, {"x": (2,), "w": (3,)})


def test_sizes_of_keyword_and_text_are_one() -> None:
    p = program("x: f64[n]; y[i] = x[i]/n", {"x": Declaration((4,), None)})
    assert p.inputs[0].shape == (Size.of(4),)
    assert interpret(p, {"x": np.ones(4)})["y"][0] == 0.25
    with pytest.raises(ShapeError, match="3 by the keyword"):
        program("x: f64[2]; y[i] = x[i]", {"x": Declaration((3,), None)})
    with pytest.raises(DTypeError, match="by the keyword"):
        program("x: f64[2]; y[i] = x[i]", {"x": Declaration(None, F32)})


def test_sizes_that_only_results_mention_are_found() -> None:
    p = program("y: f64[m]; y[i] = x[i]")
    assert [str(n) for n in p.equations[0].shape] == ["x.0"]


def test_adding_makes_versions() -> None:
    p = program("y[i] = A[i,k]*x[k]; y[i] += b[i]; y[i] += b[i]")
    assert [(e.name, e.update) for e in p.equations] == [("y.0", None), ("y.1", "y.0"), ("y", "y.1")]
    assert p.outputs == ("y",)
    between = program("y[i] = x[i]; z[i] = 2*y[i]; y[i] += z[i]; return y, z")
    assert np.array_equal(interpret(between, {"x": np.ones(2)})["y"], [3, 3])
    d = program("d[i,j] += A[i,k]*B[k,j] over minplus")
    assert d.inputs[0].name == "d" and d.equations[0].update == "d" and d.outputs == ("d.1",)
    assert d.equations[0].semiring.name == "minplus"
    with pytest.raises(EinsumSyntaxError, match="assigned twice"):
        program("y[i] += x[i]; y[i] = x[i]")
    with pytest.raises(ShapeError, match="size of 'i'"):
        bind_sizes(program("y[i] += x[i]"), {"y": (3,), "x": (4,)})


def test_results() -> None:
    assert program("a[i] = x[i]; b[i] = x[i]").outputs == ("a", "b")
    assert program("a[i] = x[i]; b[i] = a[i]").outputs == ("b",)
    assert program("a[i] = x[i]; b[i] = a[i]; return b, a").outputs == ("b", "a")
    with pytest.raises(EinsumSyntaxError, match="computes nothing"):
        program("x: f64[n]")
    with pytest.raises(EinsumSyntaxError, match="second return"):
        program("a[i] = x[i]; return a; return a")


def test_whole_tensors_become_einsums() -> None:
    two = {"A": Declaration(("m", "n"), None), "x": Declaration(("m",), None), "b": Declaration(("n",), None)}
    p = program("y = A' @ x + 2*b", two)
    assert isinstance(p.equations[0].expr, Map)
    einsum = p.equations[0].expr.args[0]
    assert isinstance(einsum, Einsum) and len(einsum.bound) == 1 and len(einsum.factors) == 2


def test_kron_is_never_stored() -> None:
    said = {n: Declaration((f"{n}0", f"{n}1"), None) for n in "AB"} | {"x": Declaration(("p",), None)}
    p = program("y = kron(A, B) @ x", said)
    assert len(p.equations) == 1
    arrays = {"A": np.arange(6.0).reshape(2, 3), "B": np.arange(8.0).reshape(4, 2), "x": np.arange(6.0)}
    assert np.array_equal(interpret(p, arrays)["y"], np.kron(arrays["A"], arrays["B"]) @ arrays["x"])


def test_kron_products_that_divide_an_axis_differently() -> None:
    shapes = {"A": (2, 3), "B": (2, 2), "C": (2, 3), "D": (3, 2)}
    said = {n: Declaration(s, None) for n, s in shapes.items()}
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(-3, 4, s).astype(float) for n, s in shapes.items()}
    p = program("Y = kron(A, B) @ kron(C, D)", said)
    want = np.kron(arrays["A"], arrays["B"]) @ np.kron(arrays["C"], arrays["D"])
    assert np.array_equal(interpret(p, arrays)["Y"], want)
    p = program("Y = kron(A, B) + kron(B, A)", said)
    want = np.kron(arrays["A"], arrays["B"]) + np.kron(arrays["B"], arrays["A"])
    assert np.array_equal(interpret(p, arrays)["Y"], want)


def test_special_tensors_are_no_arguments() -> None:
    p = program(
        "I: f64[n,n] identity; y = (A + 2*I) @ x", {n: Declaration(("n",) * r, F32) for n, r in (("A", 2), ("x", 1))}
    )
    assert [i.name for i in p.inputs] == ["A", "x"]
    assert any(isinstance(e, Map) and e.function == "eq" for e in walk(p.equations[0].expr))
    assert p.equations[0].dtype == F64
    z = program("Z: f64[n] zeros; O: f64[n] ones; y[i] = x[i] + 2*O[i] + Z[i]")
    assert [i.name for i in z.inputs] == ["x"]
    assert np.array_equal(interpret(z, {"x": np.ones(3)})["y"], [3, 3, 3])


def test_index_and_size_values() -> None:
    p = program("x: f64[n]; y[i] = (i >= j)*x[j] for i in 0..n")
    assert sum(isinstance(e, Position) for e in walk(p.equations[0].expr)) == 2


def test_literals_are_folded() -> None:
    expr = program("y[i] = -2*3*A[i,k]*x[k]").equations[0].expr
    assert isinstance(expr, Einsum) and [e.value for e in expr.factors if isinstance(e, Const)] == [-6.0]


def test_approx_stays_visible() -> None:
    p = program("h[i] = approx(sigmoid, degree=3, range=-8..8)(x[i])")
    expr = p.equations[0].expr
    assert isinstance(expr, Map) and expr.function == "sigmoid" and expr.approx == Approx(3, -8.0, 8.0)
    for wrong in (
        "approx(sigmoid)(x[i])",
        "approx(2, degree=3, range=0..1)(x[i])",
        "approx(exp, degree=3, range=1..0)(x[i])",
    ):
        with pytest.raises(EinsumSyntaxError, match="approx"):
            program(f"h[i] = {wrong}")


def test_user_semirings() -> None:
    tropical = Semiring("tropical", "minimum", "add", "inf", 0, idempotent=True)
    p = program("y[i] = A[i,k]*x[k] over tropical", semirings={"tropical": tropical})
    assert p.equations[0].semiring == tropical
    with pytest.raises(EinsumSyntaxError, match="no semiring"):
        program("y[i] = A[i,k]*x[k] over tropical")


def test_declared_structures_reach_the_input() -> None:
    p = program("W: const f64[m,n] bsr(block=(4,2)) pad=0; y[i] = W[i,j]*x[j]", {"W": Declaration((8, 6), None)})
    w = p.inputs[0]
    assert w.const and w.pad == 0.0
    assert w.structure == (Structure("bsr", (("block", Size.of(4)), ("block", Size.of(2)))),)
    with pytest.raises(StructureError, match="does not divide axis 1"):
        program("W: f64[8,6] bsr(block=4); y[i] = W[i,j]*x[j]")
    symbolic = program("W: f64[m,n] bsr(block=4); y[i] = W[i,j]*x[j]")
    with pytest.raises(StructureError, match="does not divide axis 1"):
        bind_sizes(symbolic, {"W": (8, 6), "x": (6,)})


def test_encryption_flows_through_statements() -> None:
    p = program("x: encrypted f64[n]; h[i] = 2*x[i]; y[i] = h[i]*h[i]")
    assert p.inputs[0].encrypted
    for wrong in ("y[i] = exp(h[i])", "y[i] = 1/h[i]", "y[i] = (h[i] > 0)*x[i]", "y = max[i] h[i]", "y[i] = 2^h[i]"):
        with pytest.raises(EncryptionError):
            program(f"x: encrypted f64[n]; h[i] = 2*x[i]; {wrong}")
    program("x: encrypted f64[n]; y[i] = x[i]^2 + conj(x[i])")


def test_structure_texts_and_extents() -> None:
    assert parse_structure("") == ()
    assert [t.name for t in parse_structure("lower toeplitz")] == ["lower", "toeplitz"]
    assert parse_structure("banded(lo=1, hi=k)")[0].options == (("lo", Size.of(1)), ("hi", Size.name("k")))
    assert str(parse_extent("2*n-1")) == "2*n-1" and parse_extent(3) == Size.of(3)
    for wrong in ("bsr(32)", "f64[3]", "bsr(block=x.y)", "lowrank(r=(1,2))"):
        with pytest.raises(SteinError):
            parse_structure(wrong)
    with pytest.raises(SteinError):
        parse_extent("2*")


def test_long_sums_and_products_give_an_error_or_a_program() -> None:
    assert len(program("y[i] = " + "*".join(f"x{k}[i]" for k in range(100))).inputs) == 100
    with pytest.raises(EinsumSyntaxError, match="more than 100 terms"):
        program("y[i] = " + "*".join(["(x[i] + z[i])"] * 20))
    with pytest.raises(EinsumSyntaxError, match="more than 2000 terms"):
        program("y[i] = " + "(x[i] + 1)*exp(" * 30 + "x[i]" + ")" * 30)
    with pytest.raises(EinsumSyntaxError, match="nested more than"):
        program("y[i] = " + "+".join(["x[i]"] * 10_000))
    with pytest.raises(EinsumSyntaxError, match="a number of"):
        program("y[i] = x[i]*" + "9" * 5000)
    assert program("y[i] = x[i]*2^100000").outputs == ("y",)


def test_normalised_names() -> None:
    p = program("ﬁ[i] = x[i]; y[i] = fi[i]")  # the ligature is NFKC "fi"
    assert p.outputs == ("y",) and [e.name for e in p.equations] == ["fi", "y"]


def test_an_index_keeps_every_affine_access_inside() -> None:
    p = program("y[p] = x[p+u]*w[u]*z[p+2*v]*q[v]")
    for shapes, extent in (((5, 2, 9, 3), 4), ((9, 2, 7, 3), 3)):
        given = {n: (k,) for n, k in zip("xwzq", shapes, strict=True)}
        assert p.equations[0].shape[0].evaluate(bind_sizes(p, given)) == extent
        interpret(p, {n: np.ones(s) for n, s in given.items()})


def test_a_reduced_index_means_nothing_beside_its_sum() -> None:
    for text in ("y[i] = (b[i] + sum[k] A[i,k])*x[k]", "y[i] = x[k]*(b[i] + sum[k] A[i,k])"):
        with pytest.raises(EinsumSyntaxError, match="reduced beside this"):
            program(text)
