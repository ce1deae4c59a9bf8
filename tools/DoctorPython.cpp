// Python and PyTorch, by asking the interpreter in a child with a time limit. No package is imported there:
// that takes seconds, and a package may start threads or CUDA.
#include "runtime/config/Knobs.h"
#include "runtime/driver/Process.h"
#include "tools/Doctor.h"
#include <filesystem>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace quern::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char *question = R"(
import importlib.metadata as metadata, importlib.util as util, json, os, sys
def version(name):
    try: return metadata.version(name)
    except Exception: return ''
def origin(name):
    try: return getattr(util.find_spec(name), 'origin', None) or ''
    except Exception: return ''
torch, cuda = origin('torch'), ''
try:
    facts = {}
    with open(os.path.join(os.path.dirname(torch), 'version.py')) as file: exec(file.read(), facts)
    cuda = facts.get('cuda') or ''
except Exception: pass
names = ('torch', 'bitsandbytes', 'triton')
print('\n' + json.dumps({
    'python': '%d.%d.%d' % sys.version_info[:3], 'path': sys.executable, 'cuda': cuda,
    'version': {n: version(n) for n in names}, 'origin': {n: origin(n) for n in (*names, 'quern')},
}))
)";

struct Interpreter {
  std::string path, why;
};

bool runs(const fs::path &path) { return access(path.c_str(), X_OK) == 0; }

Interpreter findPython(const std::string &given) {
  if (!given.empty()) return {given, "given by --python"};
  if (auto environment = config::systemVariable("VIRTUAL_ENV"))
    if (fs::path path = fs::path(*environment) / "bin/python3"; runs(path)) return {path, "of VIRTUAL_ENV"};
  // The wheel's tool lies in lib/python3.x/site-packages/quern of its environment; one from a build folder
  // may have a .venv above it.
  std::error_code ignored;
  fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (int level = 0; level < 5 && folder.has_relative_path(); ++level, folder = folder.parent_path()) {
    if (folder.filename() == "site-packages")
      if (fs::path path = folder / "../../../bin/python3"; runs(path))
        return {path.lexically_normal(), "whose package this program is part of"};
    if (fs::path path = folder / ".venv/bin/python3"; runs(path))
      return {path, "of the .venv above this program"};
  }
  if (std::string path = onPath("python3"); !path.empty()) return {path, "on the PATH"};
  return {};
}

/// Whether "2.13.0+cpu" is at least major.minor.
bool atLeast(const std::string &version, int major, int minor) {
  int a = 0, b = 0;
  return std::sscanf(version.c_str(), "%d.%d", &a, &b) == 2 && (a > major || (a == major && b >= minor));
}

} // namespace

std::string onPath(const std::string &program) {
  std::string path = config::systemVariable("PATH").value_or("");
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = std::min(path.find(':', begin), path.size());
    std::string file = path.substr(begin, end - begin) + "/" + program;
    std::error_code ignored;
    if (end > begin && fs::is_regular_file(file, ignored) && runs(file)) return file;
    begin = end + 1;
  }
  return "";
}

Section lookAtPython(const std::string &given) {
  Section section{"Python", {}};
  Interpreter python = findPython(given);
  if (python.path.empty()) {
    section.add({Mark::Missing, "Python", "", "", "only the Python package needs it",
                 "install Python 3.10 or newer"});
    return section;
  }
  auto ran =
      driver::runProcess({python.path, "-c", question}, {.timeoutSeconds = 20, .outputLimit = 1 << 20});
  if (!ran || !ran->ok()) {
    std::string text = !ran ? ran.error().message
                       : ran->timedOut
                           ? "it did not answer within 20 s"
                           : fmt::format("it ended with status {}: {}", ran->exitStatus, ran->output);
    section.add({Mark::Problem, "Python", "", python.path, python.why + "; " + text,
                 "repair it, or name another one with --python"});
    return section;
  }
  // Whatever a site customisation prints comes before our line.
  auto facts = nlohmann::json::parse(
      ran->output.substr(std::min(ran->output.size(), ran->output.rfind("\n{") + 1)), nullptr, false);
  if (facts.is_discarded() || !facts.is_object()) {
    section.add({Mark::Problem, "Python", "", python.path,
                 python.why + "; it answered something else: " + ran->output, ""});
    return section;
  }
  std::string version = facts.value("python", ""), cuda = facts.value("cuda", "");
  bool newEnough = atLeast(version, 3, 10);
  section.add({newEnough ? Mark::Ok : Mark::Problem, "Python", version, facts.value("path", python.path),
               python.why, newEnough ? "" : "install Python 3.10 or newer"});
  auto versionOf = [&](const char *name) { return facts["version"].value(name, ""); };
  auto originOf = [&](const char *name) { return facts["origin"].value(name, ""); };
  if (originOf("torch").empty()) {
    section.add(
        {Mark::Missing, "PyTorch", "", "", "only the Python package needs it", "pip install 'torch>=2.4'"});
  } else {
    bool good = atLeast(versionOf("torch"), 2, 4);
    section.add({good ? Mark::Ok : Mark::Problem, "PyTorch", versionOf("torch"), originOf("torch"),
                 cuda.empty() ? "built without CUDA: tensors on the CPU only" : "built for CUDA " + cuda,
                 good ? "" : "pip install --upgrade 'torch>=2.4'"});
  }
  bool quern = !originOf("quern").empty();
  section.add({quern ? Mark::Ok : Mark::Missing, "quern", "", originOf("quern"),
               quern ? "the Python package" : "not installed in this Python",
               quern ? "" : "pip install the wheel, or run scripts/setup.sh"});
  if (originOf("bitsandbytes").empty())
    section.add({Mark::Missing, "bitsandbytes", "", "",
                 "only quern.pack of its modules and checkpoints need it",
                 "pip install 'bitsandbytes>=0.45'"});
  else
    section.add({Mark::Ok, "bitsandbytes", versionOf("bitsandbytes"), originOf("bitsandbytes"), "", ""});
  return section;
}

} // namespace quern::tools
