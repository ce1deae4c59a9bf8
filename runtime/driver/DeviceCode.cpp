// Which file defines a kernel, and its cubin.
#include "runtime/driver/DeviceCode.h"
#include "kernels/DeviceSources.h"
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

Expected<const CompiledCuda *> compiledDeviceFile(const std::string &file, const std::string &arch,
                                                  int driverVersion) {
  struct Entry {
    std::mutex compiling;
    std::unique_ptr<CompiledCuda> compiled;
  };
  static std::mutex mutex;
  static auto &entries = *new std::map<std::string, Entry>; // its cubins outlive every use
  Entry *entry;
  {
    std::lock_guard lock(mutex);
    entry = &entries[fmt::format("{}|{}|{}", file, arch, driverVersion / 1000)];
  }
  std::lock_guard lock(entry->compiling); // files are compiled beside each other, one file once
  if (entry->compiled) return entry->compiled.get();
  SourceText source;
  std::vector<SourceText> headers;
  for (const DeviceSource *s = deviceSources; s->name; ++s) {
    if (file == s->name) source = {"kernels/" + file, s->text};
    if (std::string_view(s->name).ends_with(".cuh"))
      headers.push_back({std::string("kernels/") + s->name, s->text});
  }
  if (source.name.empty()) return Error::internal("no such device code", file);
  auto compiled = compileCuda(source, headers, arch, driverVersion);
  if (!compiled) return compiled.takeError();
  entry->compiled = std::make_unique<CompiledCuda>(std::move(*compiled));
  return entry->compiled.get();
}

} // namespace quern::driver
