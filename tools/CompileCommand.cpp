// `quern compile`: prints a stage of compilation, from .qn text or from the text of an earlier stage.
#include "compiler/syntax/Syntax.h"
#include "runtime/jit/Jit.h"
#include "tools/CallRequest.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include "tools/Options.h"
#include <cstdio>
#include <fmt/format.h>
#include <memory>

namespace quern::tools {
namespace {
struct CompileOptions {
  CallOptions call;
  std::string arch = "cpu", emit = "quern", inputStage, source, schedule, outputFile;
};

/// What a call fixes, from a .qn file and the options.
Expected<jit::Request> requestFor(const std::shared_ptr<const syntax::Program> &program,
                                  const CompileOptions &options) {
  auto kernel = pickKernel(*program, options.call.kernel);
  if (!kernel) return kernel.takeError();
  CallOptions call = options.call;
  if (options.arch != "cpu") call.layout = "gpu"; // the only one that GPU kernels read
  auto request = requestFor(*program, **kernel, call);
  if (request) request->schedule = options.schedule, request->target = options.arch;
  return request;
}

Expected<std::string> readBack(SourceText source, const CompileOptions &options) {
  if (auto features = options.call.resolve(); !features)
    return features.takeError(); // sets QUERN_CPU_FEATURES
  jit::EmitRequest emit;
  emit.stage = options.emit, emit.inputStage = options.inputStage;
  emit.inputText = std::move(source.text);
  std::shared_ptr<const syntax::Program> program; // lives until the request is done
  if (!options.source.empty()) {
    auto loaded = loadProgram(options.source);
    if (!loaded) return loaded.takeError();
    program = *loaded;
    auto request = requestFor(program, options);
    if (!request) return request.takeError();
    emit.request = std::move(*request);
  } else if (options.inputStage == "quern" && options.emit != "quern") {
    return Error::user("the quern stage does not say the dimensions and dtypes of a call, expected --source "
                       "with its .qn file",
                       options.call.file);
  }
  emit.request.schedule = options.schedule, emit.request.target = options.arch;
  return jit::emitThroughLibrary(emit);
}

Expected<std::string> produce(const CompileOptions &options) {
  auto source = loadText(options.call.file);
  if (!source) return source.takeError();
  if (!options.inputStage.empty() && options.inputStage != "ast")
    return readBack(std::move(*source), options);
  auto program = syntax::parseProgram(source->text, source->name); // the ast stage prints as .qn text
  if (!program) return program.takeError();
  if (options.emit == "ast") return syntax::print(**program);
  auto request = requestFor(*program, options);
  if (!request) return request.takeError();
  jit::EmitRequest emit;
  emit.stage = options.emit;
  emit.request = std::move(*request);
  return jit::emitThroughLibrary(emit);
}

int compile(const CompileOptions &options) {
  auto text = produce(options);
  if (!text) return report(text.error());
  if (options.outputFile.empty()) {
    if (options.emit == "cubin")
      return report(Error::user("a cubin is not text, expected --output with a file for it", "--emit"));
    fmt::print("{}{}", *text, text->ends_with('\n') ? "" : "\n");
    return success;
  }
  FILE *file = std::fopen(options.outputFile.c_str(), "wb");
  bool written = file && std::fwrite(text->data(), 1, text->size(), file) == text->size();
  if (file && std::fclose(file) != 0) written = false;
  return written ? success : report(Error::system("cannot be written", options.outputFile));
}
} // namespace

void addCompile(CLI::App &app, int &exitCode) {
  auto options = std::make_shared<CompileOptions>();
  CLI::App *command = app.add_subcommand("compile", "prints a stage of compilation");
  options->call.addFile(*command);
  command
      ->add_option("--arch", options->arch,
                   "the target: cpu, sm_90a (Hopper), sim (its program on the simulator)")
      ->check(CLI::IsMember({"cpu", "sm_90a", "sim"}))
      ->capture_default_str();
  command
      ->add_option("--emit", options->emit,
                   "the stage to print; tile, ptx and cubin are sm_90a's, asm is cpu's")
      ->check(CLI::IsMember({"ast", "quern", "scheduled", "tile", "instr", "llvm", "asm", "ptx", "cubin"}))
      ->capture_default_str();
  command
      ->add_option("--input-stage", options->inputStage,
                   "FILE is the text of this stage, as --emit printed it")
      ->check(CLI::IsMember({"ast", "quern", "scheduled", "tile", "instr", "llvm", "ptx"}));
  command->add_option("--source", options->source,
                      "with --input-stage quern: the .qn file that FILE came from, for the types of a call");
  options->call.addShape(*command);
  command->add_option("--schedule", options->schedule,
                      "one line, as --emit=scheduled prints it (default: chosen by Quern)");
  command->add_option("-o,--output", options->outputFile, "write to this file instead of standard output");
  command->footer(
      "Examples:\n"
      "  quern compile gpt_oss --emit=ast\n"
      "  quern compile gpt_oss --kernel gate_up --dim N=5760,K=2880 --emit=quern -o gate_up.mlir\n"
      "  quern compile gate_up.mlir --input-stage quern --source gpt_oss --kernel gate_up --dim "
      "N=5760,K=2880 --emit=llvm\n"
      "Exit code: 0 success, 2 an error.");
  command->callback([options, &exitCode] { exitCode = compile(*options); });
}

} // namespace quern::tools
