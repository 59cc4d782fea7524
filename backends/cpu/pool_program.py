"""The thread pool as machine code: one region at a time, its shares taken by whoever is free (text for
`native_ir.translate`).

A region is one call of a kernel cut into shares. Its owner publishes a ticket, `generation << 32 | shares << 16 |
next`, and every thread that wants a share exchanges it for the same with `next + 1`. A worker that wakes late finds
no share left or a new generation, never a stale region: whoever took a share may read the description, because the
region cannot end before that share is done. Workers spin for `env(SPIN)` nanoseconds after their last share and then
sleep until the generation changes. A thread that finds the pool busy runs its call alone, so nothing ever waits for
another caller.
"""

from __future__ import annotations

from .native_ir import (
    address_of,
    atomic_add64,
    atomic_load64,
    atomic_store64,
    call,
    env,
    load32,
    load64,
    low32,
    pause,
    stack,
    store64,
    swap64,
)
from .native_words import (
    ADDRESS,
    ARENAS,
    ARGS,
    ARGS_AT,
    ATTRIBUTES,
    BROADCAST,
    BUSY,
    CALL_HEAD,
    CLOCK,
    CLOCK_ID,
    CONDITION,
    COUNT,
    CREATE,
    FUTEX,
    LOCK,
    MAX_WORKERS,
    MUTEX,
    PAGE,
    POINTERS,
    POOL,
    REGION_CALL,
    REGION_TABLE,
    REMAINING,
    SCRATCH_BYTES,
    SCRATCHES,
    SET_MASK,
    SIGNAL_MASK,
    SIGNALS,
    SLEEPING,
    SPIN,
    STACK_ARGS,
    SYSCALL,
    TICKET,
    UNLOCK,
    WAIT,
    WAITING,
    WORKERS,
)
from .native_workspace import reserve, trim


def clock() -> int:
    """Nanoseconds of a monotonic clock."""
    moment = stack(2)
    call(env(CLOCK), env(CLOCK_ID), moment)
    return load64(moment) * 1000000000 + load64(moment + 8)


def sleep_while(pool: int, address: int, expected: int) -> None:
    """Sleep until woken, unless the 32-bit word at `address` is not `expected` any more. May return early."""
    if env(SYSCALL) != 0:
        call(env(SYSCALL), env(FUTEX), address, 128, expected, 0, 0, 0)  # FUTEX_WAIT_PRIVATE
    else:
        call(env(LOCK), pool + MUTEX)
        if load32(address) == low32(expected):
            call(env(WAIT), pool + CONDITION, pool + MUTEX)
        call(env(UNLOCK), pool + MUTEX)


def wake(pool: int, address: int, count: int) -> None:
    """Wake up to `count` sleepers of `address` (all sleepers where there is no futex; they look and sleep again)."""
    if env(SYSCALL) != 0:
        call(env(SYSCALL), env(FUTEX), address, 129, count, 0, 0, 0)  # FUTEX_WAKE_PRIVATE
    else:
        call(env(LOCK), pool + MUTEX)
        call(env(BROADCAST), pool + CONDITION)
        call(env(UNLOCK), pool + MUTEX)


def share(at: int, table: int, scratch: int, lo: int, hi: int) -> None:
    """Run lo..hi of the call at `at`: copy its argument block, fill in the addresses, go."""
    words = load64(at + 8 * ARGS)
    args = stack(STACK_ARGS)
    if words > STACK_ARGS:
        args = scratch + load64(at + 8 * ARGS_AT)
    entry = at + 8 * CALL_HEAD
    word = 0
    while word < words:
        store64(args + 8 * word, load64(entry + 8 * word))
        word += 1
    entry += 8 * words
    end = entry + 24 * load64(at + 8 * POINTERS)
    while entry < end:
        store64(args + load64(entry), load64(table + load64(entry + 8)) + load64(entry + 16))
        entry += 24
    end = entry + 16 * load64(at + 8 * SCRATCHES)
    while entry < end:
        store64(args + load64(entry), scratch + load64(entry + 8))
        entry += 16
    call(load64(at + 8 * ADDRESS), args, lo, hi)


def take_shares(pool: int, worker: int) -> int:
    """Run shares until none is left; the last ticket seen."""
    while 1:
        ticket = atomic_load64(pool + TICKET)
        total = (ticket >> 16) & 65535
        index = ticket & 65535
        if index >= total:
            return ticket
        if swap64(pool + TICKET, ticket, ticket + 1) != 0:
            at = load64(pool + REGION_CALL)
            count = load64(at + 8 * COUNT)
            scratch = load64(pool + ARENAS + 16 * worker)
            share(at, load64(pool + REGION_TABLE), scratch, count * index // total, count * (index + 1) // total)
            if atomic_add64(pool + REMAINING, -1) == 1 and atomic_load64(pool + WAITING) != 0:
                wake(pool, pool + REMAINING, 1)


def spin_while(address: int, shift: int, expected: int) -> int:
    """Spin for a bounded time while the word at `address`, shifted by `shift`, is `expected`; 1 if it still is."""
    if env(SPIN) <= 0:
        return 1 if atomic_load64(address) >> shift == expected else 0
    limit = clock() + env(SPIN)
    turns = 0
    while atomic_load64(address) >> shift == expected:
        pause()
        turns += 1
        if (turns & 15) == 0 and clock() > limit:
            return 1
    return 0


def worker(argument: int) -> int:
    """The life of a worker: `argument` is the page-aligned pool plus the worker's number."""
    pool = argument & -PAGE
    number = argument & (PAGE - 1)
    while 1:
        generation = take_shares(pool, number) >> 32
        if spin_while(pool + TICKET, 32, generation) != 0:
            # The count rises before the word is compared, and the owner reads it after changing the word: no
            # wake-up is lost.
            atomic_add64(pool + SLEEPING, 1)
            sleep_while(pool, pool + TICKET + 4, generation)
            atomic_add64(pool + SLEEPING, -1)


def start_workers(pool: int, wanted: int) -> int:
    """Start workers until there are `wanted`, with signals blocked so that they stay Python's; the number there is."""
    started = load64(pool + WORKERS)
    if started < wanted:
        before = stack(32)
        identity = stack(1)
        call(env(SIGNAL_MASK), env(SET_MASK), env(SIGNALS), before)
        while started < wanted and started < MAX_WORKERS:
            if low32(call(env(CREATE), identity, env(ATTRIBUTES), address_of(worker), pool + started + 1)) != 0:
                break
            started += 1
        call(env(SIGNAL_MASK), env(SET_MASK), before, 0)
        store64(pool + WORKERS, started)
    return started


def prepare(pool: int, size: int, wanted: int) -> int:
    """Have workers, each with `size` bytes of workspace; how many shares can be run at once (0: no memory)."""
    started = start_workers(pool, wanted - 1)
    if size > 0:
        number = 0
        while number <= started:
            if reserve(pool + ARENAS + 16 * number, size) == 0:
                return 0
            number += 1
    return wanted if wanted <= started + 1 else started + 1


def finish_region(pool: int) -> None:
    """Wait until every share is done: spin, then sleep."""
    limit = clock() + env(SPIN)
    while atomic_load64(pool + REMAINING) > 0:
        pause()
        if clock() > limit:
            atomic_store64(pool + WAITING, 1)
            left = atomic_load64(pool + REMAINING)
            while left > 0:
                sleep_while(pool, pool + REMAINING, left)
                left = atomic_load64(pool + REMAINING)
            atomic_store64(pool + WAITING, 0)


def region(at: int, table: int, wanted: int) -> int:
    """Run the call at `at` in up to `wanted` shares; 0 if the pool is busy or cannot be had, and nothing was run."""
    pool = env(POOL)
    if swap64(pool + BUSY, 0, 1) == 0:
        return 0
    size = load64(at + 8 * SCRATCH_BYTES)
    shares = prepare(pool, size, wanted)
    if shares >= 2:
        store64(pool + REGION_CALL, at)
        store64(pool + REGION_TABLE, table)
        atomic_store64(pool + REMAINING, shares)
        generation = (load64(pool + TICKET) >> 32) + 1
        atomic_store64(pool + TICKET, (generation << 32) | (shares << 16))
        if atomic_load64(pool + SLEEPING) > 0:
            wake(pool, pool + TICKET + 4, shares - 1)
        take_shares(pool, 0)
        finish_region(pool)
    number = 0
    while size > 0 and number <= load64(pool + WORKERS):
        trim(pool + ARENAS + 16 * number)
        number += 1
    atomic_store64(pool + BUSY, 0)
    return 1 if shares >= 2 else 0
