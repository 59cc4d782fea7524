"""A list of stored blocks, brought in order of block rows on the device: what `run` does for `steps.BlockRows`."""

from __future__ import annotations

from typing import Any


def ordered(rows: Any, columns: Any, extents: tuple[int, int]) -> tuple[Any, Any, Any]:
    """(pointers, columns, order) of blocks that stand at these rows and columns, tensors of integers: see `BlockRows`.

    Blocks of one row keep their order, so that sums are the same in each run. Nothing waits for the device.

    >>> import torch
    >>> pointers, columns, order = ordered(torch.tensor([2, 0, 2, 9]), torch.tensor([1, 0, 3, 0]), (3, 4))
    >>> pointers.tolist(), columns.tolist(), order.tolist()
    ([0, 1, 1, 3], [0, 1, 3, 0], [1, 0, 2, 3])
    """
    import torch

    high, wide = extents
    inside = columns.clamp(0, wide - 1) == columns
    # What is in no column goes beyond the last row, where what is in no row goes by itself.
    row, order = torch.sort(torch.where(inside, rows, high), stable=True)
    bounds = torch.arange(high + 1, dtype=row.dtype, device=row.device)
    pointers = torch.searchsorted(row, bounds, out_int32=True)
    return pointers, columns[order].to(torch.int32), order.to(torch.int32)
