// The driver API as declared in runtime/driver/CudaApi.h against NVIDIA's cuda.h: sizes, offsets, values, and
// the kind and width of every parameter. A mistake there would be memory corruption, on machines with a GPU
// only.
#include "runtime/driver/CudaApi.h"
#include <gtest/gtest.h>
#include <string>
#include <type_traits>

#if __has_include(<cuda.h>)
#include <cuda.h>

namespace quern::driver::cuda {
namespace {

/// How the C calling convention passes a type: its width, and whether it is a pointer.
template <class T> constexpr auto passed = std::pair{sizeof(T), std::is_pointer_v<T>};

template <class Ours, class Theirs> struct SameSignature : std::false_type {};
template <class R1, class... A1, class R2, class... A2> struct SameSignature<R1 (*)(A1...), R2 (*)(A2...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(A1) != sizeof...(A2))
      return false;
    else
      return passed<R1> == passed<R2> && ((passed<A1> == passed<A2>) && ...);
  }();
};

// cuda.h renames each function to its newest version by a macro, so &cuMemAlloc is &cuMemAlloc_v2 here, and
// the text of the name shows whether CudaApi.h asks the library for that version.
#define QUERN_TEXT2(x) #x
#define QUERN_TEXT(x) QUERN_TEXT2(x)
#define QUERN_CHECK(member, symbol, parameters)                                                              \
  static_assert(SameSignature<decltype(Api::member), decltype(&::symbol)>::value, #symbol);
QUERN_CUDA_API(QUERN_CHECK)
QUERN_CUDA_API_TIMING(QUERN_CHECK)
#if CUDA_VERSION >= 12040
QUERN_CUDA_API_OPTIONAL(QUERN_CHECK)
#endif

static_assert(sizeof(LaunchAttribute) == sizeof(CUlaunchAttribute) &&
              alignof(LaunchAttribute) == alignof(CUlaunchAttribute) &&
              offsetof(LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(int(LaunchAttribute::ClusterDimension) == int(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) &&
              int(LaunchAttribute::ProgrammaticStreamSerialization) ==
                  int(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION));
static_assert(sizeof(LaunchConfig) == sizeof(CUlaunchConfig) &&
              offsetof(LaunchConfig, blockDimX) == offsetof(CUlaunchConfig, blockDimX) &&
              offsetof(LaunchConfig, sharedMemBytes) == offsetof(CUlaunchConfig, sharedMemBytes) &&
              offsetof(LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream) &&
              offsetof(LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs) &&
              offsetof(LaunchConfig, numAttributes) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(MemoryPoolProperties) == sizeof(CUmemPoolProps) &&
              offsetof(MemoryPoolProperties, locationType) == offsetof(CUmemPoolProps, location) &&
              offsetof(MemoryPoolProperties, locationId) ==
                  offsetof(CUmemPoolProps, location) + offsetof(CUmemLocation, id) &&
              offsetof(MemoryPoolProperties, maxSize) == offsetof(CUmemPoolProps, maxSize) &&
              offsetof(MemoryPoolProperties, reserved) == offsetof(CUmemPoolProps, reserved));
static_assert(sizeof(TensorMap) == sizeof(CUtensorMap));
static_assert(sizeof(DevicePointer) == sizeof(CUdeviceptr));

#define QUERN_SAME(ours, theirs) static_assert(int(ours) == int(theirs), #theirs)
QUERN_SAME(errorInvalidValue, CUDA_ERROR_INVALID_VALUE);
QUERN_SAME(errorOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
QUERN_SAME(errorNotInitialized, CUDA_ERROR_NOT_INITIALIZED);
QUERN_SAME(errorStubLibrary, CUDA_ERROR_STUB_LIBRARY);
QUERN_SAME(errorNoDevice, CUDA_ERROR_NO_DEVICE);
QUERN_SAME(errorInvalidDevice, CUDA_ERROR_INVALID_DEVICE);
QUERN_SAME(errorInvalidImage, CUDA_ERROR_INVALID_IMAGE);
QUERN_SAME(errorInvalidContext, CUDA_ERROR_INVALID_CONTEXT);
QUERN_SAME(errorNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
QUERN_SAME(errorInvalidPtx, CUDA_ERROR_INVALID_PTX);
QUERN_SAME(errorUnsupportedPtxVersion, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
QUERN_SAME(errorInvalidHandle, CUDA_ERROR_INVALID_HANDLE);
QUERN_SAME(errorNotFound, CUDA_ERROR_NOT_FOUND);
QUERN_SAME(errorNotSupported, CUDA_ERROR_NOT_SUPPORTED);
QUERN_SAME(errorSystemDriverMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
QUERN_SAME(errorStreamCaptureUnsupported, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
QUERN_SAME(errorStreamCaptureInvalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
QUERN_SAME(errorStreamCaptureImplicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
QUERN_SAME(DeviceAttribute::MultiprocessorCount, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
QUERN_SAME(DeviceAttribute::L2CacheSize, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
QUERN_SAME(DeviceAttribute::ComputeCapabilityMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
QUERN_SAME(DeviceAttribute::ComputeCapabilityMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
QUERN_SAME(DeviceAttribute::MaxSharedMemoryPerBlockOptin,
           CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
QUERN_SAME(DeviceAttribute::MemoryPoolsSupported, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED);
QUERN_SAME(DeviceAttribute::ClusterLaunch, CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH);
QUERN_SAME(DeviceAttribute::TensorMapAccessSupported, CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED);
QUERN_SAME(FunctionAttribute::SharedSizeBytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
QUERN_SAME(FunctionAttribute::LocalSizeBytes, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
QUERN_SAME(FunctionAttribute::NumRegs, CU_FUNC_ATTRIBUTE_NUM_REGS);
QUERN_SAME(FunctionAttribute::MaxDynamicSharedSizeBytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
QUERN_SAME(FunctionAttribute::NonPortableClusterSizeAllowed,
           CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
QUERN_SAME(JitOption::InfoLogBuffer, CU_JIT_INFO_LOG_BUFFER);
QUERN_SAME(JitOption::InfoLogBufferSizeBytes, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
QUERN_SAME(JitOption::ErrorLogBuffer, CU_JIT_ERROR_LOG_BUFFER);
QUERN_SAME(JitOption::ErrorLogBufferSizeBytes, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
QUERN_SAME(CaptureStatus::Active, CU_STREAM_CAPTURE_STATUS_ACTIVE);
QUERN_SAME(CaptureStatus::Invalidated, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
QUERN_SAME(CaptureMode::Relaxed, CU_STREAM_CAPTURE_MODE_RELAXED);
QUERN_SAME(MemoryPoolProperties{}.allocType, CU_MEM_ALLOCATION_TYPE_PINNED);
QUERN_SAME(MemoryPoolProperties{}.locationType, CU_MEM_LOCATION_TYPE_DEVICE);
QUERN_SAME(MemoryPoolAttribute::ReleaseThreshold, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
QUERN_SAME(TensorType::Float16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
QUERN_SAME(TensorType::Float32, CU_TENSOR_MAP_DATA_TYPE_FLOAT32);
QUERN_SAME(TensorType::BFloat16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
QUERN_SAME(TensorSwizzle::Bytes128, CU_TENSOR_MAP_SWIZZLE_128B);
QUERN_SAME(TensorPromotion::L2Bytes128, CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
QUERN_SAME(TensorPromotion::L2Bytes256, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
QUERN_SAME(TensorFill::Zero, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);

TEST(CudaAbi, SymbolVersions) {
  // The macros of cuda.h give the symbol that has the signature compared above.
#define QUERN_VERSION(member, symbol, parameters) EXPECT_STREQ(#symbol, QUERN_TEXT(symbol));
  QUERN_CUDA_API(QUERN_VERSION)
}

} // namespace
} // namespace quern::driver::cuda

#else
TEST(CudaAbi, SymbolVersions) {
  GTEST_SKIP() << "no cuda.h here to compare with (pip install nvidia-cuda-runtime)";
}
#endif
