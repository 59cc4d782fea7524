"""Numbers that the native programs and their Python side agree on: layouts of blocks, slots of objects, indices of
`env`.

Plain integer constants, read both by Python (`native_record.py`, `native.py`, `pool.py`) and by the translator of
`native_ir.py`. All blocks are made of 64-bit words; names ending in `_AT` hold byte offsets.
"""

from __future__ import annotations

# The record block (`native_record.encode`): this head, then the layouts of operands and outputs, then the calls.
RELEASE = 0  # 1 if the work is worth giving up the interpreter lock
OPERANDS = 1  # number of operands
OUTPUTS = 2  # number of outputs
CALLS = 3  # number of calls
TEMPORARIES = 4  # bytes of the workspace shared by the temporaries
WORKSPACE = 5  # 1 if a thread's workspace is needed at all
OUTPUTS_AT = 6  # byte offset of the layouts of the outputs
CALLS_AT = 7  # byte offset of the calls
SCALARS = 8  # 1 if an output without axes is returned as a NumPy scalar
RECHECK = 9  # calls until the slow path is asked once more, 0 for never
RECORD_HEAD = 10

# A layout: this head, then the extents, then the byte strides.
DESCRIPTOR = 0  # address of the dtype object
AXES = 1  # number of axes
STRIDED = 2  # 1 if the strides are not those of C order
LAYOUT_HEAD = 3

# A call: this head, then the argument words, then (word, slot, offset) of each pointer, then (word, offset) of each
# scratch, all in bytes.
ADDRESS = 0
COUNT = 1
SHARES = 2  # the most threads worth using
ARGS = 3  # number of argument words
POINTERS = 4
SCRATCHES = 5
SCRATCH_BYTES = 6  # bytes of workspace of each executing thread, the copy of a long argument block included
ARGS_AT = 7  # where in it the long argument block is copied
CALL_HEAD = 8
STACK_ARGS = 256  # argument blocks up to this many words are copied to the stack
STACK_TABLE = 64  # tables of buffer addresses up to this many words too

# Fields of CPython and NumPy objects, verified at load by `native_check.py`.
OBJECT_TYPE = 8
VARIABLE_SIZE = 16
LIST_ITEMS = 24
BYTES_DATA = 32
ARRAY_DATA = 16
ARRAY_AXES = 24
ARRAY_SHAPE = 32
ARRAY_STRIDES = 40
ARRAY_DTYPE = 56
ARRAY_FLAGS = 64
WRITEABLE = 1024
FIRST_SLOT = 16
SECOND_SLOT = 24
THIRD_SLOT = 32

# Indices of `env`: C functions by address, then types and settings.
FREE = 0
CALLOC = 1
ALIGNED = 2  # posix_memalign
MADVISE = 3  # 0 where there is none
GET_SPECIFIC = 4
SET_SPECIFIC = 5
SPECIFIC_KEY = 6
KEEP_BYTES = 7  # workspaces larger than this are freed after the run
THREADS = 8
POOL = 9  # address of the pool block
SPIN = 10  # nanoseconds a thread spins before it sleeps
CLOCK = 11  # clock_gettime
CLOCK_ID = 12
CREATE = 13  # pthread_create
ATTRIBUTES = 14  # a pthread_attr_t: detached, moderate stack
SIGNAL_MASK = 15  # pthread_sigmask
SET_MASK = 16  # SIG_SETMASK
SIGNALS = 17  # a sigset_t with what workers block
SYSCALL = 18  # 0 where there is no futex
FUTEX = 19  # its system call number
LOCK = 20  # pthread_mutex_lock and so on: used where there is no futex
UNLOCK = 21
WAIT = 22
BROADCAST = 23
SAVE_THREAD = 24
RESTORE_THREAD = 25
INCREF = 26
DECREF = 27
DICT_GET = 28
VECTORCALL = 29
NEW_TUPLE = 31
SET_TUPLE = 32
NO_MEMORY = 33
NEW_ARRAY = 34  # PyArray_NewFromDescr
TO_SCALAR = 35  # PyArray_Return
ARRAY_TYPE = 36
STRING_TYPE = 37
NONE = 38
NOT_IMPLEMENTED = 39
TUPLE_ITEMS = 40  # offset of the items of a tuple (it moved in Python 3.14)

# The pool block, page-aligned. Words that different threads write are on cache lines of their own.
BUSY = 0  # 1 while a thread has a parallel region
WORKERS = 64  # threads started
REGION_CALL = 72  # the call being run and its table of buffer addresses
REGION_TABLE = 80
TICKET = 128  # generation << 32 | shares << 16 | next share
SLEEPING = 192  # workers that sleep, or are about to
REMAINING = 256  # shares not finished
WAITING = 320  # 1 while the owner of the region sleeps until they are
MUTEX = 384
CONDITION = 512
ARENAS = 4096  # (address, size) of the workspace of each worker; the owner of the region is worker 0
MAX_WORKERS = 255
POOL_BYTES = 8192

PAGE = 4096
HUGE_PAGE = 2097152
HUGE_ADVICE = 14  # MADV_HUGEPAGE
