// The table of knobs, and the only calls of getenv.
#include "runtime/config/Knobs.h"
#include <array>
#include <cstdlib>
#include <mutex>

namespace quern::config {
namespace {

constexpr bool everyTime = true;

constexpr KnobInfo table[] = {
    {Knob::CacheDir, "QUERN_CACHE_DIR", "path", "quern in XDG_CACHE_HOME, else in ~/.cache",
     "Folder of the cache of compiled kernels and tuning results."},
    {Knob::CacheLimit, "QUERN_CACHE_LIMIT", "bytes, with K, M or G; 0: no limit", "4G",
     "Size that the cache is kept under; the entries that were unused longest go first."},
    {Knob::CpuFeatures, "QUERN_CPU_FEATURES", "+feature,-feature,...", "this CPU's",
     "Instruction sets that CPU kernels are compiled for, as changes of this CPU's.", InKey::Resolved,
     everyTime},
    {Knob::CpuSchedule, "QUERN_CPU_SCHEDULE", "schedule fields", "the tuned or default schedule",
     "Overrides fields of the CPU schedule of every kernel.", InKey::Resolved},
    {Knob::CudaLibrary, "QUERN_CUDA_LIBRARY", "path", "libcuda.so.1 on the loader's path",
     "The CUDA driver's library.", InKey::No, everyTime},
    {Knob::Disassembler, "QUERN_DISASSEMBLER", "path, or none",
     "cuobjdump of the toolkit, the PATH or a wheel", "The program that shows the SASS of a GPU kernel.",
     InKey::No, everyTime},
    {Knob::GpuSchedule, "QUERN_GPU_SCHEDULE", "schedule fields", "the tuned or default schedule",
     "Overrides fields of the GPU schedule of every kernel.", InKey::Resolved},
    {Knob::JitLibrary, "QUERN_JIT_LIBRARY", "path", "beside the program or module, or in ../lib",
     "The compiler's library, libquern-jit.so; one built from other sources is refused."},
    {Knob::Jobs, "QUERN_JOBS", "number", "what CPUs, cgroup and memory allow",
     "Compilations at once in warmup and tuning."},
    {Knob::NumThreads, "QUERN_NUM_THREADS", "number", "setNumThreads, else the CPUs of this process",
     "Threads of a CPU kernel."},
    {Knob::Nvrtc, "QUERN_NVRTC", "path, or none", "libnvrtc of the toolkit, a wheel or the loader's path",
     "NVIDIA's compiler of CUDA C++, which Quern's own device code needs.", InKey::Resolved, everyTime},
    {Knob::Ptxas, "QUERN_PTXAS", "path, or none",
     "ptxas of the toolkit, the PATH or a wheel; else the driver",
     "NVIDIA's assembler; without one the driver compiles the PTX at load.", InKey::Resolved, everyTime},
    {Knob::PythonPrefix, "QUERN_PYTHON_PREFIX", "paths, with colons",
     "VIRTUAL_ENV, and the python3 on the PATH",
     "Python installations whose packages are searched for NVIDIA's tools.", InKey::No, everyTime},
    {Knob::SimOptions, "QUERN_SIM_OPTIONS", "name=value ...", "all checks on",
     "Options of the GPU simulator.", InKey::No, everyTime},
    {Knob::SimSeed, "QUERN_SIM_SEED", "number", "1", "Seed of the GPU simulator's random schedulers.",
     InKey::No, everyTime},
    {Knob::SimSms, "QUERN_SIM_SMS", "1 to 1024", "4", "Multiprocessors of the simulated GPU."},
    {Knob::TuneWorkspace, "QUERN_TUNE_WORKSPACE", "bytes, with K, M or G", "a quarter of the free memory",
     "Most device memory that tuning may hold."},
};
constexpr size_t count = std::size(table);

constexpr bool inOrder() {
  for (size_t i = 0; i < count; ++i)
    if (size_t(table[i].knob) != i) return false;
  return true;
}
static_assert(inOrder(), "the table is in the order of the enumeration");

std::optional<std::string> read(std::string_view name) {
  const char *text = std::getenv(std::string(name).c_str());
  if (!text || !*text) return std::nullopt;
  return text;
}

std::string_view inWords(InKey inKey) { return inKey == InKey::No ? "no" : "as what it resolves to"; }

} // namespace

std::span<const KnobInfo> knobs() { return table; }
const KnobInfo &info(Knob knob) { return table[size_t(knob)]; }

std::optional<std::string> value(Knob knob) {
  const KnobInfo &row = info(knob);
  if (row.everyTime) return read(row.name);
  struct Once {
    std::once_flag flag;
    std::optional<std::string> value;
  };
  static auto &values = *new std::array<Once, count>; // read by threads that outlive main
  Once &once = values[size_t(knob)];
  std::call_once(once.flag, [&] { once.value = read(row.name); });
  return once.value;
}

std::optional<std::string> systemVariable(std::string_view name) { return read(name); }

std::string helpText() {
  std::string text = "Environment variables:\n";
  for (const KnobInfo &row : table) {
    ((text += "  ") += row.name) += '\n';
    ((text += "      ") += row.help) += '\n';
    (((text += "      ") += row.values) += "; default: ") += row.otherwise;
    text += '\n';
  }
  return text;
}

std::string markdown() {
  std::string text = "| variable | values | default | what it does | in the cache's keys | read |\n"
                     "|---|---|---|---|---|---|\n";
  for (const KnobInfo &row : table) {
    text += "| `";
    text += row.name;
    text += '`';
    for (std::string_view cell : {row.values, row.otherwise, row.help, inWords(row.inKey),
                                  std::string_view(row.everyTime ? "at each use" : "once per process")})
      (text += " | ") += cell;
    text += " |\n";
  }
  return text;
}

} // namespace quern::config
