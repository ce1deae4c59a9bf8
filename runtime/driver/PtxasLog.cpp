// The log of `ptxas -v`, line by line, as a PtxasReport.
#include "runtime/driver/Ptxas.h"
#include <algorithm>
#include <charconv>
#include <optional>

namespace quern::driver {
namespace {

/// The text between `begin` and `end`, or nothing.
std::optional<std::string_view> between(std::string_view line, std::string_view begin, std::string_view end) {
  size_t at = line.find(begin);
  if (at == line.npos) return std::nullopt;
  line.remove_prefix(at + begin.size());
  size_t stop = line.find(end);
  if (stop == line.npos) return std::nullopt;
  return line.substr(0, stop);
}

/// The whole number that stands before `unit`: numberBefore("Used 32 registers", " registers") = 32.
int64_t numberBefore(std::string_view line, std::string_view unit) {
  size_t at = line.find(unit);
  if (at == line.npos) return 0;
  size_t begin = at;
  while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
  int64_t value = 0;
  std::from_chars(line.data() + begin, line.data() + at, value);
  return value;
}

bool anyHas(const std::vector<std::string> &lines, std::initializer_list<std::string_view> texts) {
  for (auto &line : lines)
    for (auto text : texts)
      if (line.find(text) != line.npos) return true;
  return false;
}

bool contains(std::string_view line, std::string_view text) { return line.find(text) != line.npos; }

/// "ptxas <file>, line 12; error   : ..." and "ptxas fatal   : ...".
bool hasSeverity(std::string_view line, std::string_view severity) {
  size_t colon = line.find(" : ");
  if (colon == line.npos) colon = line.find("\t: ");
  std::string_view head = line.substr(0, colon == line.npos ? 0 : colon);
  while (!head.empty() && head.back() == ' ') head.remove_suffix(1);
  return head.ends_with(severity);
}

struct Parser {
  PtxasReport report;
  // Properties come after the name of the function that they belong to.
  PtxasKernel *current = nullptr;

  PtxasKernel *named(std::string_view name) {
    for (auto &kernel : report.kernels)
      if (kernel.name == name) return &kernel;
    report.kernels.push_back({std::string(name)});
    return &report.kernels.back();
  }

  void line(std::string_view text) {
    if (auto name = between(text, "Compiling entry function '", "'")) {
      current = named(*name);
    } else if (contains(text, "Function properties for ")) {
      // Device functions have these lines without "Compiling entry function".
      std::string_view function = text.substr(text.find("Function properties for ") + 24);
      bool known = std::ranges::any_of(report.kernels, [&](auto &k) { return k.name == function; });
      current = named(function);
      if (!known) current->isEntry = false;
    } else if (contains(text, "bytes stack frame") && current) {
      current->stackBytes = numberBefore(text, " bytes stack frame");
      current->spillStoreBytes = numberBefore(text, " bytes spill stores");
      current->spillLoadBytes = numberBefore(text, " bytes spill loads");
    } else if (contains(text, "info") && contains(text, "Used ") && current) {
      current->registers = static_cast<int>(numberBefore(text, " registers"));
      current->barriers = static_cast<int>(numberBefore(text, " barriers"));
      current->smemBytes = numberBefore(text, " bytes smem");
    } else if (hasSeverity(text, "error") || hasSeverity(text, "fatal")) {
      report.errors.emplace_back(text);
    } else if (hasSeverity(text, "warning")) {
      report.warnings.emplace_back(text);
    } else if (contains(text, "(C7")) {
      report.advisories.emplace_back(text);
    }
  }
};

} // namespace

PtxasReport parsePtxasLog(std::string_view log) {
  Parser parser;
  while (!log.empty()) {
    size_t end = std::min(log.find('\n'), log.size());
    std::string_view text = log.substr(0, end);
    if (text.ends_with('\r')) text.remove_suffix(1);
    parser.line(text);
    log.remove_prefix(std::min(end + 1, log.size()));
  }
  return std::move(parser.report);
}

const PtxasKernel *PtxasReport::find(std::string_view kernel) const {
  for (auto &k : kernels)
    if (k.name == kernel) return &k;
  return nullptr;
}

int64_t PtxasReport::spillBytes() const {
  int64_t bytes = 0;
  for (auto &k : kernels) bytes += k.spillStoreBytes + k.spillLoadBytes;
  return bytes;
}

bool PtxasReport::setmaxnregIgnored() const {
  return anyHas(advisories, {"(C7508)", "'setmaxnreg' ignored"});
}
bool PtxasReport::wgmmaSerialized() const {
  return anyHas(advisories, {"(C7510)", "(C7513)", "(C7514)", "serialized"});
}
bool PtxasReport::wgmmaInjected() const { return anyHas(advisories, {"(C7517)", "(C7519)", "is injected"}); }

} // namespace quern::driver
