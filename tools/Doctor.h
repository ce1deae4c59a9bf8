// What `quern doctor` looks at: each finding says what was found or not, where, what will be used and why,
// and what to do about it. Nothing here initialises CUDA, in this process or in another one.
#pragma once
#include <string>
#include <vector>

namespace quern::tools {

enum class Mark {
  Ok,
  Missing, // not there; something else is used, or `advice` says how to get it
  Problem, // there, and cannot be used as it is
};
std::string_view name(Mark mark); // "ok", "missing", "problem"

struct Finding {
  Mark mark = Mark::Ok;
  std::string what;   // "ptxas"
  std::string found;  // its version or value; empty: not found
  std::string place;  // a path
  std::string why;    // where it was found, whether and why it is used
  std::string advice; // what to install or change; empty: nothing
};

struct Section {
  std::string title;
  std::vector<Finding> findings;
  void add(Finding finding) { findings.push_back(std::move(finding)); }
};

struct Diagnosis {
  std::vector<Section> sections;
  bool cpuWorks = false, gpuWorks = false;
  std::string gpuReason; // why it does not work
};

struct DoctorOptions {
  std::string python; // its path; empty: found
  bool json = false;
};

Diagnosis diagnose(const DoctorOptions &options);

// The parts.
Section lookAtCpu();
/// The compiler's library, and a small kernel compiled, run and compared with the oracle.
Section lookAtCompiler(bool &works);
Section lookAtGpu(bool &works, std::string &reason);
Section lookAtCache();
Section lookAtPython(const std::string &python);
Section lookAtKnobs();

/// The first executable of this name in the folders of PATH, or empty.
std::string onPath(const std::string &program);

} // namespace quern::tools
