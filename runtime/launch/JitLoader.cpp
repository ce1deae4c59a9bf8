// Opens libquern-jit.so at the first miss: until then no LLVM is mapped into the process.
#include "runtime/config/Knobs.h"
#include "runtime/config/OwnFile.h"
#include "runtime/jit/CompilerStamp.h"
#include "runtime/jit/Jit.h"
#include "runtime/launch/CpuFeatures.h"
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <fmt/format.h>
#include <mutex>

namespace quern::jit {
namespace {

struct Library {
  CompileEntry *compile = nullptr;
  EmitEntry *emit = nullptr;
  CompileGpuEntry *compileGpu = nullptr;
  SimLibraryEntry *sim = nullptr;
  Error error;
};

Library open() {
  constexpr const char *file = "libquern-jit.so";
  std::vector<std::filesystem::path> places;
  if (auto own = config::value(config::Knob::JitLibrary))
    places.push_back(*own);
  else {
    auto folder = config::ownFile().parent_path();
    places = {folder / file, folder / "../lib" / file};
  }
  Library library;
  std::string tried;
  for (auto &place : places) {
    // Local: the library's LLVM must not meet another one in the process (PyTorch and Triton bring their
    // own).
    void *handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      tried += fmt::format("  {}\n", dlerror());
      continue;
    }
    library.compile = reinterpret_cast<CompileEntry *>(dlsym(handle, compileSymbol));
    library.emit = reinterpret_cast<EmitEntry *>(dlsym(handle, emitSymbol));
    library.compileGpu = reinterpret_cast<CompileGpuEntry *>(dlsym(handle, compileGpuSymbol));
    library.sim = reinterpret_cast<SimLibraryEntry *>(dlsym(handle, simLibrarySymbol));
    auto *stamp = reinterpret_cast<StampEntry *>(dlsym(handle, stampSymbol));
    bool matches = stamp && stamp() == boundaryStamp(compilerStamp);
    if (matches && library.compile && library.emit && library.compileGpu && library.sim) return library;
    library.compile = nullptr, library.emit = nullptr, library.compileGpu = nullptr, library.sim = nullptr;
    tried += fmt::format("  {}: not a Quern compiler of this version\n", place.string());
  }
  library.error = Error::system(
      "the compiler library could not be opened; set QUERN_JIT_LIBRARY to its path, or run scripts/setup.sh",
      file);
  library.error.detail = "tried:\n" + tried;
  return library;
}

const Library &library() {
  static const Library opened = open();
  return opened;
}

} // namespace

Expected<CompiledCpu> compileThroughLibrary(const Request &request) {
  const Library &l = library();
  if (!l.compile) return Error(l.error);
  Error error;
  CompiledCpu compiled;
  Request full = request;
  if (full.features.empty()) full.features = cpuFeatures();
  if (l.compile(&full, &compiled, &error)) return compiled;
  return error;
}

Expected<GpuImage> compileGpuThroughLibrary(const Request &request) {
  const Library &l = library();
  if (!l.compileGpu) return Error(l.error);
  Error error;
  GpuImage image;
  if (l.compileGpu(&request, &image, &error)) return image;
  return error;
}

Expected<const SimLibrary *> simLibrary() {
  const Library &l = library();
  if (!l.sim) return Error(l.error);
  return l.sim();
}

Expected<std::string> emitThroughLibrary(const EmitRequest &request) {
  const Library &l = library();
  if (!l.emit) return Error(l.error);
  Error error;
  std::string text;
  EmitRequest full = request;
  if (full.request.features.empty()) full.request.features = cpuFeatures();
  if (l.emit(&full, &text, &error)) return text;
  return error;
}

} // namespace quern::jit
