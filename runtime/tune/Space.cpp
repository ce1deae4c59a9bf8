// See Space.h: shapes, ranking and pruning, which both targets share.
#include "runtime/tune/Space.h"
#include "compiler/syntax/Syntax.h"
#include "runtime/tune/CpuSpace.h"
#include "runtime/tune/GpuSpace.h"
#include "runtime/tune/Problem.h"
#include <algorithm>
#include <fmt/format.h>
#include <sstream>

namespace quern::tune {
namespace {

int64_t valueOf(const syntax::Dim &dim, const std::map<std::string, int64_t> &dims) {
  if (dim.isConstant()) return dim.mul / dim.div;
  auto found = dims.find(dim.sym);
  return found == dims.end() ? 0 : dim.mul * found->second / dim.div;
}

int64_t rowsOf(const syntax::Kernel &kernel, const std::map<std::string, int64_t> &dims) {
  if (kernel.routing >= 0) {
    auto found = dims.find("R");
    return found == dims.end() ? 0 : found->second;
  }
  return valueOf(kernel.rows, dims);
}

/// So many of the candidates that the model expects to take the same time are measured: otherwise those that
/// differ in a field that hardly matters would crowd out the others.
constexpr int sameExpectation = 2;

/// Words of a line that another one does not have.
int fieldsChanged(const std::string &schedule, const std::string &base) {
  std::istringstream words(schedule);
  int changed = 0;
  for (std::string word; words >> word;) changed += (' ' + base + ' ').find(' ' + word + ' ') == base.npos;
  return changed;
}

/// y[.., j] and y[.., j + N/2]: an offset that depends on a dimension.
bool isHalved(const syntax::NormalKernel &normal) {
  for (const syntax::Write &write : normal.writes)
    for (const syntax::Node &node : write.nodes)
      if (node.op == syntax::Op::ReadContraction && !node.offset.isConstant()) return true;
  return false;
}

} // namespace

Expected<Shape> shapeOf(const Problem &problem, const jit::Request &request) {
  auto dims = allDims(problem);
  if (!dims) return dims.takeError();
  const syntax::Kernel &kernel = **kernelOf(problem); // allDims has found it
  for (size_t i = 0; i < kernel.params.size(); ++i) {
    const syntax::Param &p = kernel.params[i];
    if (p.kind != syntax::Param::Packed) continue;
    const syntax::Codec &codec = *problem.program->findCodec(p.codec);
    Shape shape;
    shape.n = valueOf(p.dims[p.dims.size() - 2], *dims), shape.k = valueOf(p.dims.back(), *dims);
    shape.experts = p.dims.size() == 3 ? valueOf(p.dims[0], *dims) : 1;
    shape.rows = rowsOf(kernel, *dims);
    shape.block = request.params[i].block;
    shape.scaleBytes = codec.scale == syntax::ScaleType::F32    ? 4
                       : codec.scale == syntax::ScaleType::BF16 ? 2
                                                                : 1;
    shape.zero = codec.hasZero;
    if (auto normal = syntax::normalize(*problem.program, kernel)) {
      shape.halved = isHalved(*normal);
      for (const syntax::Contraction &c : normal->contractions)
        if (c.rhsParam == int(i)) shape.byToken = c.lhsRow == syntax::RowAccess::Token;
    }
    if (!request.outputs.empty()) shape.outputBytes = byteSize(request.outputs[0].dtype);
    return shape;
  }
  return Error::user(fmt::format("kernel '{}' has no packed operand: there is nothing to tune", kernel.name),
                     problem.program->fileName);
}

Expected<Workload> workloadOf(const Problem &problem, const jit::Request &request) {
  auto dims = allDims(problem);
  if (!dims) return dims.takeError();
  const syntax::Kernel &kernel = **kernelOf(problem);
  auto normal = syntax::normalize(*problem.program, kernel);
  if (!normal) return normal.takeError();
  Workload work;
  work.dims = *dims, work.rows = rowsOf(kernel, *dims), work.rowsPerExpert = request.rowsPerExpert;
  if (kernel.routing >= 0) work.experts = valueOf(kernel.params[kernel.routing].dims[1], *dims);
  for (const syntax::Contraction &c : normal->contractions)
    work.flops +=
        2.0 * double(work.rows) * double(valueOf(c.columns, *dims)) * double(valueOf(c.reduced, *dims));
  double used = double(std::min(work.experts, std::max<int64_t>(work.rows, 1)));
  for (size_t i = 0; i < kernel.params.size(); ++i) {
    const syntax::Param &p = kernel.params[i];
    if (p.kind == syntax::Param::Scalar || p.kind == syntax::Param::Routing) continue;
    double count = 1;
    for (const syntax::Dim &d : p.dims) count *= double(valueOf(d, *dims));
    bool byExpert = kernel.routing >= 0 && p.dims.size() > 1 &&
                    p.dims[0] == kernel.params[kernel.routing].dims[1] && work.experts > 0;
    if (byExpert) count *= used / double(work.experts);
    double bytes = double(byteSize(request.params[i].dtype));
    if (p.kind == syntax::Param::Packed) {
      const syntax::Codec &codec = *problem.program->findCodec(p.codec);
      double scale = codec.scale == syntax::ScaleType::F32    ? 4
                     : codec.scale == syntax::ScaleType::BF16 ? 2
                                                              : 1;
      bytes = 0.5 + (scale + (codec.hasZero ? 1 : 0)) / double(request.params[i].block);
    }
    work.bytes += count * bytes;
  }
  for (size_t i = 0; i < kernel.outputs.size(); ++i) {
    double count = double(byteSize(request.outputs[i].dtype));
    for (const syntax::Dim &d : kernel.outputs[i].dims) count *= double(valueOf(d, *dims));
    work.bytes += count;
  }
  return work;
}

std::vector<Candidate> enumerate(const jit::Request &request, const Shape &shape,
                                 const DeviceIdentity &device, const Options &options) {
  bool cpu = request.target == "cpu";
  std::vector<Candidate> space = cpu ? cpuSpace(shape, request.features) : gpuSpace(shape, device);
  const std::string base =
      cpu ? cpu::defaultSchedule(cpu::isaOf(request.features)).str() : gpu::Schedule().str();
  // A stable order that every process finds: legal ones by prediction; of equal ones those nearest to the
  // default; then by text.
  auto order = [&](const Candidate &c) {
    return std::tuple(c.verdict == Verdict::Illegal, c.predictedUs, fieldsChanged(c.schedule, base),
                      std::string_view(c.schedule));
  };
  std::vector<std::pair<decltype(order(space[0])), size_t>> keys;
  for (size_t i = 0; i < space.size(); ++i) keys.emplace_back(order(space[i]), i);
  std::ranges::sort(keys);
  std::vector<Candidate> sorted;
  for (auto &[key, i] : keys) sorted.push_back(space[i]);
  int kept = 0, equal = 0;
  const Candidate *before = nullptr;
  for (Candidate &c : sorted) {
    if (c.verdict == Verdict::Illegal) continue;
    double best = sorted[0].predictedUs;
    equal = before && before->predictedUs == c.predictedUs ? equal + 1 : 0;
    if (!equal) before = &c;
    if (c.predictedUs > best * options.pruneAbove) {
      c.verdict = Verdict::Pruned;
      c.reason += fmt::format("; {:.2f} times the best prediction, {:.1f} us", c.predictedUs / best, best);
    } else if (equal >= sameExpectation) {
      c.verdict = Verdict::Pruned;
      c.reason += fmt::format("; the model cannot tell it from \"{}\"", before->schedule);
    } else if (kept >= options.maxCandidates) {
      c.verdict = Verdict::Pruned;
      c.reason += fmt::format("; {} candidates are predicted to be as fast or faster", kept);
    } else {
      ++kept;
    }
  }
  return sorted;
}

} // namespace quern::tune
