"""Layouts: which element of a tensor lies in which slot of which ciphertext.

A `Layout` is symbolic: slot digits and ciphertext digits (high to low), and for every axis of the tensor an affine form
of the digits, optionally modulo. It says stride, split axes, replication (a digit that no axis uses), padding (a form
out of range), doubled rows (a modulus smaller than the digit), skew (two digits in one form) and several ciphertexts.
It prints to a `Packing`, an array of element numbers, on which every question of legality and coverage is decided; odd
sizes and ragged patterns therefore need no case of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NOTHING = -1  # a slot that holds no element

SLOTS, COEFFICIENTS = "slots", "coefficients"


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the elements of a tensor lie: `at[ciphertext, slot]` is the flat (row-major) number of an element, or -1.

    `clean` says that slots without an element hold 0; otherwise they hold anything (the rest of a fold). With
    `kind` "coefficients" the numbers stand for the polynomial's coefficients instead of slots (twice as many): a
    product is then a negacyclic convolution, and there are no rotations.
    """

    at: Array
    clean: bool = True
    kind: str = SLOTS

    @staticmethod
    def vector(slots: int) -> Packing:
        """A vector of as many elements as there are slots, in order."""
        return Packing(np.arange(slots, dtype=np.int32)[None, :])

    @property
    def ciphertexts(self) -> int:
        """How many ciphertexts the tensor takes."""
        return int(self.at.shape[0])

    @cached_property
    def key(self) -> bytes:
        """Equal for equal packings."""
        return self.at.astype(np.int32).tobytes() + bytes([self.clean]) + self.kind.encode()

    def pack(self, tensor: Array) -> Array:
        """The slots (or coefficients) of each ciphertext, one row each.

        >>> Packing(np.array([[1, 0, -1, -1]])).pack(np.array([5.0, 7.0]))
        array([[7., 5., 0., 0.]])
        """
        flat = np.append(np.asarray(tensor, dtype=float).ravel(), 0.0)
        packed: Array = flat[self.at]
        return packed

    def read(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """The tensor from the slots of its ciphertexts; each element is taken from the first slot that holds it.

        >>> Packing(np.array([[1, 0, -1, -1]])).read(np.array([[7.0, 5.0, 3.0, 3.0]]), (2,))
        array([5., 7.])
        """
        flat = self.at.ravel()
        elements, first = np.unique(flat, return_index=True)
        keep = elements >= 0
        result = np.full(prod(shape), np.nan)
        result[elements[keep]] = np.asarray(rows).ravel()[first[keep]]
        assert not np.isnan(result).any() or np.isnan(rows).any(), "a packing that lacks an element"
        return result.reshape(shape)


@dataclass(frozen=True)
class Form:
    """An affine form of digits: sum of coefficient x digit + offset, modulo `modulus` where that is not 0."""

    terms: tuple[tuple[str, int], ...]
    offset: int = 0
    modulus: int = 0

    def text(self) -> str:
        """`l+8f mod 32`."""
        words = "+".join(n if c == 1 else f"{c}{n}" for n, c in self.terms)
        words += f"{self.offset:+d}" if self.offset or not words else ""
        return words + (f" mod {self.modulus}" if self.modulus else "")


@dataclass(frozen=True)
class Layout:
    """A symbolic layout of a tensor with named axes.

    `axes` are the tensor's axes in storage order (name, extent); `digits` are slot digits (name, size), high to low;
    `ciphertexts` the digits that number ciphertexts; `forms` the position on each axis. `only` names digits of which
    value 0 alone holds data: the others hold whatever a fold left there, and the packing is not clean.

    >>> Layout((("l", 4),), (("f", 2), ("l", 4)), forms=(("l", Form((("l", 1), ("f", 2)), modulus=4)),)).text()
    '[f2 l4; l = l+2f mod 4]'
    """

    axes: tuple[tuple[str, int], ...]
    digits: tuple[tuple[str, int], ...]
    ciphertexts: tuple[tuple[str, int], ...] = ()
    forms: tuple[tuple[str, Form], ...] = ()
    only: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The slots that the digits span in each ciphertext."""
        return prod(n for _, n in self.digits)

    @property
    def count(self) -> int:
        """How many ciphertexts."""
        return prod(n for _, n in self.ciphertexts)

    def form(self, axis: str) -> Form:
        """The position on an axis: the digit of the same name unless the layout says otherwise."""
        return dict(self.forms).get(axis, Form(((axis, 1),)))

    def packing(self, slots: int) -> Packing:
        """The element numbers in `slots` slots; those beyond the digits hold nothing.

        >>> Layout((("i", 3),), (("i", 4),)).packing(6).at
        array([[ 0,  1,  2, -1, -1, -1]], dtype=int32)
        """
        assert self.size <= slots, "a layout wider than a ciphertext"
        names = (*self.ciphertexts, *self.digits)
        sizes = tuple(n for _, n in names)
        value = {name: np.arange(n).reshape((n, *(1 for _ in sizes[k + 1 :]))) for k, (name, n) in enumerate(names)}
        flat, inside = (
            np.zeros((), dtype=np.int64),
            np.ones((), dtype=bool),
        )  # as wide as the digits that they depend on
        for axis, extent in self.axes:
            form = self.form(axis)
            at = np.full((), form.offset, dtype=np.int64)
            for digit, c in form.terms:
                at = at + c * value[digit]
            if form.modulus:
                at = at % form.modulus
            inside = inside & (at >= 0) & (at < extent)
            flat = flat * extent + at
        for digit in self.only:
            inside = inside & (value[digit] == 0)
        placed = np.broadcast_to(np.where(inside, flat, NOTHING), sizes)
        at = np.full((self.count, slots), NOTHING, dtype=np.int32)
        at[:, : self.size] = placed.reshape(self.count, self.size)
        return Packing(at, clean=not self.only)

    def text(self) -> str:
        """`[ct4 | f4 k32 l32; l = l+8f mod 32]`."""
        head = " ".join(f"{n}{k}" for n, k in self.digits)
        if self.ciphertexts:
            head = " ".join(f"{n}{k}" for n, k in self.ciphertexts) + " | " + head
        forms = [f"{axis} = {form.text()}" for axis, form in self.forms if form != Form(((axis, 1),))]
        return "[" + "; ".join([head, *forms, *(f"only {d} = 0" for d in self.only)]) + "]"

    def to_json(self) -> dict[str, Any]:
        """The layout as JSON.

        >>> layout = Layout((("l", 4),), (("f", 2), ("l", 4)), forms=(("l", Form((("l", 1), ("f", 2)), 0, 4)),))
        >>> Layout.from_json(layout.to_json()) == layout
        True
        """
        return {
            "axes": [[*a] for a in self.axes],
            "digits": [[*d] for d in self.digits],
            "ciphertexts": [[*d] for d in self.ciphertexts],
            "forms": [[n, [[*t] for t in f.terms], f.offset, f.modulus] for n, f in self.forms],
            "only": [*self.only],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Layout:
        """The layout again."""

        def named(pairs: Any) -> tuple[tuple[str, int], ...]:
            return tuple((str(n), int(x)) for n, x in pairs)

        forms = tuple((str(n), Form(named(terms), int(offset), int(m))) for n, terms, offset, m in data["forms"])
        return Layout(
            named(data["axes"]), named(data["digits"]), named(data["ciphertexts"]), forms, tuple(data["only"])
        )


def packings(layouts: Mapping[str, Layout], slots: int) -> dict[str, Packing]:
    """The packing of each layout."""
    return {name: layout.packing(slots) for name, layout in layouts.items()}
