// `quern doctor`: prints the diagnosis as text or JSON.
#include "tools/Commands.h"
#include "tools/Doctor.h"
#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace quern::tools {

std::string_view name(Mark mark) {
  return mark == Mark::Ok ? "ok" : mark == Mark::Missing ? "missing" : "problem";
}

Diagnosis diagnose(const DoctorOptions &options) {
  Diagnosis diagnosis;
  diagnosis.sections.push_back(lookAtCpu());
  diagnosis.sections.push_back(lookAtCompiler(diagnosis.cpuWorks));
  diagnosis.sections.push_back(lookAtGpu(diagnosis.gpuWorks, diagnosis.gpuReason));
  diagnosis.sections.push_back(lookAtCache());
  diagnosis.sections.push_back(lookAtPython(options.python));
  diagnosis.sections.push_back(lookAtKnobs());
  return diagnosis;
}

namespace {

std::string indented(const std::string &text, const std::string &indent) {
  std::string out;
  for (char c : text) out += c == '\n' ? "\n" + indent : std::string(1, c);
  while (out.ends_with(' ') || out.ends_with('\n')) out.pop_back();
  return out;
}

void printText(const Diagnosis &diagnosis) {
  for (const Section &section : diagnosis.sections) {
    if (section.findings.empty()) continue;
    fmt::print("{}\n", section.title);
    size_t width = 0;
    for (auto &finding : section.findings) width = std::max(width, finding.what.size());
    std::string indent(width + 13, ' ');
    for (auto &finding : section.findings) {
      std::string line = fmt::format("  {:<8} {:<{}} ", name(finding.mark), finding.what, width);
      for (auto &part : {finding.found, finding.place})
        if (!part.empty()) line += " " + part;
      if (!finding.why.empty())
        line += (finding.found.empty() && finding.place.empty() ? " " : "  (") + finding.why +
                (finding.found.empty() && finding.place.empty() ? "" : ")");
      fmt::print("{}\n", indented(line, indent));
      if (!finding.advice.empty()) fmt::print("{}-> {}\n", indent, indented(finding.advice, indent));
    }
    fmt::print("\n");
  }
  fmt::print("CPU kernels: {}\n", diagnosis.cpuWorks ? "work" : "do not work, see Compiler");
  if (diagnosis.gpuWorks)
    fmt::print("GPU kernels: everything they need was found\n");
  else
    fmt::print("GPU kernels: do not work here: {}\n", diagnosis.gpuReason);
}

void printJson(const Diagnosis &diagnosis) {
  nlohmann::ordered_json json = {{"version", QUERN_VERSION},
                                 {"cpu_works", diagnosis.cpuWorks},
                                 {"gpu_works", diagnosis.gpuWorks},
                                 {"gpu_reason", diagnosis.gpuReason},
                                 {"sections", nlohmann::ordered_json::array()}};
  for (const Section &section : diagnosis.sections) {
    nlohmann::ordered_json findings = nlohmann::ordered_json::array();
    for (auto &f : section.findings)
      findings.push_back({{"mark", name(f.mark)},
                          {"what", f.what},
                          {"found", f.found},
                          {"place", f.place},
                          {"why", f.why},
                          {"advice", f.advice}});
    json["sections"].push_back({{"title", section.title}, {"findings", std::move(findings)}});
  }
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

} // namespace

void addDoctor(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App *command = app.add_subcommand(
      "doctor", "says what Quern finds on this machine, what it will use and why, and what to install");
  command->add_option("--python", options->python,
                      "the Python to ask (default: of VIRTUAL_ENV, of this installation, or on the PATH)");
  command->add_flag("--json", options->json, "print one JSON object instead of the text");
  command->footer("CUDA is not initialised.\nExit code: 0 CPU kernels work, 1 they do not.");
  command->callback([options, &exitCode] {
    Diagnosis diagnosis = diagnose(*options);
    options->json ? printJson(diagnosis) : printText(diagnosis);
    exitCode = diagnosis.cpuWorks ? success : checkFailed;
  });
}

} // namespace quern::tools
