// dlopen of NVRTC with its builtins library, and one compilation.
#include "runtime/driver/Nvrtc.h"
#include "runtime/driver/Driver.h"
#include "runtime/driver/ToolIdentity.h"
#include <chrono>
#include <dlfcn.h>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <mutex>

namespace quern::driver {
namespace {

namespace fs = std::filesystem;

const Wanted places{config::Knob::Nvrtc,
                    {"lib64/libnvrtc.so.13", "lib64/libnvrtc.so.12"},
                    "",
                    {"nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"},
                    false};

using Program = void *;

/// nvrtc.h of CUDA 12 and 13 (NVRTC documentation, "User interface").
struct Library {
  NvrtcLibrary found;
  int (*version)(int *major, int *minor) = nullptr;
  const char *(*errorString)(int) = nullptr;
  int (*createProgram)(Program *, const char *source, const char *name, int count, const char *const *headers,
                       const char *const *names) = nullptr;
  int (*destroyProgram)(Program *) = nullptr;
  int (*compileProgram)(Program, int count, const char *const *options) = nullptr;
  int (*logSize)(Program, size_t *) = nullptr;
  int (*log)(Program, char *) = nullptr;
  int (*cubinSize)(Program, size_t *) = nullptr;
  int (*cubin)(Program, char *) = nullptr;
};

/// NVRTC opens its builtins by name when it first compiles, and finds them only on the loader's path, or when
/// they are loaded already; otherwise each compilation fails with NVRTC_ERROR_BUILTIN_OPERATION_FAILURE.
void openBuiltins(const void *symbol) {
  Dl_info info;
  if (!dladdr(symbol, &info) || !info.dli_fname) return;
  std::error_code ignored;
  for (auto &entry : fs::directory_iterator(fs::path(info.dli_fname).parent_path(), ignored)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with("libnvrtc-builtins.so.")) dlopen(entry.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
}

/// Opens one candidate; on failure a line for `tried`.
std::unique_ptr<Library> openOne(const Found &file, std::string &tried) {
  void *handle = dlopen(file.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    tried += fmt::format("  {}\n", dlerror());
    return nullptr;
  }
  auto library = std::make_unique<Library>();
  bool complete = true;
  auto find = [&](auto &function, const char *symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, symbol));
    complete = complete && function;
  };
  find(library->version, "nvrtcVersion");
  find(library->errorString, "nvrtcGetErrorString");
  find(library->createProgram, "nvrtcCreateProgram");
  find(library->destroyProgram, "nvrtcDestroyProgram");
  find(library->compileProgram, "nvrtcCompileProgram");
  find(library->logSize, "nvrtcGetProgramLogSize");
  find(library->log, "nvrtcGetProgramLog");
  find(library->cubinSize, "nvrtcGetCUBINSize");
  find(library->cubin, "nvrtcGetCUBIN");
  int major = 0, minor = 0;
  if (!complete || library->version(&major, &minor) != 0) {
    tried += fmt::format("  {}: not NVRTC\n", file.path);
    return nullptr;
  }
  openBuiltins(reinterpret_cast<void *>(library->version));
  library->found = {file, major * 1000 + minor * 10};
  return library;
}

/// Libraries stay open for the life of the process, one for each driver version asked for.
Expected<const Library *> library(int driverVersion) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<Library>> open; // by path; null is never kept
  std::lock_guard lock(mutex);
  std::string tried;
  auto candidates = findAll(places);
  if (!config::value(places.knob))
    for (const char *name : {"libnvrtc.so.13", "libnvrtc.so.12"})
      candidates.push_back({name, "loader's path"});
  for (const Found &file : candidates) {
    auto &entry = open[file.path];
    if (!entry) entry = openOne(file, tried);
    if (!entry) {
      open.erase(file.path);
      continue;
    }
    if (!driverVersion || entry->found.version / 1000 <= driverVersion / 1000) return entry.get();
    tried += fmt::format("  {}: version {}.{} is newer than the driver's CUDA {}.{}\n", file.path,
                         entry->found.version / 1000, entry->found.version % 1000 / 10, driverVersion / 1000,
                         driverVersion % 1000 / 10);
  }
  Error error =
      Error::system("no usable NVRTC was found; install it with: pip install 'nvidia-cuda-nvrtc==13.0.*', or "
                    "set QUERN_NVRTC to the path of libnvrtc.so.13",
                    "nvrtc");
  error.detail = "tried:\n" + tried;
  if (candidates.empty() || candidates[0].source != config::info(places.knob).name)
    error.detail += searched(places);
  return error;
}

} // namespace

Expected<NvrtcLibrary> findNvrtc(int driverVersion) {
  auto found = library(driverVersion);
  if (!found) return found.takeError();
  return (*found)->found;
}

std::string nvrtcInUse(int driverVersion) {
  for (const Found &file : findAll(places)) {
    std::string version = askOnce("nvrtc", file.path, [&]() -> std::string {
      std::string tried;
      auto opened = openOne(file, tried);
      return opened ? versionText(opened->found.version) : "";
    });
    if (version.empty() || (driverVersion && releaseOf(version).major > driverVersion / 1000)) continue;
    return version + " " + fingerprint(file.path);
  }
  auto found = library(driverVersion); // on the loader's path: only the loader knows the file
  return found ? versionText((*found)->found.version) : "none";
}

std::vector<std::string> nvrtcOptions(std::string_view arch) {
  return {fmt::format("-arch={}", arch), "-std=c++17", "-fmad=false", "--ptxas-options=-v"};
}

Expected<CompiledCuda> compileCuda(const SourceText &source, const std::vector<SourceText> &headers,
                                   std::string_view arch, int driverVersion) {
  auto found = library(driverVersion);
  if (!found) return found.takeError();
  const Library &nvrtc = **found;
  auto start = std::chrono::steady_clock::now();
  std::vector<const char *> texts, names;
  for (const SourceText &header : headers) {
    texts.push_back(header.text.c_str());
    names.push_back(header.name.c_str());
  }
  std::vector<std::string> optionTexts = nvrtcOptions(arch);
  std::vector<const char *> options;
  for (const std::string &option : optionTexts) options.push_back(option.c_str());

  Program program = nullptr;
  int result = nvrtc.createProgram(&program, source.text.c_str(), source.name.c_str(),
                                   static_cast<int>(headers.size()), texts.data(), names.data());
  if (result)
    return Error::system(fmt::format("nvrtcCreateProgram failed: {}", nvrtc.errorString(result)),
                         source.name);
  result = nvrtc.compileProgram(program, static_cast<int>(options.size()), options.data());
  CompiledCuda compiled;
  size_t size = 0;
  if (nvrtc.logSize(program, &size) == 0 && size > 1) {
    compiled.log.resize(size);
    if (nvrtc.log(program, compiled.log.data())) compiled.log.clear();
    while (compiled.log.ends_with('\0')) compiled.log.pop_back();
  }
  if (!result) {
    result = nvrtc.cubinSize(program, &size);
    compiled.cubin.resize(result ? 0 : size);
    if (!result) result = nvrtc.cubin(program, compiled.cubin.data());
  }
  nvrtc.destroyProgram(&program);
  if (result) {
    Error error =
        Error::internal(fmt::format("NVRTC {}.{} does not compile it for {}: {}", nvrtc.found.version / 1000,
                                    nvrtc.found.version % 1000 / 10, arch, nvrtc.errorString(result)),
                        source.name);
    error.detail = compiled.log + "NVRTC is " + nvrtc.found.file.path;
    return error;
  }
  compiled.report = parsePtxasLog(compiled.log);
  compiled.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return compiled;
}

} // namespace quern::driver
