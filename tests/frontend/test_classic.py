"""Classic strings and interleaved lists: the hand-written parser against the grammar, and what they mean."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stein.frontend.classic import (
    Term,
    check_shapes,
    elaborate_spec,
    parse_interleaved,
    parse_spec,
)
from stein.frontend.parser import lark_parser
from stein.ir.errors import DTypeError, EinsumSyntaxError, ShapeError, SteinError
from stein.ir.interpret import interpret
from stein.ir.semiring import BOOLEAN, MAX_PLUS
from stein.ir.types import BF16, BOOL, F32, F64, I8, I64, DType, dtype_of


def lark_terms(text: str, start: str) -> list[list[Any]] | None:
    """The slots of each group by the grammar, None if it refuses the text."""
    from lark.exceptions import UnexpectedInput

    try:
        tree = lark_parser(start).parse(text)
    except UnexpectedInput:
        return None
    terms = []
    for group in tree.children[0].children:
        if not hasattr(group, "children"):
            continue  # the arrow
        terms.append([tuple(map(str, c.children)) if hasattr(c, "children") else str(c) for c in group.children])
    return terms


ONE_CHAR = st.text(alphabet="iijkÅ×0Z.,->()  \t", max_size=14)
PIECES = st.lists(st.sampled_from(["i", "j", "ij", "...", ",", "->", "(i j)", " ", "%", "..", "é", "\n"]), max_size=9)


@given(ONE_CHAR | PIECES.map("".join))
@settings(max_examples=400, deadline=None)
def test_hand_parser_and_grammar_agree(text: str) -> None:
    expected = lark_terms(text, "einsum")
    try:
        spec = parse_spec(text)
    except EinsumSyntaxError as error:
        # What the grammar cannot say: an ellipsis twice in a term, an output label that no operand has.
        assert expected is None or error.code in ("second-ellipsis", "unknown-label")
        return
    groups = [list(t.slots) for t in (*spec.inputs, *([spec.output] if spec.explicit else []))]
    assert groups == expected


@given(st.lists(st.sampled_from(["row", "col", "a1", "_b", "é", "...", ",", "->", "(row col)", " ", "9"]), max_size=9))
@settings(max_examples=200, deadline=None)
def test_hand_parser_and_grammar_agree_on_names(pieces: list[str]) -> None:
    text = " ".join(pieces)
    expected = lark_terms(text, "einsum_names")
    try:
        spec = parse_spec(text, True)
    except EinsumSyntaxError as error:
        assert expected is None or error.code in ("second-ellipsis", "unknown-label")
        return
    assert [list(t.slots) for t in (*spec.inputs, *([spec.output] if spec.explicit else []))] == expected


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("ij,jk", ("i", "k")),
        ("ba", ("a", "b")),
        ("ii", ()),
        ("...ij,jk", ("...", "i", "k")),
        ("", ()),
        (",", ()),
        ("i j , j k", ("i", "k")),
    ],
)
def test_implicit_output(text: str, output: tuple[str, ...]) -> None:
    assert parse_spec(text).output.slots == output
    assert parse_spec(text) is parse_spec(text)


def run(spec_text: str, *arrays: Any, names: bool = False, **options: Any) -> Any:
    spec = parse_spec(spec_text, names)
    values = [np.asarray(a) for a in arrays]
    shapes = [v.shape for v in values]
    check_shapes(spec, shapes)
    program = elaborate_spec(
        spec,
        tuple(v.ndim for v in values),
        tuple(tuple(n == 1 for n in s) for s in shapes),
        tuple(dtype_of(v.dtype) for v in values),
        **options,
    )
    return interpret(program, {f"op{k}": v for k, v in enumerate(values)})["out"]


RNG = np.random.default_rng(1)


def whole(*shape: int) -> Any:
    return RNG.integers(-4, 5, shape)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk->ik", [(2, 1), (3, 4)]),
        ("ij,jk->ik", [(1, 1), (1, 1)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (1, 3, 4)]),
        ("...ij,...jk->...ik", [(2, 5, 2, 3), (5, 3, 4)]),
        ("i...->...", [(3, 2)]),
        ("ii->i", [(3, 3)]),
        ("iij,jk", [(3, 3, 2), (2, 4)]),
        (",i->i", [(), (3,)]),
        ("ab,bc,cd,da->", [(2, 3), (3, 4), (4, 2), (2, 2)]),
        ("ij->", [(0, 3)]),
    ],
)
def test_values_are_those_of_numpy(text: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [whole(*s) for s in shapes]
    assert np.array_equal(run(text, *arrays), np.einsum(text, *arrays))


def test_ellipsis_that_the_output_lacks_is_summed() -> None:
    a = whole(2, 4, 3)
    assert np.array_equal(run("...i->i", a), a.sum((0, 1)))


def test_composite_axes() -> None:
    a, b = whole(6, 5), whole(2)
    assert np.array_equal(run("(i j)k,i->jk", a, b), np.einsum("ijk,i->jk", a.reshape(2, 3, 5), b))
    assert np.array_equal(run("ij->(j i)", a), a.T.reshape(-1))
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        check_shapes(parse_spec("(i j),i->j"), [(7,), (2,)])
    with pytest.raises(ShapeError, match="cannot both be told"):
        check_shapes(parse_spec("(i j)->i"), [(6,)])
    with pytest.raises(ShapeError, match="is not i=2 x j=2"):
        check_shapes(parse_spec("(i j),i,j->ij"), [(6,), (2,), (2,)])


def test_diagonal_output() -> None:
    v = whole(3)
    assert np.array_equal(run("i->ii", v, diagonal_output=True), np.diag(v))
    with pytest.raises(EinsumSyntaxError, match="twice in the output"):
        run("i->ii", v)


def test_named_labels() -> None:
    a, b = whole(2, 3), whole(3, 4)
    assert np.array_equal(run("row col, col out -> out row", a, b, names=True), (a @ b).T)
    assert parse_spec("row col").labels == ("r", "o", "w", "c", "l")


def test_semirings_and_types() -> None:
    a, b = RNG.random((2, 3)), RNG.random((3, 2))
    assert np.array_equal(run("ij,jk->ik", a, b, semiring=MAX_PLUS), (a[:, :, None] + b).max(1))
    flags = RNG.random((2, 3)) > 0.5
    assert run("ij->i", flags).dtype == bool

    def einsum(*dtypes: DType, **options: Any) -> Any:
        spec = parse_spec(",".join("i" for _ in dtypes) + "->")
        return elaborate_spec(spec, (1,) * len(dtypes), ((False,),) * len(dtypes), dtypes, **options).equations[0].expr

    assert (einsum(BF16).dtype, einsum(BF16).accumulate) == (BF16, F32)
    assert (einsum(F32, F64).dtype, einsum(F32, I64).dtype, einsum(I8).accumulate) == (F64, F64, I8)
    assert einsum(BOOL, BOOL).semiring == BOOLEAN and einsum(BOOL, F32).dtype == F32
    assert (einsum(F32, accumulate=F64).accumulate, einsum(F32, dtype=F64).dtype) == (F64, F64)
    with pytest.raises(DTypeError, match="cannot be kept"):
        einsum(F32, accumulate=I64)


def test_mixed_types_promote_before_the_first_product() -> None:
    """numpy with optimize=True and opt_einsum give 2.0 here."""
    assert run("ab,a,c->", np.ones((3, 4), bool), np.ones(3, bool), np.ones(2)) == 24.0


def test_many_labels_and_any_alphabet() -> None:
    letters = [chr(c) for c in range(0x3B1, 0x3B1 + 17)] + list("0123456789") + [chr(0x4E00 + k) for k in range(40)]
    spec = parse_spec(",".join(letters[k] + letters[k + 1] for k in range(66)))
    program = elaborate_spec(spec, (2,) * 66, ((False, False),) * 66, (F64,) * 66)
    assert len(program.equations[0].indices) == 67
    assert all(i.name.isidentifier() for i in program.equations[0].indices)


def test_interleaved_lists() -> None:
    spec, operands = parse_interleaved(["A", [0, 1], "B", [1, 2], [0, 2]])
    assert operands == ("A", "B")
    assert [t.slots for t in spec.inputs] == [("0", "1"), ("1", "2")] and spec.output.slots == ("0", "2")
    spec, _ = parse_interleaved(["A", [10, 9], "B", [9, 2]])
    assert spec.output.slots == ("2", "10")  # sorted as numbers
    spec, _ = parse_interleaved(["A", [Ellipsis, "b", "a"]])
    assert spec.output.slots == ("...", "a", "b")
    assert len(parse_interleaved(["A", [np.int64(3), -1]])[0].output.slots) == 2
    assert parse_interleaved(["A", ["x", 0]])[0].labels  # kinds may be mixed
    for wrong in ([5, "A"], ["A"], ["A", [0], "B"]):
        with pytest.raises(DTypeError):
            parse_interleaved(wrong)
    with pytest.raises(DTypeError, match="cannot be a label"):
        parse_interleaved(["A", [0.5]])


def test_numbers_and_texts_as_labels_differ() -> None:
    spec, _ = parse_interleaved(["A", [0, "0"]])
    assert len(set(spec.labels)) == 2


@given(st.text(max_size=20), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_text_parses_or_is_refused(text: str, names: bool) -> None:
    try:
        spec = parse_spec(text, names)
    except SteinError as error:
        assert error.line >= 1 and str(error)
        return
    assert all(isinstance(t, Term) for t in spec.inputs)
