// From a request to an image: memory first, then the cache on disk, then the compiler. Each key is built once
// per process however many threads ask, and once per machine where the cache can be locked.
#pragma once
#include "runtime/cache/Key.h"
#include "runtime/jit/Jit.h"
#include <cstdint>

namespace quern {

/// Everything that changes the bytes of an image, field by field: the kernel's text in normal form, every
/// field of the request, what each knob in the key resolved to, the versions of Quern's generator, LLVM, and
/// for a GPU ptxas. Needs no LLVM.
cache::Key imageKey(const jit::Request &request);

/// Images live until the process ends. `request.features` empty means the host's. One of the threads that ask
/// for a key builds it, the others wait for that; a failure is told to all of them and not kept.
Expected<const jit::CpuImage *> cpuImage(const jit::Request &request);
/// Target "sm_90a" (from the disk when it is there) or "sim" (always compiled).
Expected<const jit::GpuImage *> gpuImage(const jit::Request &request);
/// Whether an image of the two above was read from the disk, so that this process has not compiled it.
bool isFromDisk(const jit::CpuImage *image);
bool isFromDisk(const jit::GpuImage *image);

/// The driver refused this image: drops it from memory and, unless another process has replaced it, from the
/// disk, and makes it once more. Where that fails (no compiler here) the disk gets it back.
Expected<const jit::GpuImage *> rebuildGpuImage(const jit::Request &request, const jit::GpuImage *refused);
/// Whether some process that rebuilt this image got the same code: the image is not damaged, the driver does
/// not take such code, and compiling once more would not help.
bool isRebuiltTheSame(const jit::GpuImage &image);

/// Since the process started.
struct ImageStats {
  int64_t compilations = 0; // kernels compiled
  int64_t diskHits = 0;     // images that came from the cache's folder
  int64_t memoryHits = 0;   // requests that another one of this process had answered
  int64_t compileUs = 0;
};
ImageStats imageStats();

} // namespace quern
