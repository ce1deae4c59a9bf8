// `quern`: runs, checks, compiles and lists .qn kernels from the command line.
#include "runtime/config/Knobs.h"
#include "tools/Commands.h"
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

namespace {

/// A full disk under standard output: what is missing there is a failure, whatever the command found.
int outputFailed(int error) {
  std::fprintf(stderr, "the output cannot be written: %s\n", std::strerror(error));
  return quern::tools::failure;
}

} // namespace

int main(int argc, char **argv) {
  using namespace quern::tools;
  CLI::App app{"Quern compiles grouped matmuls on 4-bit weights from a small language.", "quern"};
  app.set_version_flag("--version", "quern " QUERN_VERSION);
  app.require_subcommand(1);
  app.footer("Examples:\n"
             "  quern list\n"
             "  quern run gpt_oss --kernel gate_up --dim T=64,E=32,N=5760,K=2880,top_k=4 --check\n"
             "  quern compile gpt_oss --kernel down --emit=quern\n"
             "  quern check my_kernels.qn\n"
             "`quern COMMAND --help` describes a command.\n\n" +
             quern::config::helpText());
  int exitCode = success;
  addRun(app, exitCode);
  addCompile(app, exitCode);
  addExplain(app, exitCode);
  addCache(app, exitCode);
  addWarmup(app, exitCode);
  addBench(app, exitCode);
  addTune(app, exitCode);
  addTuneWorker(app, exitCode);
  addCheck(app, exitCode);
  addList(app, exitCode);
  addDoctor(app, exitCode);
  addRunBatch(app, exitCode);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    exitCode = app.exit(e) == 0 ? success : failure;
  } catch (const std::bad_alloc &) { // sizes come from the command line
    std::fprintf(stderr, "not enough memory for these dimensions\n");
    return failure;
  } catch (const std::system_error &e) { // fmt::print and a full disk
    return outputFailed(e.code().value());
  }
  return std::fflush(stdout) == 0 ? exitCode : outputFailed(errno);
}
