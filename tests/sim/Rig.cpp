// See Rig.h.
#include "tests/sim/Rig.h"
#include "codegen/Pipeline.h"
#include "codegen/emit/Nvptx.h"
#include "codegen/gpu/OptimizeNvptx.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassInstrumentation.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "runtime/gpu/Execute.h"
#include "runtime/jit/Gpu.h"
#include "runtime/jit/Session.h"
#include "runtime/launch/Request.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::simtest {
namespace {

/// Makes the planted change when its pass has run.
struct Planter final : mlir::PassInstrumentation {
  const Planted &planted;
  explicit Planter(const Planted &what) : planted(what) {}
  void runAfterPass(mlir::Pass *pass, mlir::Operation *op) override {
    if (pass->getArgument() == planted.after) planted.change(llvm::cast<mlir::ModuleOp>(op));
  }
};

Status runPasses(jit::Session &session, mlir::ModuleOp module, const Planted *planted,
                 void (*build)(mlir::OpPassManager &)) {
  mlir::PassManager passes(session.context.get());
  if (planted) passes.addInstrumentation(std::make_unique<Planter>(*planted));
  build(passes);
  if (mlir::failed(passes.run(module))) return session.failed("lowering failed");
  return {};
}

} // namespace

std::string Outcome::str() const {
  std::string all;
  for (const std::string &issue : issues) all += issue + "\n";
  if (!wrong.empty()) all += "[numerics] " + wrong + "\n";
  return all.empty() ? "nothing was found\n" : all;
}

jittest::Case Rig::describe(const Subject &subject, uint64_t dataSeed) {
  jittest::Case c{subject.source, subject.kernel, {}, Layout::Gpu};
  c.options.dims = subject.dims, c.options.act = DType::BF16, c.options.seed = dataSeed,
  c.options.exact = subject.exact;
  return c;
}

Rig::Rig(const Subject &subject, uint64_t dataSeed, const Rig *compiled) : call(describe(subject, dataSeed)) {
  status = prepare(subject, compiled);
}

void Rig::reverseRows() {
  RoutingView &r = call.routing();
  reversed.assign(r.rowToken, r.rowToken + r.offsets[r.experts]);
  for (int64_t e = 0; e < r.experts; ++e)
    std::reverse(reversed.begin() + r.offsets[e], reversed.begin() + r.offsets[e + 1]);
  r.rowToken = reversed.data();
}

void Rig::routingToDevice() {
  const RoutingView &r = std::get<RoutingView>(args[call.kernel->routing]);
  offsets.assign(r.offsets, r.offsets + r.experts + 1);
  int64_t rows = r.tokens * r.topK, live = offsets.back();
  rowToken.assign(rows, -1), rowWeight.assign(rows, 0), inverse.assign(rows, -1);
  std::vector<int64_t> next(size_t(r.tokens), 0);
  for (int64_t row = 0; row < live; ++row) {
    int64_t token = r.rowToken[row];
    rowToken[row] = int32_t(token), rowWeight[row] = r.rowWeight[row];
    inverse[token * r.topK + next[token]++] = int32_t(row);
  }
  RoutingView view{r.tokens, r.experts, r.topK};
  view.device = {offsets.data(), rowToken.data(), rowWeight.data(), inverse.data()};
  args[call.kernel->routing] = view;
}

Status Rig::prepare(const Subject &subject, const Rig *compiledBefore) {
  if (!call.ok()) return Error::internal("no data", subject.name);
  if (!subject.rowsPerExpert.empty()) call.setRowsPerExpert(subject.rowsPerExpert);
  if (subject.reversed) reverseRows();
  auto bound = bindArguments(call.module->program(), *call.kernel, call.args);
  if (!bound) return bound.takeError();
  binding = *bound;
  auto wanted = oracle::interpret(call.module->program(), *call.kernel, call.args);
  if (!wanted) return wanted.takeError();
  expected = std::move(*wanted);
  args = call.args;
  if (call.kernel->routing >= 0) routingToDevice();
  if (compiledBefore) {
    image = compiledBefore->image;
    return {};
  }
  request = makeRequest(call.module->program(), *call.kernel, binding, args, "sim");
  request.schedule = subject.schedule;
  auto compiled = jit::compileGpu(request);
  if (!compiled) return compiled.takeError();
  image = std::move(*compiled);
  auto text = jit::emitGpu({request, "scheduled", "", ""});
  if (!text) return text.takeError();
  scheduled = std::move(*text);
  return {};
}

Expected<Rig::Lowered> Rig::lower(const Planted *planted) const {
  jit::Session session;
  auto module = session.parse(scheduled);
  if (!module) return module.takeError();
  for (auto *build : {buildTilePipeline, buildGpuInstrPipeline, buildLLVMPipeline})
    if (Status ok = runPasses(session, **module, planted, build); !ok) return ok.takeError();
  Lowered lowered{std::make_unique<llvm::LLVMContext>(), nullptr};
  lowered.module = mlir::translateModuleToLLVMIR(**module, *lowered.context, request.kernel);
  if (!lowered.module) return session.failed("translation to LLVM IR failed");
  auto target = nvptx::createTarget();
  if (!target) return target.takeError();
  nvptx::setTarget(*lowered.module, **target);
  if (Status ok = nvptx::optimize(*lowered.module, **target); !ok) return ok.takeError();
  return lowered;
}

Expected<sim::SimCode> Rig::load(Lowered lowered) const {
  return sim::loadSim(std::move(lowered.module), std::move(lowered.context), request.kernel, sim::symbols());
}

Expected<Outcome> Rig::run(void (*entry)(void **params), const sim::Options &options) {
  // The runtime keeps tables of pointers on a device for the life of the process.
  static auto &device = *new Device;
  device.options = options, device.entry = entry;
  device.multiprocessorCount = 2 * image.cluster; // two clusters, which must share the tiles
  std::vector<oracle::OutputBuffer> buffers;
  std::vector<TensorView> outputs;
  for (const OutputSpec &spec : binding.outputs) outputs.push_back(buffers.emplace_back(spec).view);
  auto loaded = device.load(image);
  if (!loaded) return loaded.takeError();
  auto plan = gpu::makePlan(device, nullptr, image, *loaded, *call.kernel, binding, args);
  if (!plan) return plan.takeError();
  if (Status ok = gpu::execute(*plan, nullptr, args, outputs); !ok) return ok.takeError();
  Outcome outcome{device.report.issues, ""};
  for (size_t i = 0; i < buffers.size(); ++i) {
    oracle::Comparison c = oracle::compare(expected[i], outputs[i]);
    c.guardsBroken = !buffers[i].guardsIntact();
    if (c.pass && !c.guardsBroken) continue;
    outcome.wrong += (outcome.wrong.empty() ? "" : "; ") + c.verdict();
    if (c.mismatchedNaN && !c.unwritten)
      outcome.wrong += fmt::format("; {} of {} tiles are wrong", c.failedTiles, c.tiles);
  }
  return outcome;
}

} // namespace quern::simtest
