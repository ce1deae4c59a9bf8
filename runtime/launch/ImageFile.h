// Images as the parts of a cache entry, and back. CPU: "meta" (JSON) and "elf". GPU: "meta", "ptx", "cubin",
// "log". What does not read back whole is no image: the caller takes it for a miss.
#pragma once
#include "runtime/cache/Store.h"
#include "runtime/jit/Jit.h"

namespace quern {

cache::Content toContent(const jit::CompiledCpu &compiled);
cache::Content toContent(const jit::GpuImage &image); // not for "sim": its code is in memory only

/// Empty: a part is missing, a field is absent, of another type or out of range, or the machine code is not a
/// whole ELF file with the kernel in it.
std::optional<jit::CompiledCpu> cpuFromContent(const cache::Content &content, const std::string &kernel);
std::optional<jit::GpuImage> gpuFromContent(const cache::Content &content);

} // namespace quern
