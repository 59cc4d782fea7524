"""The native entry as machine code: what a Python call of `stein.einsum` runs first (text for `native_ir.translate`).

`dispatch_spec` and `dispatch` are the bodies of builtin functions (METH_FASTCALL | METH_KEYWORDS). They look for a
record whose operand layouts are exactly those of the arguments, allocate the outputs, run it, and return them;
whatever else was passed goes to the Python slow path unchanged. Python objects own all tables (a dict of lists of
`Record`), so there is nothing to free here; the lists are only walked and reordered under the interpreter lock, with
no call into Python in between.
"""

from __future__ import annotations

from .native_execute import run
from .native_ir import call, env, env_address, load32, load64, stack, store64
from .native_words import (
    ARRAY_AXES,
    ARRAY_DATA,
    ARRAY_DTYPE,
    ARRAY_FLAGS,
    ARRAY_SHAPE,
    ARRAY_STRIDES,
    ARRAY_TYPE,
    AXES,
    BYTES_DATA,
    CALLOC,
    DECREF,
    DESCRIPTOR,
    DICT_GET,
    FIRST_SLOT,
    FREE,
    INCREF,
    LAYOUT_HEAD,
    LIST_ITEMS,
    NEW_ARRAY,
    NEW_TUPLE,
    NO_MEMORY,
    NONE,
    NOT_IMPLEMENTED,
    OBJECT_TYPE,
    OPERANDS,
    OUTPUTS,
    OUTPUTS_AT,
    RECHECK,
    RECORD_HEAD,
    RELEASE,
    RESTORE_THREAD,
    SAVE_THREAD,
    SCALARS,
    SECOND_SLOT,
    SET_TUPLE,
    STACK_TABLE,
    STRIDED,
    STRING_TYPE,
    THIRD_SLOT,
    TO_SCALAR,
    TUPLE_ITEMS,
    VARIABLE_SIZE,
    VECTORCALL,
    WRITEABLE,
)


def table_address() -> int:
    """The address of `env`, for Python to fill."""
    return env_address()


def block_of(record: int) -> int:
    """The block of a `Record` object: the data of the bytes in its first slot."""
    return load64(record + FIRST_SLOT) + BYTES_DATA


def matches(layout: int, array: int) -> int:
    """1 if `array` is exactly a numpy.ndarray of this dtype, shape and strides (those of axes of size one are free)."""
    if load64(array + OBJECT_TYPE) != env(ARRAY_TYPE):
        return 0
    if load64(array + ARRAY_DTYPE) != load64(layout + 8 * DESCRIPTOR):
        return 0
    axes = load64(layout + 8 * AXES)
    if load32(array + ARRAY_AXES) != axes:
        return 0
    shape = load64(array + ARRAY_SHAPE)
    strides = load64(array + ARRAY_STRIDES)
    wanted = layout + 8 * LAYOUT_HEAD
    axis = 0
    while axis < axes:
        extent = load64(wanted + 8 * axis)
        if load64(shape + 8 * axis) != extent:
            return 0
        if extent != 1 and load64(strides + 8 * axis) != load64(wanted + 8 * (axes + axis)):
            return 0
        axis += 1
    return 1


def matches_all(layout: int, count: int, args: int) -> int:
    """1 if `count` arrays at `args` match the layouts that follow one another from `layout` on."""
    while count > 0:
        if matches(layout, load64(args)) == 0:
            return 0
        layout += 8 * LAYOUT_HEAD + 16 * load64(layout + 8 * AXES)
        args += 8
        count -= 1
    return 1


def find(records: int, args: int, count: int) -> int:
    """The record of the list `records` that fits `count` arguments, moved to the front; 0 if none does."""
    items = load64(records + LIST_ITEMS)
    number = load64(records + VARIABLE_SIZE)
    index = 0
    while index < number:
        record = load64(items + 8 * index)
        block = block_of(record)
        if load64(block + 8 * OPERANDS) == count and matches_all(block + 8 * RECORD_HEAD, count, args) != 0:
            left = load64(block + 8 * RECHECK)
            if left > 0:
                store64(block + 8 * RECHECK, left - 1)
                if left == 1:
                    return 0
            while index > 0:
                store64(items + 8 * index, load64(items + 8 * index - 8))
                index -= 1
            store64(items, record)
            return record
        index += 1
    return 0


def new_array(layout: int) -> int:
    """A fresh array of this layout; 0 with an exception set if there is no memory."""
    descriptor = load64(layout + 8 * DESCRIPTOR)
    axes = load64(layout + 8 * AXES)
    shape = layout + 8 * LAYOUT_HEAD
    strides = shape + 8 * axes if load64(layout + 8 * STRIDED) != 0 else 0
    call(env(INCREF), descriptor)  # the array takes this reference
    return call(env(NEW_ARRAY), env(ARRAY_TYPE), descriptor, axes, shape, strides, 0, 0, 0)


def new_outputs(block: int, table: int) -> int:
    """One fresh array, or a tuple of several, their addresses written to `table`; 0 with an exception set."""
    count = load64(block + 8 * OUTPUTS)
    layout = block + load64(block + 8 * OUTPUTS_AT)
    if count == 1:
        array = new_array(layout)
        if array != 0:
            store64(table, load64(array + ARRAY_DATA))
        return array
    result = call(env(NEW_TUPLE), count)
    index = 0
    while result != 0 and index < count:
        array = new_array(layout)
        if array == 0:
            call(env(DECREF), result)
            return 0
        call(env(SET_TUPLE), result, index, array)  # the tuple takes the reference
        store64(table + 8 * index, load64(array + ARRAY_DATA))
        layout += 8 * LAYOUT_HEAD + 16 * load64(layout + 8 * AXES)
        index += 1
    return result


def run_unlocked(block: int, table: int) -> int:
    """`run`, without the interpreter lock if the work is worth it."""
    if load64(block + 8 * RELEASE) == 0:
        return run(block, table)
    state = call(env(SAVE_THREAD))
    failed = run(block, table)
    call(env(RESTORE_THREAD), state)
    return failed


def addresses(args: int, count: int, table: int) -> None:
    """Write the data addresses of `count` arrays to `table`."""
    index = 0
    while index < count:
        store64(table + 8 * index, load64(load64(args + 8 * index) + ARRAY_DATA))
        index += 1


def launch(record: int, args: int, given: int) -> int:
    """Run `record` on matching operands, into fresh outputs or the `given` ones that follow the operands in `args`.

    Returns a new reference to the array, the tuple of arrays or (outputs given) None; 0 with an exception set.
    """
    block = block_of(record)
    operands = load64(block + 8 * OPERANDS)
    words = operands + load64(block + 8 * OUTPUTS) + 1
    table = stack(STACK_TABLE)
    if words > STACK_TABLE:
        table = call(env(CALLOC), words, 8)
        if table == 0:
            return call(env(NO_MEMORY))
    call(env(INCREF), record)  # another thread may drop the record from its list meanwhile
    addresses(args, operands + given, table)
    result = env(NONE)
    if given == 0:
        result = new_outputs(block, table + 8 * operands)
    else:
        call(env(INCREF), result)
    if result != 0 and run_unlocked(block, table) != 0:
        call(env(DECREF), result)
        result = call(env(NO_MEMORY))
    if words > STACK_TABLE:
        call(env(FREE), table)
    if result != 0 and given == 0:
        result = finished(record, block, result)
    call(env(DECREF), record)
    return result


def finished(record: int, block: int, result: int) -> int:
    """Turn fresh outputs into what the caller sees: a scalar, or what the record's `finish` makes of them."""
    if load64(block + 8 * SCALARS) != 0:
        result = call(env(TO_SCALAR), result)
    finish = load64(record + SECOND_SLOT)
    if result != 0 and finish != env(NONE):
        given = stack(1)
        store64(given, result)
        made = call(env(VECTORCALL), finish, given, 1, 0)
        call(env(DECREF), result)
        result = made
    return result


def dispatch_spec(self: int, args: int, count: int, names: int) -> int:
    """The builtin behind `stein.einsum(spec, *operands)`; `self` is a `State` whose records are a dict by spec."""
    if count > 1 and names == 0 and load64(load64(args) + OBJECT_TYPE) == env(STRING_TYPE):
        records = call(env(DICT_GET), load64(self + SECOND_SLOT), load64(args))
        if records != 0:
            record = find(records, args + 8, count - 1)
            if record != 0:
                return launch(record, args + 8, 0)
    return call(env(VECTORCALL), load64(self + THIRD_SLOT), args, count, names)


def arrange(self: int, args: int, count: int, names: int, ordered: int) -> int:
    """Put positional and keyword arguments into the order of the `State`'s names; 0 unless each is there exactly once.

    Names are compared by identity: they are interned at both ends, and any other spelling goes to the slow path.
    """
    wanted = load64(self + FIRST_SLOT)
    total = load64(wanted + VARIABLE_SIZE)
    keywords = load64(names + VARIABLE_SIZE)
    if count + keywords != total or total > STACK_TABLE:
        return 0
    index = 0
    while index < count:
        store64(ordered + 8 * index, load64(args + 8 * index))
        index += 1
    while index < total:
        name = load64(wanted + env(TUPLE_ITEMS) + 8 * index)
        place = 0
        while place < keywords and load64(names + env(TUPLE_ITEMS) + 8 * place) != name:
            place += 1
        if place == keywords:
            return 0
        store64(ordered + 8 * index, load64(args + 8 * (count + place)))
        index += 1
    return 1


def dispatch(self: int, args: int, count: int, names: int) -> int:
    """The builtin behind a compiled callable; `self` is a `State` whose records are one list."""
    operands = args
    total = count
    fits = 1
    if names != 0:
        operands = stack(STACK_TABLE)
        fits = arrange(self, args, count, names, operands)
        total = count + load64(names + VARIABLE_SIZE)
    if fits != 0:
        record = find(load64(self + SECOND_SLOT), operands, total)
        if record != 0:
            return launch(record, operands, 0)
    return call(env(VECTORCALL), load64(self + THIRD_SLOT), args, count, names)


def execute_record(self: int, args: int, count: int, names: int) -> int:
    """The builtin `execute_record(record, *operands, *outputs)`: NotImplemented unless every array fits its layout."""
    record = load64(args)
    block = block_of(record)
    operands = load64(block + 8 * OPERANDS)
    given = count - 1 - operands
    fits = 1 if given == 0 or given == load64(block + 8 * OUTPUTS) else 0
    if fits != 0:
        fits = matches_all(block + 8 * RECORD_HEAD, operands, args + 8)
    if fits != 0 and given > 0:
        outputs = args + 8 + 8 * operands
        fits = matches_all(block + load64(block + 8 * OUTPUTS_AT), given, outputs)
        index = 0
        while fits != 0 and index < given:
            fits = load32(load64(outputs + 8 * index) + ARRAY_FLAGS) & WRITEABLE
            index += 1
    if fits == 0:
        call(env(INCREF), env(NOT_IMPLEMENTED))
        return env(NOT_IMPLEMENTED)
    return launch(record, args + 8, given)
