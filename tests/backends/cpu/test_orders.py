"""The order of intermediates: chosen by price, kept by sizes, and never visible in a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stein
from stein.backends.cpu import orders
from stein.backends.cpu.native_record import Layout
from stein.backends.cpu.orders import Orders
from stein.backends.cpu.program import CpuProgram
from stein.ir.text import parse_ir
from stein.ir.types import F32

BTT = """
input L: f32[16, 16, 16, 4]
input R: f32[16, 16, 16, 4]
input x: f32[64, 16, 16]
z[b, k, j, r]: f32[64, 16, 16, 4] = einsum[plustimes, f32](i; R[k, j, i, r], x[b, k, i]) over {zs}, i<16
y[b, l, j]: f32[64, 16, 16] = einsum[plustimes, f32](k, r; L[j, l, k, r], z[b, k, j, r]) over {zs}, l<16
return y
""".replace("{zs}", "b<64, k<16, j<16, r<4")


def _layouts(program: CpuProgram) -> dict[str, Layout]:
    tensors = [*program.program.inputs, *program.program.equations]
    return {t.name: Layout.dense(F32, tuple(s.constant or 0 for s in t.shape)) for t in tensors}


def test_an_intermediate_moves_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up price that likes `b` last in z: z gets it, operands and results stay as they are."""
    program = CpuProgram(parse_ir(BTT))
    layouts = _layouts(program)

    def price(template: Any, sizes: Any, layouts: Any, machine: Any, rough: bool = False) -> float:
        return 1e6 if layouts["z"].strides[0] == 4 else 2e6

    monkeypatch.setattr(orders, "_price", price)
    chosen = program.orders.choose({}, layouts)
    assert set(chosen) == {"z"}
    assert chosen["z"].strides[0] == 4
    assert chosen["z"].shape == layouts["z"].shape
    assert chosen["z"].is_dense


def test_orders_are_searched_once_per_kind_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sizes and layouts again cost a look-up."""
    program = CpuProgram(parse_ir(BTT))
    layouts, calls = _layouts(program), 0
    search = Orders._search

    def counted(self: Orders, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return search(self, *arguments)

    monkeypatch.setattr(Orders, "_search", counted)
    assert program.orders.choose({}, layouts) == program.orders.choose({}, layouts)
    assert calls == 1
    turned = layouts | {"x": Layout.dense(F32, (64, 16, 16), (2, 1, 0))}
    program.orders.choose({}, turned)
    assert calls == 2


def test_outputs_and_updated_tensors_stay() -> None:
    """Their memory is somebody else's."""
    program = CpuProgram(parse_ir(BTT.replace("return y", "return y, z")))
    assert program.orders.free == []


@pytest.mark.parametrize("shape", [(3, 5, 7, 2), (1, 1, 4, 4), (17, 33, 5, 4)])
def test_results_do_not_depend_on_the_order(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every order of the intermediate gives the same numbers, integers being exact."""
    k, j, i, r = shape
    rng = np.random.default_rng(0)
    L, R, x = (rng.integers(-9, 9, s) for s in ((j, 3, k, r), (k, j, i, r), (6, k, i)))
    text = "z[b,k,j,r] = R[k,j,i,r] * x[b,k,i]; w[b,k,j,r] = max(z[b,k,j,r], 0); y[b,l,j] = L[j,l,k,r] * w[b,k,j,r]"
    wanted = np.einsum("jlkr,bkjr->blj", L, np.maximum(np.einsum("kjir,bki->bkjr", R, x), 0))
    for place in range(4):

        def price(
            template: Any, sizes: Any, layouts: Any, machine: Any, rough: bool = False, place: int = place
        ) -> float:
            moved = [v for n, v in layouts.items() if len(v.shape) == 4 and n not in ("L", "R")]
            return 2e6 - 1e6 * sum(v.strides[place] == 8 for v in moved)

        monkeypatch.setattr(orders, "_price", price)
        f = stein.compile(text, L=L, R=R, x=x)
        np.testing.assert_array_equal(f(L=L, R=R, x=x), wanted)
