/* A stand-in of the CUDA driver, libcuda.so.1, for machines without one: what Triton calls to load and launch kernels.
 *
 * It computes nothing. It holds every call to what the documentation of the driver demands (comments of cuda.h; CUDA
 * programming guide, compute capabilities 9.0), and writes down, a line of JSON each, the tensor maps and the launches
 * with the values of all parameters, whose sizes it reads from the cubin. What is wrong becomes a line too, and the
 * call fails as it would. `stand_in_take` hands the lines over. The device has the limits of an H200.
 *
 * One thread, no streams of its own; every address counts as memory of the device.
 */
#include "cuda.h"
#include <elf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  PROCESSORS = 132,
  THREADS = 1024,           /* of a block */
  REGISTERS = 65536,        /* of a block */
  SHARED_DEFAULT = 49152,   /* bytes of a block, unless a kernel asks for more */
  SHARED_OPTIN = 232448,    /* bytes of a block that a kernel may ask for */
  SHARED_PROCESSOR = 233472,
  SHARED_RESERVED = 1024,   /* bytes of a block that the system keeps; cubins count them as the kernel's */
  PARAMETERS = 128,         /* that are recorded */
  MACHINE_CUDA = 190,       /* e_machine of a cubin */
  ARCHITECTURE = 90,
};

/* ---- what is written down ---------------------------------------------------------------------------------------- */

static char *text = NULL;
static size_t used = 0, room = 0;

static void say(const char *format, ...) {
  va_list list;
  for (;;) {
    va_start(list, format);
    int n = vsnprintf(text == NULL ? NULL : text + used, room - used, format, list);
    va_end(list);
    if (n < 0)
      abort();
    if (used + (size_t)n < room) {
      used += (size_t)n;
      return;
    }
    room = 2 * room + (size_t)n + 4096;
    text = realloc(text, room);
    if (text == NULL)
      abort();
  }
}

static CUresult wrong(const char *call, const char *format, ...) {
  char sentence[512];
  va_list list;
  va_start(list, format);
  vsnprintf(sentence, sizeof(sentence), format, list);
  va_end(list);
  say("{\"wrong\": \"%s: %s\"}\n", call, sentence);
  return CUDA_ERROR_INVALID_VALUE;
}

/* The lines since the last call; they are valid until the next call of anything here. */
const char *stand_in_take(void) {
  static char *taken = NULL;
  free(taken);
  taken = text;
  text = NULL;
  used = room = 0;
  return taken == NULL ? "" : taken;
}

/* ---- device and context ------------------------------------------------------------------------------------------ */

static bool started = false;
static CUcontext current = NULL;
static char context_memory;

CUresult cuInit(unsigned int flags) {
  started = true;
  return flags == 0 ? CUDA_SUCCESS : wrong("cuInit", "flags are 0");
}

CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **found) {
  *found = error == CUDA_SUCCESS                         ? "no error"
           : error == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES ? "too many resources requested for launch"
                                                         : "invalid argument";
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  *count = 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? CUDA_SUCCESS : wrong("cuDeviceGet", "there is one device, no number %d", ordinal);
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  switch ((int)attribute) {
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = ARCHITECTURE / 10; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = ARCHITECTURE % 10; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = PROCESSORS; break;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = REGISTERS; break;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = SHARED_DEFAULT; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = SHARED_OPTIN; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = SHARED_PROCESSOR; break;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 3201000; break;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 6144; break;
  default: return wrong("cuDeviceGetAttribute", "attribute %d is none that this driver knows", (int)attribute);
  }
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  *context = (CUcontext)&context_memory;
  return device == 0 ? CUDA_SUCCESS : wrong("cuDevicePrimaryCtxRetain", "no device %d", device);
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = current;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  current = context;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit) {
  (void)limit;
  *value = 1 << 20;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  (void)limit, (void)value;
  return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  (void)stream;
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  if (attribute != CU_POINTER_ATTRIBUTE_DEVICE_POINTER)
    return wrong("cuPointerGetAttribute", "attribute %d is none that this driver knows", (int)attribute);
  *(CUdeviceptr *)data = pointer;
  return CUDA_SUCCESS;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

typedef struct {
  char name[256];
  int registers, local, shared, required, most; /* `required` threads of a block, 0: any; `most` of them */
  int dynamic;                                  /* bytes of shared memory that a launch may ask for */
  int count;                                    /* of parameters */
  int size[PARAMETERS];
} Function;

typedef struct {
  Function function; /* cubins of Triton have one kernel */
} Module;

enum { /* formats and attributes in sections .nv.info, as cuobjdump names them */
  FORMAT_WITH_SIZE = 4,
  ATTRIBUTE_MAX_THREADS = 0x05,
  ATTRIBUTE_REQUIRED_THREADS = 0x10,
  ATTRIBUTE_FRAME_SIZE = 0x11,
  ATTRIBUTE_PARAMETER = 0x17,
  ATTRIBUTE_REGISTERS = 0x2f,
  ATTRIBUTE_PARAMETER_2 = 0x45,
};

static uint32_t word(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof(value));
  return value;
}

static void read_info(Function *function, const uint8_t *at, size_t size, const Elf64_Sym *symbols, const char *names) {
  const uint8_t *end = at + size;
  while (at + 4 <= end) {
    unsigned format = at[0], attribute = at[1], length = at[2] | at[3] << 8;
    const uint8_t *data = at + 4;
    at = format == FORMAT_WITH_SIZE ? data + length : data;
    if (format != FORMAT_WITH_SIZE)
      continue;
    bool own = (attribute == ATTRIBUTE_REGISTERS || attribute == ATTRIBUTE_FRAME_SIZE) && symbols != NULL &&
               strcmp(names + symbols[word(data)].st_name, function->name) == 0;
    if (attribute == ATTRIBUTE_REGISTERS && own)
      function->registers = (int)word(data + 4);
    else if (attribute == ATTRIBUTE_FRAME_SIZE && own)
      function->local = (int)word(data + 4);
    else if (attribute == ATTRIBUTE_REQUIRED_THREADS)
      function->required = (int)(word(data) * word(data + 4) * word(data + 8));
    else if (attribute == ATTRIBUTE_MAX_THREADS)
      function->most = (int)(word(data) * word(data + 4) * word(data + 8));
    else if (attribute == ATTRIBUTE_PARAMETER || attribute == ATTRIBUTE_PARAMETER_2) {
      int place = data[4] | data[5] << 8;
      if (place >= PARAMETERS)
        abort();
      function->size[place] = attribute == ATTRIBUTE_PARAMETER ? (int)(word(data + 8) >> 18) : data[8] | data[9] << 8;
      if (place >= function->count)
        function->count = place + 1;
    }
  }
}

CUresult cuModuleLoadData(CUmodule *found, const void *image) {
  const uint8_t *base = image;
  const Elf64_Ehdr *head = image;
  if (!started && current == NULL)
    return wrong("cuModuleLoadData", "there is no context");
  if (memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_machine != MACHINE_CUDA)
    return wrong("cuModuleLoadData", "the image is no cubin");
  unsigned flags = head->e_flags;
  if ((flags & 0xff) != ARCHITECTURE && (flags >> 8 & 0xff) != ARCHITECTURE)
    return wrong("cuModuleLoadData", "the cubin is for another architecture (flags 0x%x)", flags);
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(base + head->e_shoff);
  const char *names = (const char *)base + sections[head->e_shstrndx].sh_offset;
  const Elf64_Sym *symbols = NULL;
  const char *strings = NULL;
  Module *module = calloc(1, sizeof(Module));
  Function *function = &module->function;
  for (int k = 0; k < head->e_shnum; k++) {
    const char *name = names + sections[k].sh_name;
    if (sections[k].sh_type == SHT_SYMTAB) {
      symbols = (const Elf64_Sym *)(base + sections[k].sh_offset);
      strings = (const char *)base + sections[sections[k].sh_link].sh_offset;
    }
    if (strncmp(name, ".nv.info.", 9) == 0) {
      if (function->name[0] != 0)
        return wrong("cuModuleLoadData", "two kernels in one cubin");
      snprintf(function->name, sizeof(function->name), "%s", name + 9);
    }
  }
  for (int k = 0; k < head->e_shnum; k++) {
    const char *name = names + sections[k].sh_name;
    const uint8_t *data = base + sections[k].sh_offset;
    if (strcmp(name, ".nv.info") == 0 || strncmp(name, ".nv.info.", 9) == 0)
      read_info(function, data, sections[k].sh_size, symbols, strings);
    if (strncmp(name, ".nv.shared.", 11) == 0 && strcmp(name + 11, function->name) == 0)
      function->shared = (int)sections[k].sh_size - SHARED_RESERVED;
  }
  if (function->shared < 0)
    function->shared = 0;
  if (function->most == 0)
    function->most = function->required ? function->required : THREADS;
  function->dynamic = SHARED_DEFAULT - function->shared;
  *found = (CUmodule)module;
  say("{\"loaded\": \"%s\", \"registers\": %d, \"parameters\": %d}\n", function->name, function->registers,
      function->count);
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *found, CUmodule module, const char *name) {
  Function *function = &((Module *)module)->function;
  if (strcmp(function->name, name) != 0)
    return wrong("cuModuleGetFunction", "the cubin has kernel %s, not %s", function->name, name);
  *found = (CUfunction)function;
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  free((Module *)module);
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction of) {
  Function *function = (Function *)of;
  switch ((int)attribute) {
  case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = function->registers; break;
  case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = function->local; break;
  case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = function->shared; break;
  case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = function->most; break;
  default: return wrong("cuFuncGetAttribute", "attribute %d is none that this driver knows", (int)attribute);
  }
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction of, CUfunction_attribute attribute, int value) {
  Function *function = (Function *)of;
  if (attribute == CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED)
    return CUDA_SUCCESS;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
    return CUDA_ERROR_INVALID_VALUE; /* modes of later drivers, for which callers have another way */
  if (value < 0 || value + function->shared > SHARED_OPTIN)
    return wrong("cuFuncSetAttribute", "%d bytes of shared memory, beside %d of the kernel, of %d", value,
                 function->shared, SHARED_OPTIN);
  function->dynamic = value;
  return CUDA_SUCCESS;
}

CUresult cuFuncSetCacheConfig(CUfunction of, CUfunc_cache config) {
  (void)of, (void)config;
  return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveClusters(int *count, CUfunction of, const CUlaunchConfig *config) {
  (void)of, (void)config;
  *count = PROCESSORS;
  return CUDA_SUCCESS;
}

/* ---- tensor maps ------------------------------------------------------------------------------------------------- */

static const uint64_t MARK = 0x7374616e642d696eull; /* in the first word of a tensor map of this driver */
enum { PLACE_OF_NUMBER = 8 };                       /* the word of a tensor map that holds its number */
static uint64_t maps = 0;

static int bytes_of(CUtensorMapDataType type) {
  static const int sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
  return (unsigned)type < sizeof(sizes) / sizeof(sizes[0]) ? sizes[type] : 0;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  const char *call = "cuTensorMapEncodeTiled";
  const uint64_t one = 1;
  int bytes = bytes_of(type);
  if ((uintptr_t)map % 64 != 0)
    return wrong(call, "the tensor map is not at a multiple of 64 bytes");
  if (bytes == 0)
    return wrong(call, "%d is no type of elements", (int)type);
  if (rank < 1 || rank > 5)
    return wrong(call, "%u axes, of 1 to 5", rank);
  if (address == NULL || (uintptr_t)address % 16 != 0)
    return wrong(call, "the address %p is no multiple of 16", address);
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
    return wrong(call, "interleaved layouts are not looked at");
  if ((unsigned)promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B)
    return wrong(call, "%d is no promotion", (int)promotion);
  bool real = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type >= CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ||
              type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 || type == CU_TENSOR_MAP_DATA_TYPE_FLOAT64;
  if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE && !real)
    return wrong(call, "NaN for what lies outside, but integers");
  for (unsigned k = 0; k < rank; k++) {
    if (dims[k] < 1 || dims[k] > one << 32)
      return wrong(call, "axis %u has %llu positions, of 1 to 2^32", k, (unsigned long long)dims[k]);
    if (box[k] < 1 || box[k] > 256)
      return wrong(call, "the box has %u positions of axis %u, of 1 to 256", box[k], k);
    if (k > 0 && (steps[k] < 1 || steps[k] > 8))
      return wrong(call, "steps of %u along axis %u, of 1 to 8", steps[k], k);
    if (k + 1 < rank && (strides[k] % 16 != 0 || strides[k] >= one << 40))
      return wrong(call, "the stride of axis %u is %llu bytes, no multiple of 16 below 2^40", k + 1,
                   (unsigned long long)strides[k]);
  }
  if (box[0] * bytes % 16 != 0)
    return wrong(call, "a row of the box has %u bytes, no multiple of 16", box[0] * bytes);
  unsigned span = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE  ? 256 * 8
                  : swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32
                  : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64
                                                         : 128;
  if ((unsigned)swizzle > CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B)
    return wrong(call, "%d is no swizzle", (int)swizzle);
  if (box[0] * bytes > span)
    return wrong(call, "a row of the box has %u bytes, more than the %u of its swizzle", box[0] * bytes, span);
  uint64_t elements = 1;
  for (unsigned k = 0; k < rank; k++)
    elements *= box[k];
  if (elements * bytes > SHARED_OPTIN)
    return wrong(call, "a box of %llu bytes is more than shared memory", (unsigned long long)(elements * bytes));
  uint64_t *words = (uint64_t *)map;
  memset(map, 0, sizeof(*map));
  words[0] = MARK;
  words[PLACE_OF_NUMBER] = ++maps;
  say("{\"map\": %llu, \"type\": %d, \"bytes\": %d, \"address\": %llu, \"swizzle\": %d, \"axes\": [",
      (unsigned long long)maps, (int)type, bytes, (unsigned long long)(uintptr_t)address, (int)swizzle);
  for (int k = (int)rank - 1; k >= 0; k--) /* outermost first: positions, stride in bytes, positions of the box */
    say("[%llu, %llu, %u]%s", (unsigned long long)dims[k], (unsigned long long)(k ? strides[k - 1] : (uint64_t)bytes),
        box[k], k ? ", " : "");
  say("]}\n");
  return CUDA_SUCCESS;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction of, void **parameters, void **extra) {
  const char *call = "cuLaunchKernelEx";
  Function *function = (Function *)of;
  const unsigned *grid = &config->gridDimX, *block = &config->blockDimX;
  if (of == NULL)
    return wrong(call, "no kernel");
  if (current == NULL)
    return wrong(call, "there is no context");
  if (grid[0] < 1 || grid[0] > INT32_MAX || grid[1] < 1 || grid[1] > 65535 || grid[2] < 1 || grid[2] > 65535)
    return wrong(call, "a grid of %u x %u x %u", grid[0], grid[1], grid[2]);
  unsigned threads = block[0] * block[1] * block[2];
  if (threads < 1 || threads > THREADS || block[0] > 1024 || block[1] > 1024 || block[2] > 64)
    return wrong(call, "a block of %u x %u x %u threads", block[0], block[1], block[2]);
  if (function->required && threads != (unsigned)function->required)
    return wrong(call, "%u threads a block for a kernel that is made for %d", threads, function->required);
  if (threads > (unsigned)function->most)
    return wrong(call, "%u threads a block for a kernel of at most %d", threads, function->most);
  unsigned of_warp = (unsigned)(function->registers * 32 + 255) / 256 * 256;
  if (of_warp * (threads / 32) > REGISTERS) {
    wrong(call, "%u warps of %d registers a thread", threads / 32, function->registers);
    return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  }
  if (config->sharedMemBytes > (unsigned)function->dynamic)
    return wrong(call, "%u bytes of shared memory, where %d were allowed", config->sharedMemBytes, function->dynamic);
  for (unsigned k = 0; k < config->numAttrs; k++)
    if (config->attrs[k].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION && grid[0] % config->attrs[k].value.clusterDim.x)
      return wrong(call, "a grid of %u programs in clusters of %u", grid[0], config->attrs[k].value.clusterDim.x);
  if (extra != NULL || (function->count && parameters == NULL))
    return wrong(call, "parameters stand in `kernelParams`");
  for (int k = 0; k < function->count; k++) {
    if (parameters[k] == NULL)
      return wrong(call, "parameter %d is not there", k);
    if (function->size[k] > (int)sizeof(uint64_t) && function->size[k] != sizeof(CUtensorMap))
      return wrong(call, "parameter %d has %d bytes", k, function->size[k]);
    if (function->size[k] == sizeof(CUtensorMap) && memcmp(parameters[k], &MARK, sizeof(MARK)) != 0)
      return wrong(call, "parameter %d is no tensor map", k);
  }
  say("{\"launch\": \"%s\", \"grid\": [%u, %u, %u], \"threads\": %u, \"shared\": %u, \"stream\": %llu, "
      "\"parameters\": [",
      function->name, grid[0], grid[1], grid[2], threads, config->sharedMemBytes,
      (unsigned long long)(uintptr_t)config->hStream);
  for (int k = 0; k < function->count; k++) { /* bytes, and the value: the number of a tensor map, else an integer */
    uint64_t value = 0;
    if (function->size[k] == sizeof(CUtensorMap))
      value = ((uint64_t *)parameters[k])[PLACE_OF_NUMBER];
    else
      memcpy(&value, parameters[k], function->size[k]);
    say("[%d, %llu]%s", function->size[k], (unsigned long long)value, k + 1 < function->count ? ", " : "");
  }
  say("]}\n");
  return CUDA_SUCCESS;
}
