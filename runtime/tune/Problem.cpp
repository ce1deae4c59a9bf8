// A problem as a compile request, and as text for the child process.
#include "runtime/tune/Problem.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/launch/CpuFeatures.h"
#include "runtime/launch/Request.h"
#include "runtime/oracle/Dims.h"
#include <bit>
#include <fmt/format.h>

namespace quern::tune {

Expected<const syntax::Kernel *> kernelOf(const Problem &problem) {
  if (!problem.program) return Error::internal("a problem without a program", "tune");
  if (const syntax::Kernel *kernel = problem.program->findKernel(problem.kernel)) return kernel;
  return Error::user(fmt::format("there is no kernel '{}'", problem.kernel), problem.program->fileName);
}

Expected<std::map<std::string, int64_t>> allDims(const Problem &problem) {
  auto kernel = kernelOf(problem);
  if (!kernel) return kernel.takeError();
  auto chosen = oracle::chooseDims(**kernel, problem.dims);
  if (!chosen) return chosen.takeError();
  return chosen->dims;
}

Expected<oracle::GenerateOptions> generateOptions(const Problem &problem, uint64_t seed) {
  auto dims = allDims(problem);
  if (!dims) return dims.takeError();
  oracle::GenerateOptions options;
  options.dims = *dims, options.act = problem.act, options.quant = problem.quant,
  options.block = problem.block;
  options.dims.erase("R");
  options.layout = problem.target == "cpu" ? Layout::Cpu : Layout::Gpu;
  options.seed = seed;
  return options;
}

std::string archOf(const Problem &problem) { return problem.target == "cuda" ? "sm_90a" : problem.target; }

int64_t bucketOf(int64_t rows, int64_t experts) {
  int64_t mean = experts > 0 ? (rows + experts - 1) / experts : rows;
  return mean <= 0 ? 0 : int64_t(std::bit_ceil(uint64_t(mean)));
}

Expected<jit::Request> requestOf(const Problem &problem) {
  auto found = kernelOf(problem);
  if (!found) return found.takeError();
  const syntax::Kernel &kernel = **found;
  std::string arch = archOf(problem);
  if (arch != "cpu" && arch != "sim" && arch != "sm_90a")
    return Error::user(fmt::format("found '{}', expected cpu, sim, cuda or sm_90a", problem.target),
                       "target");
  auto dims = allDims(problem);
  if (!dims) return dims.takeError();
  Binding binding{*dims, problem.act, {}};
  binding.dims.erase("top_k");
  auto dtype = [&](const syntax::Param &p) {
    return p.elem.kind == syntax::ElemType::Literal ? p.elem.literal : problem.act;
  };
  std::vector<Arg> args;
  int64_t rows = 0, experts = 1;
  for (const syntax::Param &p : kernel.params) {
    if (p.kind == syntax::Param::Packed) {
      PackedView view;
      view.codec = problem.program->findCodec(p.codec);
      view.dtype = problem.quant, view.layout = arch == "cpu" ? Layout::Cpu : Layout::Gpu;
      view.shape.block = problem.block ? problem.block : view.codec->block;
      args.push_back(view);
    } else if (p.kind == syntax::Param::Routing) {
      RoutingView view;
      if (auto shape = oracle::extents(p, *dims)) view.tokens = (*shape)[0], view.experts = (*shape)[1];
      rows = (*dims)["R"], experts = view.experts;
      args.push_back(view);
    } else if (p.kind == syntax::Param::Scalar) {
      args.push_back(0.0);
    } else {
      args.push_back(TensorView{nullptr, dtype(p), {}, {}});
    }
  }
  for (const syntax::Param &p : kernel.outputs) binding.outputs.push_back({p.name, dtype(p), {}});
  if (kernel.routing < 0)
    if (auto extent = oracle::extent(kernel.rows, *dims)) rows = *extent;
  jit::Request request = makeRequest(*problem.program, kernel, binding, args, arch);
  request.schedule.clear(); // a knob's schedule is for calls, not for tuning
  request.rowsPerExpert = bucketOf(rows, experts);
  if (arch == "cpu") request.features = cpuFeatures();
  return request;
}

} // namespace quern::tune
