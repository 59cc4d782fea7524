"""Random programs on encrypted and clear tensors, and fixed ones that lowering and planning are tried on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from stein.frontend.declare import Declaration
from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.expr import Program
from stein.runtime.fix import fix_sizes

Array = np.ndarray[Any, Any]
EXTENTS = {"i": 3, "j": 2, "k": 4, "l": 3}


def typed(text: str, **shapes: tuple[int, ...]) -> Program:
    """The program of a text at known sizes; shapes declare tensors that the text does not."""
    declared = {name: Declaration(shape) for name, shape in shapes.items()}
    return fix_sizes(elaborate(parse_program(text), declared), {})


def arrays_of(program: Program, seed: int = 0) -> dict[str, Array]:
    """An array for each input: small numbers, in its type."""
    rng = np.random.default_rng(seed)
    found = {}
    for tensor in program.inputs:
        shape = [s.evaluate({}) for s in tensor.shape]
        drawn = rng.integers(0, 3, shape) if tensor.dtype.kind in "iub" else rng.uniform(-1, 1, shape)
        found[tensor.name] = np.asarray(drawn, tensor.dtype.numpy)
    return found


@dataclass
class Author:
    """Writes one program, term by term. `draw` is that of hypothesis; with `products`, encrypted values meet."""

    draw: Any
    products: bool = True
    terms: int = 3
    tensors: dict[str, tuple[tuple[int, ...], bool]] = field(default_factory=dict)

    def choose(self, *among: Any) -> Any:
        return self.draw(st.sampled_from(among))

    def tensor(self, names: tuple[str, ...], secret: bool) -> str:
        """An access at these indices, some of them shifted, composite or reduced modulo the extent."""
        slots, shape = [], []
        left = list(names)
        while left:
            name = left.pop(0)
            extent = EXTENTS[name]
            way = self.choose("bare", "bare", "bare", "shift", "modulo", "composite")
            if way == "composite" and left:
                other = left.pop(0)
                slots.append(f"({name} {other})")
                shape.append(extent * EXTENTS[other])
            elif way == "shift":
                slots.append(f"{name}+1")
                shape.append(extent + 1)
            elif way == "modulo":
                slots.append(f"({name}+1) mod {extent}")
                shape.append(extent)
            else:
                slots.append(name)
                shape.append(extent)
        return self.access(tuple(shape), secret, slots)

    def access(self, shape: tuple[int, ...], secret: bool, slots: list[str]) -> str:
        same = [n for n, known in self.tensors.items() if known == (shape, secret)]
        name = (
            self.choose(*same) if same and self.choose(True, False) else f"{'x' if secret else 'a'}{len(self.tensors)}"
        )
        self.tensors[name] = shape, secret
        return f"{name}[{', '.join(slots)}]" if slots else name

    def names(self, fewest: int, among: str = "ijkl") -> tuple[str, ...]:
        return tuple(self.draw(st.lists(st.sampled_from(among), min_size=fewest, max_size=2, unique=True)))

    def term(self, free: tuple[str, ...], secrets: int) -> str:
        """A product over `free` and perhaps summed indices, of so many encrypted factors and a few clear ones."""
        factors = [self.tensor(self.names(0), True) for _ in range(secrets)]
        factors += [self.tensor(self.names(1), False) for _ in range(self.choose(0, 1, 1, 2))]
        text = " * ".join(self.draw(st.permutations(factors)) if factors else ["1"])
        used = {n for n in EXTENTS for f in factors if n in f.partition("[")[2]}
        bare = {n for f in factors for n in f.partition("[")[2].rstrip("]").split(", ")}
        missing = [n for n in EXTENTS if (n in free and n not in used) or (n in used and n not in bare)]
        if missing:
            text += f" * {self.tensor(tuple(missing), False)}"
        bound = sorted(used - set(free))
        number = self.choose("", "", "2*", "0.5*")
        return f"{number}(sum[{', '.join(bound)}] ({text}))" if bound else f"{number}({text})"

    def program(self) -> Program:
        free = self.names(0)
        first = self.term(free, 1)
        terms = [
            first,
            *(
                self.term(free, self.choose(0, 1, 1, 2 if self.products else 1))
                for _ in range(self.choose(*range(self.terms)))
            ),
        ]
        slots = f"[{', '.join(free)}]" if free else ""
        text = f"h{slots} = " + "".join(f" {self.choose('+', '-')} {t}" for t in terms)[3:]
        powers = [f"; y{slots} = h{slots}^2 - 2*h{slots}"] if self.products else []
        last = self.choose("", f"; y{slots} = 3*h{slots} - 1", *powers)
        head = "; ".join(
            f"{name}: {'encrypted ' if secret else ''}f64{list(shape) if shape else ''}"
            for name, (shape, secret) in self.tensors.items()
        )
        return typed(f"{head}\n{text}{last}")


@st.composite
def programs(draw: Any, products: bool = True, terms: int = 3) -> Program:
    """A program of one or two statements with at least one encrypted argument, perhaps with products of several."""
    return Author(draw, products, terms).program()
