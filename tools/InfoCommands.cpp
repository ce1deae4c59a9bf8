// `quern check` and `quern list`.
#include "tools/Commands.h"
#include "tools/Load.h"
#include <fmt/format.h>
#include <memory>

namespace quern::tools {
using namespace syntax;

static int checkFile(const std::string &file) {
  auto program = loadProgram(file);
  if (!program) return report(program.error());
  for (const Kernel &k : (*program)->kernels)
    if (auto normal = normalize(**program, k); !normal) return report(normal.error());
  fmt::print("{}: ok, {} codecs, {} functions, {} kernels\n", file, (*program)->codecs.size(),
             (*program)->fns.size(), (*program)->kernels.size());
  return success;
}

void addCheck(CLI::App &app, int &exitCode) {
  auto files = std::make_shared<std::vector<std::string>>();
  CLI::App *command = app.add_subcommand("check", "checks .qn files and prints the first error of each");
  command->add_option("FILE", *files, ".qn files, names of shipped ones, or - for standard input")
      ->required();
  command->footer("Example:\n  quern check my_kernels.qn gpt_oss\nExit code: 0 all are correct, 2 an error.");
  command->callback([files, &exitCode] {
    for (const std::string &f : *files) exitCode = std::max(exitCode, checkFile(f));
  });
}

static int listFile(const std::string &file) {
  auto program = loadProgram(file);
  if (!program) return report(program.error());
  fmt::print("{}\n", (*program)->fileName);
  for (const Codec &c : (*program)->codecs) {
    std::string_view scale = c.scale == ScaleType::F32 ? "f32" : c.scale == ScaleType::BF16 ? "bf16" : "e8m0";
    fmt::print("  codec {}: scale {} per {}{}\n", c.name, scale, c.block, c.hasZero ? ", zero u4" : "");
  }
  for (const Kernel &k : (*program)->kernels) fmt::print("  kernel {}\n", signature(k));
  return success;
}

void addList(CLI::App &app, int &exitCode) {
  auto files = std::make_shared<std::vector<std::string>>();
  CLI::App *command =
      app.add_subcommand("list", "lists the shipped files, or those named, with their kernels");
  command->add_option("FILE", *files, "files to list (default: all shipped ones)");
  command->footer("Examples:\n  quern list\n  quern list gpt_oss");
  command->callback([files, &exitCode] {
    for (const std::string &f : files->empty() ? shippedFiles() : *files)
      exitCode = std::max(exitCode, listFile(f));
  });
}

} // namespace quern::tools
