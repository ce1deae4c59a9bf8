// Names and texts of the codes that the fake driver gives. These calls are not written down.
#include "fake_cuda.h"

using namespace quern::driver::cuda;

namespace {

struct ErrorText {
  Result code;
  const char *name, *text;
};
constexpr ErrorText errorTexts[] = {
    {errorInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {errorOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {errorStubLibrary, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {errorInvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {errorInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {errorNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {errorInvalidPtx, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {errorInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {errorNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {errorStreamCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
};

Result errorText(Result code, const char **text, const char *ErrorText::*field) {
  *text = nullptr;
  if (!fakeCuda()->errorTexts) return errorInvalidValue;
  for (auto &entry : errorTexts)
    if (entry.code == code) return *text = entry.*field, success;
  return errorInvalidValue;
}

} // namespace

extern "C" {

Result cuGetErrorName(Result code, const char **text) { return errorText(code, text, &ErrorText::name); }
Result cuGetErrorString(Result code, const char **text) { return errorText(code, text, &ErrorText::text); }

} // extern "C"
