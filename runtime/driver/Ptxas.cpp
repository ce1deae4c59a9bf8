// Runs ptxas and the disassemblers on private temporary files.
#include "runtime/driver/Ptxas.h"
#include "runtime/driver/Process.h"
#include "runtime/driver/ToolIdentity.h"
#include <algorithm>
#include <charconv>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <mutex>
#include <set>

namespace quern::driver {
namespace {

const Wanted ptxasPlaces{
    config::Knob::Ptxas,
    {"bin/ptxas"},
    "ptxas",
    {"nvidia/cu13/bin/ptxas", "nvidia/cuda_nvcc/bin/ptxas", "triton/backends/nvidia/bin/ptxas"},
    true};
const Wanted cuobjdumpPlaces{config::Knob::Disassembler,
                             {"bin/cuobjdump", "bin/nvdisasm"},
                             "cuobjdump",
                             {"nvidia/cu13/bin/cuobjdump", "nvidia/cu13/bin/nvdisasm",
                              "nvidia/cuda_cuobjdump/bin/cuobjdump", "nvidia/cuda_nvdisasm/bin/nvdisasm",
                              "triton/backends/nvidia/bin/cuobjdump", "triton/backends/nvidia/bin/nvdisasm"},
                             true};

/// A ptxas that said once that it is too old for a pair (PTX version, architecture) is not asked again.
class TooOld {
  std::mutex mutex;
  std::set<std::string> pairs;

public:
  static TooOld &instance() {
    static TooOld value;
    return value;
  }
  void add(const std::string &key) {
    std::lock_guard lock(mutex);
    pairs.insert(key);
  }
  bool has(const std::string &key) {
    std::lock_guard lock(mutex);
    return pairs.contains(key);
  }
};

std::string_view ptxVersion(std::string_view ptx) {
  size_t at = ptx.find(".version");
  return at == ptx.npos ? "" : ptx.substr(at, ptx.find('\n', at) - at);
}

bool saysTooOld(const PtxasReport &report) {
  return std::ranges::any_of(report.errors, [](const std::string &line) {
    return line.find("Unsupported .version") != line.npos ||
           line.find("is not defined for option 'gpu-name'") != line.npos;
  });
}

std::string_view lineOf(std::string_view text, int64_t number) {
  for (int64_t line = 1; line < number; ++line) {
    size_t end = text.find('\n');
    if (end == text.npos) return "";
    text.remove_prefix(end + 1);
  }
  return text.substr(0, text.find('\n'));
}

/// The first error lines, each with the line of the PTX that it names.
std::string explainErrors(const PtxasReport &report, std::string_view ptx) {
  constexpr size_t most = 8;
  std::string text;
  for (size_t i = 0; i < report.errors.size() && i < most; ++i) {
    const std::string &error = report.errors[i];
    text += error + "\n";
    int64_t number = 0;
    if (size_t at = error.find(", line "); at != error.npos)
      std::from_chars(error.data() + at + 7, error.data() + error.size(), number);
    if (number > 0) text += fmt::format("  {:>6} | {}\n", number, lineOf(ptx, number));
  }
  if (report.errors.size() > most) text += fmt::format("and {} more errors\n", report.errors.size() - most);
  return text;
}

/// ELF of NVIDIA's machine (EM_CUDA = 190), 64 bits.
bool isCubin(std::string_view bytes) {
  return bytes.size() > 64 &&
         bytes.starts_with("\x7f"
                           "ELF\x02") &&
         static_cast<uint8_t>(bytes[18]) == 190;
}

/// How a run ended, when not with 0.
std::string ending(const ProcessResult &run) {
  if (run.timedOut) return fmt::format("did not end within {:.1f} s and was stopped", run.seconds);
  if (run.signal) return fmt::format("was ended by signal {} ({})", run.signal, strsignal(run.signal));
  return fmt::format("ended with status {}", run.exitStatus);
}

std::string tail(const std::string &text, size_t most = 4000) {
  return text.size() <= most ? text : "[...]" + text.substr(text.size() - most);
}

Expected<Assembled> assembleWith(const Found &tool, std::string_view ptx, std::string_view arch,
                                 const AssembleOptions &options) {
  auto folder = PrivateFolder::create();
  if (!folder) return folder.takeError();
  auto input = folder->write("kernel.ptx", std::string(ptx));
  if (!input) return input.takeError();
  auto output = folder->write("kernel.cubin", ""); // it exists with mode 0600 before ptxas fills it
  if (!output) return output.takeError();

  std::vector<std::string> command{tool.path, fmt::format("-arch={}", arch), "-v"};
  if (options.maxRegisters) command.push_back(fmt::format("-maxrregcount={}", options.maxRegisters));
  command.insert(command.end(), {*input, "-o", *output});
  auto run = runProcess(command, {options.timeoutSeconds, 16 << 20});
  if (!run) {
    Error error = run.takeError();
    error.detail = "this path is from " + tool.source;
    return error;
  }

  Assembled result{"", run->output, parsePtxasLog(run->output), tool, run->seconds};
  bool statusUnknown = run->exitStatus == -1 && result.report.errors.empty();
  if (run->timedOut || run->signal) {
    Error error = Error::system("ptxas " + ending(*run), tool.path);
    error.detail = tail(run->output);
    return error;
  }
  if (!run->ok() && !statusUnknown) {
    bool refused = !result.report.errors.empty();
    Error error = refused ? Error::internal("ptxas refuses the generated PTX", tool.path)
                          : Error::system("ptxas " + ending(*run), tool.path);
    error.detail = refused ? explainErrors(result.report, ptx) + error.detail : tail(run->output);
    return error;
  }
  auto bytes = readFile(*output);
  if (!bytes) return bytes.takeError();
  if (!isCubin(*bytes)) {
    Error error = Error::system(
        fmt::format("ptxas reported success and wrote {} bytes that are no cubin", bytes->size()), tool.path);
    error.detail = tail(run->output);
    return error;
  }
  result.cubin = std::move(*bytes);
  return result;
}

} // namespace

std::vector<Found> findPtxas() { return findAll(ptxasPlaces); }
std::vector<Found> findDisassemblers() { return findAll(cuobjdumpPlaces); }

Error missingPtxas() {
  Error error =
      Error::system("no ptxas was found; install it with: pip install 'nvidia-cuda-nvcc==13.0.*', or set "
                    "QUERN_PTXAS to its path",
                    "ptxas");
  error.detail = searched(ptxasPlaces);
  return error;
}

Expected<Assembled> assemble(std::string_view ptx, std::string_view arch, const AssembleOptions &options) {
  auto tools = findPtxas();
  if (tools.empty()) return missingPtxas();
  std::string older;
  for (const Found &tool : tools) {
    std::string key = fmt::format("{}|{}|{}", tool.path, ptxVersion(ptx), arch);
    if (tools.size() > 1 && TooOld::instance().has(key)) {
      older += fmt::format("  {} is too old\n", tool.path);
      continue;
    }
    auto result = assembleWith(tool, ptx, arch, options);
    if (result) return result;
    if (!saysTooOld(parsePtxasLog(result.error().detail))) return result;
    TooOld::instance().add(key);
    older += fmt::format("  {}: {}", tool.path,
                         result.error().detail.substr(0, result.error().detail.find('\n') + 1));
  }
  Error error =
      Error::system(fmt::format("no ptxas that was found takes {} for {}; install a newer one with: pip "
                                "install 'nvidia-cuda-nvcc==13.0.*'",
                                ptxVersion(ptx), arch),
                    "ptxas");
  error.detail = "tried:\n" + older;
  return error;
}

Expected<std::string> toolVersion(const std::string &path) {
  static std::mutex mutex;
  static std::map<std::string, std::string> known;
  std::string state = fileState(path);
  {
    std::lock_guard lock(mutex);
    if (auto at = known.find(state); at != known.end()) return at->second;
  }
  auto run = runProcess({path, "--version"}, {20, 1 << 16});
  if (!run) return run.takeError();
  size_t at = run->output.rfind(", V"); // "Cuda compilation tools, release 13.0, V13.0.88"
  if (!run->ok() || at == std::string::npos) {
    Error error = Error::system("does not tell its version", path);
    error.detail = tail(run->output);
    return error;
  }
  std::string version = run->output.substr(at + 3, run->output.find('\n', at) - at - 3);
  std::lock_guard lock(mutex);
  return known[state] = version;
}

Expected<std::string> disassemble(std::string_view cubin) {
  auto tools = findDisassemblers();
  if (tools.empty()) {
    Error error =
        Error::system("no cuobjdump or nvdisasm was found; the CUDA toolkit and the triton wheel have them, "
                      "or set QUERN_DISASSEMBLER to one",
                      "disassembler");
    error.detail = searched(cuobjdumpPlaces);
    return error;
  }
  auto folder = PrivateFolder::create();
  if (!folder) return folder.takeError();
  auto input = folder->write("kernel.cubin", std::string(cubin));
  if (!input) return input.takeError();
  Error last;
  for (const Found &tool : tools) {
    std::vector<std::string> command{tool.path};
    std::string_view path = tool.path;
    if (path.substr(path.rfind('/') + 1).find("cuobjdump") != path.npos) command.push_back("-sass");
    command.push_back(*input);
    auto run = runProcess(command);
    if (run && run->ok() && !run->output.empty() && !run->truncated) return std::move(run->output);
    last = run ? Error::system("the disassembler " + ending(*run), tool.path) : run.takeError();
    if (run) last.detail = tail(run->output);
  }
  return last;
}

} // namespace quern::driver
