"""The configurations that were found fastest, kept in a file between processes.

Beside `tune`, which fills it. A file that is damaged, of another format or not there counts as empty; one that cannot
be written is done without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any

from ..kept import replace_file
from .nodes import Kernel, Outer
from .reblock import blocks_of, differing, reblocked
from .steps import Origin

FORMAT = 3  # of the file; another one is started where this differs
WARPS = (1, 2, 4, 8, 16, 32)
STAGES = range(1, 9)


@dataclass(frozen=True)
class Winner:
    """One line of the file: blocks by axis, launch options, and how they were found (`candidates` timed, microseconds
    of the best and of the model's first choice). `share` and `loop_stages` are those of persistent programs, 0 where
    there are none.
    """

    blocks: tuple[tuple[str, int], ...]
    warps: int
    stages: int
    share: int
    loop_stages: int
    descriptors: bool
    candidates: int
    microseconds: float
    first: float

    def of(self, kernel: Kernel) -> Kernel | None:
        """A kernel in this configuration; None where it is that of another kernel, which has other axes or may not have
        these blocks.
        """
        tensors = tuple(replace(t, descriptor=t.descriptor and self.descriptors) for t in kernel.tensors)
        launched = replace(kernel, warps=self.warps, stages=self.stages, tensors=tensors)
        tuned = reblocked(launched, dict(self.blocks))
        if tuned is not None and isinstance(tuned.nest, Outer) and self.share:
            return replace(tuned, nest=replace(tuned.nest, share=self.share, stages=self.loop_stages))
        return tuned


@dataclass
class Winners:
    """Winners by key, in a JSON file (`path` None: in this process only)."""

    path: Path | None
    known: dict[str, Winner] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @staticmethod
    def at(path: Path | None) -> Winners:
        """The winners in a file."""
        return Winners(path, _read(path))

    def find(self, key: str, kernel: Kernel) -> tuple[Kernel, Origin] | None:
        """The configuration kept for a kernel, and what is known of how it was found; None where there is none that
        fits.
        """
        found = self.known.get(key)
        tuned = None if found is None else found.of(kernel)
        if found is None or tuned is None:
            return None
        origin = Origin("kept", found.candidates, found.microseconds, found.first, differing(kernel, tuned))
        return tuned, origin

    def keep(self, key: str, kernel: Kernel, origin: Origin) -> None:
        """Keep a configuration, beside what other processes kept meanwhile; the file is replaced in one step."""
        outer = kernel.nest if isinstance(kernel.nest, Outer) else None
        winner = Winner(
            tuple(blocks_of(kernel).items()),
            kernel.warps,
            kernel.stages,
            outer.share if outer is not None else 0,
            outer.stages if outer is not None else 0,
            any(t.descriptor for t in kernel.tensors),
            origin.candidates,
            origin.microseconds,
            origin.first,
        )
        with self._lock:
            self.known = _read(self.path) | self.known | {key: winner}
            if self.path is None:
                return
            lines = {k: vars(w) | {"blocks": dict(w.blocks)} for k, w in self.known.items()}
            text = json.dumps({"format": FORMAT, "winners": lines}, indent=1, sort_keys=True)
            with suppress(OSError):
                replace_file(self.path, text.encode())


def _read(path: Path | None) -> dict[str, Winner]:
    """The winners of a file; those that mean nothing are left out."""
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        lines: Any = held["winners"] if held.get("format") == FORMAT else {}
        found = {str(key): _winner(line) for key, line in lines.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {key: winner for key, winner in found.items() if winner is not None}


def _winner(line: Mapping[str, Any]) -> Winner | None:
    """The winner that a line of the file says, None if it cannot be one."""
    try:
        blocks = line["blocks"]
        found = Winner(**{**line, "blocks": tuple(blocks.items())})
        counts = (*blocks.values(), found.warps, found.stages, found.share, found.loop_stages, found.candidates)
        sound = all(type(n) is int for n in counts) and type(found.descriptors) is bool
        sound = sound and all(n > 0 and n & (n - 1) == 0 for n in blocks.values())
        sound = sound and found.warps in WARPS and found.stages in STAGES and found.loop_stages in (0, *STAGES)
        sound = sound and found.share >= 0 and found.candidates >= 1
        return found if sound and all(isfinite(t) and t >= 0 for t in (found.microseconds, found.first)) else None
    except (AttributeError, KeyError, TypeError):
        return None
