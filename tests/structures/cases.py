"""The public cases of recognition, as programs of the language: what must be found, and what must not.

Each is (number, text, declarations, argument, wanted kind or None). Extents are given by declarations of the operands
in the text; `case` fills in sizes for index names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stein.frontend.elaborate import elaborate
from stein.frontend.parser import parse_program
from stein.ir.expr import Program

SIZES = dict(
    a=4, b=5, c=6, d=3, e=4, f=5, g=3, h=7, i=4, j=5, k=6, l=7, m=3, n=3, o=5, p=6, q=7, r=2, s=2, t=3, u=4, v=5
)  # fmt: skip
