// Verifier of qtile.program: its parameters, schedule and facts are what the passes read without asking, and
// every op inside finds the parameters that it needs.
#include "codegen/dialect/Qtile.h"
#include "codegen/gpu/Facts.h"
#include "codegen/gpu/Reads.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace mlir::qtile;
using namespace ::quern::gpu;
using Kind = ::quern::jit::GpuParam::Kind;

static LogicalResult checkParams(ProgramOp program) {
  auto texts = program.getParams().getAsRange<StringAttr>();
  if (program.getBody().getNumArguments() != program.getParams().size())
    return program.emitOpError() << "has " << program.getBody().getNumArguments() << " arguments and "
                                 << program.getParams().size() << " entries in params";
  llvm::StringSet<> seen;
  for (auto [text, argument] : llvm::zip(texts, program.getBody().getArguments())) {
    auto param = parseParam(text.getValue());
    if (paramText(param) != text.getValue())
      return program.emitOpError() << "cannot read parameter " << text << ", expected KIND OPERAND INDEX";
    if (!seen.insert(text.getValue()).second)
      return program.emitOpError() << "has parameter " << text << " twice";
    Type expected = paramType(program.getContext(), param.kind);
    if (argument.getType() != expected)
      return program.emitOpError() << "has parameter " << text << " of type " << argument.getType()
                                   << ", expected " << expected;
  }
  return success();
}

/// Facts must survive reading and writing: no field is missing, of another type or an unknown word.
static LogicalResult checkFacts(ProgramOp program, const Plan &plan) {
  const Facts &f = plan.facts;
  DictionaryAttr again = f.attribute(program.getContext());
  for (NamedAttribute field : again)
    if (program.getFacts().get(field.getName()) != field.getValue())
      return program.emitOpError() << "cannot read its fact '" << field.getName().getValue()
                                   << "': it is missing or of another form than " << field.getValue();
  for (NamedAttribute field : program.getFacts())
    if (!again.get(field.getName()))
      return program.emitOpError() << "has an unknown fact '" << field.getName().getValue() << "'";
  if (f.n < 8 || f.n % 8) return program.emitOpError() << "has n = " << f.n << ", expected a multiple of 8";
  if (f.k < 32 || f.k % 32)
    return program.emitOpError() << "has k = " << f.k << ", expected a multiple of 32";
  if (f.block < 32 || f.block % 32)
    return program.emitOpError() << "has blocks of " << f.block << " codes, expected a multiple of 32";
  if (f.act == ::quern::DType::F32) return program.emitOpError("has f32 activations, expected bf16 or f16");
  if (f.pairing == Pairing::Halved && plan.schedule.bm != 128)
    return program.emitOpError() << "has halved pairs in tiles of bm=" << plan.schedule.bm
                                 << ", expected 128";
  return success();
}

namespace {
struct Need {
  Kind kind;
  int operand = -1, index = 0;
};
} // namespace

static void needsOf(WriteOp write, const Facts &f, SmallVectorImpl<Need> &needs) {
  if (write.getCombine()) {
    needs.push_back({Kind::Partial, -1, int(write.getIndex())});
  } else {
    needs.append({{Kind::Pointer, int(write.getOperand())}, {Kind::Stride, int(write.getOperand())}});
  }
  for (auto text : write.getReads().getAsRange<StringAttr>()) {
    Read r = parseRead(text.getValue());
    int operand = r.kind == Read::OfLowRank ? r.operand : r.index;
    int dims = (r.row != Read::None) + (r.kind == Read::OfLowRank ? 2 : r.hasColumn);
    switch (r.kind) {
    case Read::OfContraction: break;
    case Read::OfWeight: needs.push_back({Kind::RowWeight}); break;
    case Read::OfScalar: needs.push_back({Kind::Scalar, r.index}); break;
    case Read::OfLowRank: needs.push_back({Kind::LowRank, -1, r.index}); [[fallthrough]];
    case Read::OfTensor:
      needs.push_back({Kind::Pointer, operand});
      for (int d = 0; d < dims; ++d) needs.push_back({Kind::Stride, operand, d});
      if (r.row == Read::Token && f.routed) needs.push_back({Kind::RowToken});
    }
  }
}

static void needsOf(const Plan &plan, SmallVectorImpl<Need> &needs) {
  const Facts &f = plan.facts;
  if (plan.ahead()) {
    needs.push_back({Kind::Decoded, -1, 0});
  } else {
    needs.append({{Kind::Codes, f.packed}, {Kind::Scales, f.packed}});
    if (f.zero) needs.push_back({Kind::Zeros, f.packed});
  }
  if (plan.schedule.gather == Gather::Sorted) return needs.push_back({Kind::TensorMap, f.lhs});
  needs.append({{Kind::Pointer, f.lhs}, {Kind::Stride, f.lhs}});
  if (f.byToken) needs.push_back({Kind::RowToken});
}

LogicalResult ProgramOp::verifyRegions() {
  auto schedule = Schedule::parse(getSchedule().str(), Schedule());
  if (!schedule)
    return emitOpError() << "has the schedule " << getScheduleAttr() << ": " << schedule.error().message;
  if (failed(checkParams(*this))) return failure();
  Plan plan(*this);
  if (failed(checkFacts(*this, plan))) return failure();
  WalkResult all = getBody().walk([&](Operation *op) {
    SmallVector<Need> needs;
    if (auto write = dyn_cast<WriteOp>(op)) needsOf(write, plan.facts, needs);
    if (isa<ProduceOp>(op)) needsOf(plan, needs);
    if (isa<MultiplyOp, ConsumeOp>(op)) needs.push_back({Kind::Rows});
    if (auto tail = dyn_cast<TailOp>(op))
      for (int64_t operand : tail.getOperands()) needs.push_back({Kind::Pointer, int(operand)});
    for (const Need &need : needs)
      if (!findParam(*this, need.kind, need.operand, need.index))
        return op->emitOpError() << "needs the program's parameter \""
                                 << paramText({need.kind, need.operand, need.index}) << "\"",
               WalkResult::interrupt();
    return WalkResult::advance();
  });
  return failure(all.wasInterrupted());
}
