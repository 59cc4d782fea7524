"""Contraction paths: which operands of a product meet first.

The search itself is opt_einsum's (or cotengra's, or any object with their calling convention), imported when a
product of four or more operands is planned; three are tried out here. A path is a tuple of steps; a step names
positions in the list of operands left, whose result goes to the end of that list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

from ..ir.errors import EinsumSyntaxError, ShapeError
from .tools import points

Path: TypeAlias = tuple[tuple[int, ...], ...]
PATH_FINDERS = (
    "auto", "auto-hq", "optimal", "dp", "branch-all", "branch-2", "branch-1", "greedy", "eager", "opportunistic",
    "dynamic-programming", "random-greedy", "random-greedy-128", "cotengra",
)  # fmt: skip


DYNAMIC = 10  # operands up to which dynamic programming takes a few milliseconds, where they are sparsely connected
DENSE = 6  # the same however they are connected (ten in a complete graph take a second)


class PathError(ShapeError, RuntimeError):
    """An explicit contraction path that does not fit its operands (a `RuntimeError` too, as in NumPy)."""


def find_path(
    inputs: Sequence[frozenset[str]],
    output: frozenset[str],
    sizes: Mapping[str, int],
    optimize: object = "auto",
    memory_limit: int | str | None = None,
) -> Path:
    """A path that contracts `inputs` to `output` with few operations.

    "auto" (and True) is the better of opt_einsum's greedy search and, for a few operands, its dynamic
    programming: its own "auto" misses by a factor of 30 where a chain of transforms has seven operands.

    `memory_limit` bounds the elements of intermediates; where no path keeps to it, what is left meets in one step.
    `EinsumSyntaxError` names a path finder that does not exist, `PathError` the step of an explicit path that is wrong.

    >>> find_path([frozenset("ij"), frozenset("jk"), frozenset("k")], frozenset("i"), dict(i=9, j=9, k=9))
    ((1, 2), (0, 1))
    """
    count = len(inputs)
    if not isinstance(optimize, str | bool) and not callable(optimize):
        return explicit_path(optimize, count)
    if optimize is False:
        return (tuple(range(count)),)
    if isinstance(optimize, str) and optimize.lower() not in PATH_FINDERS:
        raise EinsumSyntaxError(
            f"optimize='{optimize}' names no path finder",
            code="unknown-optimizer",
            help="choose from " + ", ".join(PATH_FINDERS) + "; or True, False, a path, an optimiser object",
        )
    if count <= 2:
        return (tuple(range(count)),)
    limit = _elements(memory_limit, inputs, sizes)
    if count == 3 and (isinstance(optimize, str | bool)):
        return _best_of_three(inputs, output, sizes, limit)
    if callable(optimize):
        return _searched(optimize, inputs, output, sizes, limit)
    name = "auto" if optimize is True else str(optimize).lower()
    if name != "auto" or limit is not None:
        return _searched(_named(name), inputs, output, sizes, limit)
    bonds = sum(len(s) for s in inputs) - len(frozenset().union(*inputs))
    second = "dp" if count <= DYNAMIC and (count <= DENSE or bonds <= 2 * count) else "auto"
    found = [_searched(_named(n), inputs, output, sizes, None) for n in ("greedy", second)]
    return min(found, key=lambda path: path_flops(path, inputs, output, sizes))


def _searched(
    finder: Any,
    inputs: Sequence[frozenset[str]],
    output: frozenset[str],
    sizes: Mapping[str, int],
    limit: int | None,
) -> Path:
    bound = () if limit is None else (limit,)
    try:
        found = finder([set(s) for s in inputs], set(output), dict(sizes), *bound)
    except RuntimeError:  # opt_einsum's "dp" where no path keeps to the limit
        if limit is None:
            raise
        return (tuple(range(len(inputs))),)
    return tuple(tuple(int(k) for k in step) for step in found)


def path_flops(path: Path, inputs: Sequence[frozenset[str]], output: frozenset[str], sizes: Mapping[str, int]) -> int:
    """The operations of a path, counted as opt_einsum does.

    >>> path_flops(((0, 1),), [frozenset("ij"), frozenset("jk")], frozenset("ik"), dict(i=2, j=3, k=4))
    48
    """
    left, total = list(inputs), 0
    for step in path:
        joint = frozenset().union(*(left[k] for k in step))
        left = [s for k, s in enumerate(left) if k not in step]
        kept = joint & output.union(*left)
        total += points(joint, sizes) * max(1, len(step) - 1 + (kept != joint))
        left.append(kept)
    return total


def _elements(limit: int | str | None, inputs: Sequence[frozenset[str]], sizes: Mapping[str, int]) -> int | None:
    if limit is None or limit == -1:
        return None
    if limit == "max_input":
        return max(points(s, sizes) for s in inputs)
    if isinstance(limit, str) or limit < 0:
        raise EinsumSyntaxError(
            f"memory_limit={limit!r} is no bound", code="memory-limit", help="a number of elements, 'max_input' or None"
        )
    return int(limit)


def _named(name: str) -> Any:
    if name.lower() == "cotengra":
        try:
            import cotengra
        except ImportError:
            raise EinsumSyntaxError(
                "optimize='cotengra' needs cotengra, which is not installed",
                code="missing-optimizer",
                help="pip install cotengra, or optimize='auto'",
            ) from None
        search = cotengra.HyperOptimizer(max_repeats=32, progbar=False, parallel=False)

        def ordered(inputs: list[set[str]], output: set[str], sizes: dict[str, int], limit: int | None = None) -> Any:
            return search([tuple(sorted(s)) for s in inputs], tuple(sorted(output)), sizes, limit)

        return ordered
    import opt_einsum

    return opt_einsum.paths.get_path_fn(name)


def _best_of_three(
    inputs: Sequence[frozenset[str]], output: frozenset[str], sizes: Mapping[str, int], limit: int | None
) -> Path:
    """Three operands: the cheapest of the three first pairs, by operations, then by the size of what is between."""
    best: tuple[tuple[int, int], Path] | None = None
    for pair in combinations(range(3), 2):
        (third,) = {0, 1, 2}.difference(pair)
        joint = inputs[pair[0]] | inputs[pair[1]]
        kept = joint & (output | inputs[third])
        between = points(kept, sizes)
        if limit is not None and between > limit:
            continue
        summed = 2 if kept != joint else 1
        total = kept | inputs[third]
        cost = points(joint, sizes) * summed + points(total, sizes) * (2 if total - output else 1)
        if best is None or (cost, between) < best[0]:
            best = ((cost, between), (pair, (0, 1)))
    return ((0, 1, 2),) if best is None else best[1]


def explicit_path(given: object, count: int) -> Path:
    """A path that the user wrote, checked against the number of operands.

    >>> explicit_path(["einsum_path", (0, 1), (0, 1)], 3)
    ((0, 1), (0, 1))
    """
    if not isinstance(given, Iterable):
        raise EinsumSyntaxError(
            f"optimize={given!r} is no path",
            code="path",
            help="a list of tuples of positions, such as [(0, 1), (0, 1)]",
        )
    steps = [s for s in given if not (isinstance(s, str) and s == "einsum_path")]
    left = count
    path = []
    for number, step in enumerate(steps):
        if not isinstance(step, Sequence) or isinstance(step, str) or not all(_is_position(k) for k in step):
            raise EinsumSyntaxError(f"step {number} of the path, {step!r}, is no tuple of positions", code="path")
        chosen = tuple(int(k) for k in step)
        wrong = [k for k in chosen if not 0 <= k < left]
        if wrong or not chosen or len(set(chosen)) != len(chosen):
            what = (
                f"names operand {wrong[0]}, but only 0 to {left - 1} are left" if wrong else "repeats or lacks operands"
            )
            raise PathError(
                f"step {number} of the path, {chosen}, {what}", code="path", help="later results go to the end"
            )
        left -= len(chosen) - 1
        path.append(chosen)
    if left > 1:
        raise PathError(
            f"the path leaves {left} operands uncontracted",
            code="path",
            help=f"{count} operands take {count - 1} pairwise steps",
        )
    return tuple(path)


def _is_position(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def left_to_right(count: int) -> Path:
    """The path of strict mode: the first operand meets the second, the result the third, and so on."""
    if count <= 2:
        return (tuple(range(count)),)
    return ((0, 1), *((0, k) for k in range(count - 2, 0, -1)))
