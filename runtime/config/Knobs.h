// Every environment variable that Quern reads, as one table: help texts, documents, the keys of the cache and
// `quern doctor` are made from it. Nothing else calls getenv (a lint test holds this).
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace quern::config {

enum class Knob {
  CacheDir,
  CacheLimit,
  CpuFeatures,
  CpuSchedule,
  CudaLibrary,
  Disassembler,
  GpuSchedule,
  JitLibrary,
  Jobs,
  NumThreads,
  Nvrtc,
  Ptxas,
  PythonPrefix,
  SimOptions,
  SimSeed,
  SimSms,
  TuneWorkspace,
};

/// Whether and how a knob changes what is compiled or tuned.
enum class InKey {
  No,       // changes no bytes
  Resolved, // through what it resolves to: the schedule, the CPU's features, the assembler's version
};

struct KnobInfo {
  Knob knob;
  std::string_view name;      // "QUERN_CACHE_DIR"
  std::string_view values;    // "path", "bytes, with K, M or G"
  std::string_view otherwise; // the default, in words
  std::string_view help;      // one sentence
  InKey inKey = InKey::No;
  bool everyTime = false; // read at each use; otherwise once per process
};

/// In the order of the enumeration.
std::span<const KnobInfo> knobs();
const KnobInfo &info(Knob knob);
/// The value, unless unset or empty. Read at the first call and kept, but for knobs that are read every time;
/// never on a launch.
std::optional<std::string> value(Knob knob);
/// A variable that is not Quern's ("HOME", "PATH", "TMPDIR", "CUDA_HOME", ...), read at each call, unless
/// unset or empty.
std::optional<std::string> systemVariable(std::string_view name);
/// The table as text for a terminal, and as a Markdown table for docs/knobs.md (a test compares).
std::string helpText();
std::string markdown();

} // namespace quern::config
