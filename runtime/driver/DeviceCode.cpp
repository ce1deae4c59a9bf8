// Which file defines a kernel, and its cubin.
#include "runtime/driver/DeviceCode.h"
#include "kernels/DeviceSources.h"
#include "runtime/cache/Digest.h"
#include "runtime/driver/ElfSymbols.h"
#include "runtime/driver/ToolIdentity.h"
#include <cctype>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <mutex>

namespace quern::driver {
namespace {

/// Names of the kernels of one source: what stands before the parameters after each __global__, with
/// __launch_bounds__(...) in between or not.
std::vector<std::string> kernelNames(std::string_view text) {
  constexpr std::string_view mark = "__global__";
  std::vector<std::string> names;
  auto isWord = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t at = text.find(mark); at != text.npos; at = text.find(mark, at)) {
    at += mark.size();
    for (;;) {
      size_t open = text.find_first_of("({;", at);
      if (open == text.npos || text[open] != '(') break;
      size_t end = open;
      while (end > at && !isWord(text[end - 1])) --end;
      size_t begin = end;
      while (begin > at && isWord(text[begin - 1])) --begin;
      std::string name(text.substr(begin, end - begin));
      if (name != "__launch_bounds__") {
        if (!name.empty()) names.push_back(name);
        break;
      }
      at = text.find(')', open);
      if (at == text.npos) return names;
    }
  }
  return names;
}

std::map<std::string, std::string, std::less<>> filesByKernel() {
  std::map<std::string, std::string, std::less<>> files;
  for (const DeviceSource *source = deviceSources; source->name; ++source)
    if (std::string_view(source->name).ends_with(".cu"))
      for (auto &kernel : kernelNames(source->text)) files[kernel] = source->name;
  return files;
}

} // namespace

std::string deviceFileOf(std::string_view kernel) {
  static const auto files = filesByKernel();
  auto found = files.find(kernel);
  return found == files.end() ? "" : found->second;
}

std::vector<std::string> deviceFiles() {
  std::vector<std::string> files;
  for (const DeviceSource *source = deviceSources; source->name; ++source)
    if (std::string_view(source->name).ends_with(".cu")) files.push_back(source->name);
  return files;
}

namespace {

struct Sources {
  SourceText source;
  std::vector<SourceText> headers;
};

Expected<Sources> sourcesOf(const std::string &file) {
  Sources all;
  for (const DeviceSource *s = deviceSources; s->name; ++s) {
    if (file == s->name) all.source = {"kernels/" + file, s->text};
    if (std::string_view(s->name).ends_with(".cuh"))
      all.headers.push_back({std::string("kernels/") + s->name, s->text});
  }
  if (all.source.name.empty()) return Error::internal("no such device code", file);
  return all;
}

/// Everything that changes the cubin but NVRTC itself.
cache::Key keyOf(const Sources &sources, const std::string &arch) {
  cache::Key key{"device", {}};
  key.add("format", "1");
  key.add("file", sources.source.name);
  key.add("source", cache::hex(cache::digest(sources.source.text)));
  for (const SourceText &header : sources.headers)
    key.add(header.name, cache::hex(cache::digest(header.text)));
  key.add("options", fmt::format("{}", fmt::join(nvrtcOptions(arch), " ")));
  return key;
}

/// Empty: not a cubin with all kernels of the source in it.
std::optional<CompiledCuda> fromContent(const cache::Content &content, const Sources &sources) {
  const std::string *cubin = content.find("cubin"), *log = content.find("log");
  if (!cubin || !log) return std::nullopt;
  for (const std::string &kernel : kernelNames(sources.source.text))
    if (!definesFunction(*cubin, machineCuda, kernel)) return std::nullopt;
  return CompiledCuda{*cubin, *log, parsePtxasLog(*log), 0, true};
}

/// An entry that the driver refuses, out of the way while it is made anew; back if that fails.
class Dropped {
  cache::Store &store;
  const cache::Key &key;
  std::optional<cache::Content> content;

public:
  Dropped(cache::Store &store, const cache::Key &key, const CompiledCuda *refused) : store(store), key(key) {
    if (!refused || !(content = store.find(key))) return;
    // Another process may have replaced it.
    const std::string *cubin = content->find("cubin");
    if (cubin && *cubin == refused->cubin)
      store.discard(key);
    else
      content.reset();
  }
  void restore() {
    if (content) store.publish(key, *content);
  }
};

/// The cache on disk, else NVRTC. Without one here, what another machine's NVRTC made for such a driver.
Expected<CompiledCuda> findOrCompile(const Sources &sources, const std::string &arch, int driverVersion,
                                     const CompiledCuda *refused) {
  cache::Store &store = cache::Store::user();
  cache::Key common = keyOf(sources, arch), key = common;
  std::string nvrtc = nvrtcInUse(driverVersion);
  if (nvrtc == "none") nvrtc = newestTool(store, common, driverVersion / 1000);
  if (nvrtc.empty()) return compileCuda(sources.source, sources.headers, arch, driverVersion); // says why not
  key.add("nvrtc", nvrtc);
  Dropped dropped(store, key, refused);
  CompiledCuda compiled;
  for (bool again = false;; again = true) {
    bool made = false;
    auto content = store.findOrMake(
        key,
        [&]() -> Expected<cache::Content> {
          auto result = compileCuda(sources.source, sources.headers, arch, driverVersion);
          if (!result) return result.takeError();
          compiled = std::move(*result);
          rememberTool(store, common, nvrtc);
          return cache::Content{{{"cubin", compiled.cubin}, {"log", compiled.log}}};
        },
        &made);
    if (!content) return dropped.restore(), content.takeError();
    if (made) return compiled;
    if (auto found = fromContent(*content, sources)) return std::move(*found);
    if (again) return Error::internal("a cubin without its kernels is in the cache", key.hash());
    store.discard(key);
  }
}

} // namespace

Expected<const CompiledCuda *> compiledDeviceFile(const std::string &file, const std::string &arch,
                                                  int driverVersion, const CompiledCuda *refused) {
  struct Entry {
    std::mutex compiling;
    std::vector<std::unique_ptr<CompiledCuda>> compiled; // the last one counts; those refused stay
  };
  static std::mutex mutex;
  static auto &entries = *new std::map<std::string, Entry>; // its cubins outlive every use
  Entry *entry;
  {
    std::lock_guard lock(mutex);
    entry = &entries[fmt::format("{}|{}|{}", file, arch, driverVersion / 1000)];
  }
  std::lock_guard lock(entry->compiling); // files are compiled beside each other, one file once
  const CompiledCuda *last = entry->compiled.empty() ? nullptr : entry->compiled.back().get();
  if (last && (last != refused || !last->fromDisk)) return last;
  auto sources = sourcesOf(file);
  if (!sources) return sources.takeError();
  auto compiled = findOrCompile(*sources, arch, driverVersion, refused);
  if (!compiled) return compiled.takeError();
  return entry->compiled.emplace_back(std::make_unique<CompiledCuda>(std::move(*compiled))).get();
}

} // namespace quern::driver
