// The part of the CUDA driver API that Quern calls, declared here so that no CUDA header is needed to build
// it. Names, values and layouts are those of cuda.h of CUDA 12.0 to 13.x (CUDA Driver API reference);
// tests/unit/driver_abi_test.cpp compares them with the real header where one is found.
#pragma once
#include <cstddef>
#include <cstdint>

namespace quern::driver::cuda {

using Result = int; // CUresult; 0 is success
using Device = int;
using Context = void *;
using Module = void *;
using Function = void *;
using Stream = void *;
using Event = void *;
using MemoryPool = void *;
using DevicePointer = unsigned long long;

enum : Result {
  success = 0,
  errorInvalidValue = 1,
  errorOutOfMemory = 2,
  errorNotInitialized = 3,
  errorStubLibrary = 34,
  errorNoDevice = 100,
  errorInvalidDevice = 101,
  errorInvalidImage = 200,
  errorInvalidContext = 201,
  errorNoBinaryForGpu = 209,
  errorInvalidPtx = 218,
  errorUnsupportedPtxVersion = 222,
  errorInvalidHandle = 400,
  errorNotFound = 500,
  errorNotSupported = 801,
  errorSystemDriverMismatch = 803,
  errorStreamCaptureUnsupported = 900,
  errorStreamCaptureInvalidated = 901,
  errorStreamCaptureImplicit = 906,
};

/// CUdevice_attribute.
enum class DeviceAttribute : int {
  MultiprocessorCount = 16,
  L2CacheSize = 38,
  ComputeCapabilityMajor = 75,
  ComputeCapabilityMinor = 76,
  MaxSharedMemoryPerBlockOptin = 97,
  MemoryPoolsSupported = 115,
  ClusterLaunch = 120,
  TensorMapAccessSupported = 127,
};

/// CUfunction_attribute.
enum class FunctionAttribute : int {
  SharedSizeBytes = 1,
  LocalSizeBytes = 3,
  NumRegs = 4,
  MaxDynamicSharedSizeBytes = 8,
  NonPortableClusterSizeAllowed = 14,
};

/// CUjit_option.
enum class JitOption : int {
  InfoLogBuffer = 3,
  InfoLogBufferSizeBytes = 4,
  ErrorLogBuffer = 5,
  ErrorLogBufferSizeBytes = 6,
};

enum class CaptureStatus : int { None = 0, Active = 1, Invalidated = 2 };
enum class CaptureMode : int { Global = 0, ThreadLocal = 1, Relaxed = 2 };

/// CUlaunchAttribute: an id, and 64 bytes of value.
struct LaunchAttribute {
  enum Id : int { ClusterDimension = 4, ProgrammaticStreamSerialization = 6 };
  int id = 0;
  char pad[4] = {};
  union alignas(8) Value {
    char bytes[64];
    struct {
      unsigned x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
  } value = {};
};
static_assert(sizeof(LaunchAttribute) == 72);

/// CUlaunchConfig.
struct LaunchConfig {
  unsigned gridDimX = 1, gridDimY = 1, gridDimZ = 1;
  unsigned blockDimX = 1, blockDimY = 1, blockDimZ = 1;
  unsigned sharedMemBytes = 0;
  Stream stream = nullptr;
  LaunchAttribute *attributes = nullptr;
  unsigned numAttributes = 0;
};
static_assert(sizeof(LaunchConfig) == 56);

/// CUmemPoolProps.
struct MemoryPoolProperties {
  int allocType = 1; // CU_MEM_ALLOCATION_TYPE_PINNED
  int handleTypes = 0;
  int locationType = 1; // CU_MEM_LOCATION_TYPE_DEVICE
  int locationId = 0;
  void *win32SecurityAttributes = nullptr;
  size_t maxSize = 0;
  unsigned short usage = 0;
  unsigned char reserved[54] = {};
};
static_assert(sizeof(MemoryPoolProperties) == 88);
enum class MemoryPoolAttribute : int { ReleaseThreshold = 4 }; // uint64_t

/// CUtensorMap and the enumerations of cuTensorMapEncodeTiled.
struct alignas(64) TensorMap {
  uint64_t opaque[16];
};
enum class TensorType : int { Float16 = 6, Float32 = 7, BFloat16 = 9 };
enum class TensorInterleave : int { None = 0 };
enum class TensorSwizzle : int { None = 0, Bytes128 = 3 };
enum class TensorPromotion : int { None = 0, L2Bytes128 = 2, L2Bytes256 = 3 };
enum class TensorFill : int { Zero = 0 };

/// Every entry point: member of `Api`, exported symbol (with the version that has this signature),
/// parameters.
#define QUERN_CUDA_API(X)                                                                                    \
  X(init, cuInit, (unsigned flags))                                                                          \
  X(driverGetVersion, cuDriverGetVersion, (int *version))                                                    \
  X(getErrorName, cuGetErrorName, (Result error, const char **text))                                         \
  X(getErrorString, cuGetErrorString, (Result error, const char **text))                                     \
  X(deviceGetCount, cuDeviceGetCount, (int *count))                                                          \
  X(deviceGet, cuDeviceGet, (Device * device, int ordinal))                                                  \
  X(deviceGetName, cuDeviceGetName, (char *name, int length, Device device))                                 \
  X(deviceGetAttribute, cuDeviceGetAttribute, (int *value, DeviceAttribute attribute, Device device))        \
  X(devicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (Context * context, Device device))                    \
  X(devicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (Device device))                                  \
  X(ctxGetCurrent, cuCtxGetCurrent, (Context * context))                                                     \
  X(ctxPushCurrent, cuCtxPushCurrent_v2, (Context context))                                                  \
  X(ctxPopCurrent, cuCtxPopCurrent_v2, (Context * context))                                                  \
  X(moduleLoadDataEx, cuModuleLoadDataEx,                                                                    \
    (Module * module, const void *image, unsigned numOptions, JitOption *options, void **optionValues))      \
  X(moduleUnload, cuModuleUnload, (Module module))                                                           \
  X(moduleGetFunction, cuModuleGetFunction, (Function * function, Module module, const char *name))          \
  X(funcGetAttribute, cuFuncGetAttribute, (int *value, FunctionAttribute attribute, Function function))      \
  X(funcSetAttribute, cuFuncSetAttribute, (Function function, FunctionAttribute attribute, int value))       \
  X(launchKernelEx, cuLaunchKernelEx,                                                                        \
    (const LaunchConfig *config, Function function, void **parameters, void **extra))                        \
  X(memAlloc, cuMemAlloc_v2, (DevicePointer * memory, size_t bytes))                                         \
  X(memFree, cuMemFree_v2, (DevicePointer memory))                                                           \
  X(memFreeAsync, cuMemFreeAsync, (DevicePointer memory, Stream stream))                                     \
  X(memAllocFromPoolAsync, cuMemAllocFromPoolAsync,                                                          \
    (DevicePointer * memory, size_t bytes, MemoryPool pool, Stream stream))                                  \
  X(memPoolCreate, cuMemPoolCreate, (MemoryPool * pool, const MemoryPoolProperties *properties))             \
  X(memPoolDestroy, cuMemPoolDestroy, (MemoryPool pool))                                                     \
  X(memPoolSetAttribute, cuMemPoolSetAttribute,                                                              \
    (MemoryPool pool, MemoryPoolAttribute attribute, void *value))                                           \
  X(memcpyHtoDAsync, cuMemcpyHtoDAsync_v2,                                                                   \
    (DevicePointer destination, const void *source, size_t bytes, Stream stream))                            \
  X(memcpyDtoHAsync, cuMemcpyDtoHAsync_v2,                                                                   \
    (void *destination, DevicePointer source, size_t bytes, Stream stream))                                  \
  X(streamSynchronize, cuStreamSynchronize, (Stream stream))                                                 \
  X(streamIsCapturing, cuStreamIsCapturing, (Stream stream, CaptureStatus * status))                         \
  X(threadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, (CaptureMode * mode))                \
  X(tensorMapEncodeTiled, cuTensorMapEncodeTiled,                                                            \
    (TensorMap * map, TensorType type, uint32_t rank, void *base, const uint64_t *dims,                      \
     const uint64_t *byteStrides, const uint32_t *box, const uint32_t *elementStrides,                       \
     TensorInterleave interleave, TensorSwizzle swizzle, TensorPromotion promotion, TensorFill fill))

/// Since CUDA 12.4: null in older drivers.
#define QUERN_CUDA_API_OPTIONAL(X) X(funcLoad, cuFuncLoad, (Function function))

/// Only for measurements: a driver without them still runs kernels. cuEventElapsedTime has a second version
/// since CUDA 12.8; the first one has the same signature and is in every driver.
#define QUERN_CUDA_API_TIMING(X)                                                                             \
  X(eventCreate, cuEventCreate, (Event * event, unsigned flags))                                             \
  X(eventDestroy, cuEventDestroy_v2, (Event event))                                                          \
  X(eventRecord, cuEventRecord, (Event event, Stream stream))                                                \
  X(eventSynchronize, cuEventSynchronize, (Event event))                                                     \
  X(eventElapsedTime, cuEventElapsedTime, (float *milliseconds, Event from, Event to))                       \
  X(memsetD32Async, cuMemsetD32Async, (DevicePointer memory, unsigned value, size_t words, Stream stream))   \
  X(memcpyDtoDAsync, cuMemcpyDtoDAsync_v2,                                                                   \
    (DevicePointer destination, DevicePointer source, size_t bytes, Stream stream))                          \
  X(memGetInfo, cuMemGetInfo_v2, (size_t *freeBytes, size_t *totalBytes))                                    \
  X(deviceGetPCIBusId, cuDeviceGetPCIBusId, (char *text, int length, Device device))

struct Api {
#define QUERN_MEMBER(member, symbol, parameters) Result(*member) parameters = nullptr;
  QUERN_CUDA_API(QUERN_MEMBER)
  QUERN_CUDA_API_OPTIONAL(QUERN_MEMBER)
  QUERN_CUDA_API_TIMING(QUERN_MEMBER)
#undef QUERN_MEMBER
};

} // namespace quern::driver::cuda
