// See ReadProblem.h.
#include "codegen/cpu/ReadProblem.h"
#include "compiler/dialect/Dim.h"
#include <fmt/format.h>

using namespace mlir;
namespace qn = mlir::quern;

namespace quern::cpu {

Status assignSchedule(qn::KernelOp kernel, const jit::Request &request, std::string_view schedule) {
  Builder b(kernel.getContext());
  SmallVector<NamedAttribute> dims;
  for (auto &[symbol, value] : request.dims)
    dims.emplace_back(b.getStringAttr(symbol), b.getI64IntegerAttr(value));
  SmallVector<Attribute> operands;
  auto describe = [&](const std::vector<jit::OperandKey> &keys, unsigned first) {
    for (auto [i, key] : llvm::enumerate(keys)) {
      SmallVector<NamedAttribute> fields;
      Type type = kernel.getBody().getArgument(first + i).getType();
      if (isa<qn::MemTensorType, qn::PackedType>(type))
        fields.emplace_back(b.getStringAttr("dtype"), b.getStringAttr(name(key.dtype)));
      if (isa<qn::MemTensorType>(type))
        fields.emplace_back(b.getStringAttr("unit_stride"), b.getBoolAttr(key.unitStride));
      if (isa<qn::PackedType>(type)) {
        fields.emplace_back(b.getStringAttr("block"), b.getI64IntegerAttr(key.block));
        fields.emplace_back(b.getStringAttr("layout"), b.getStringAttr(name(key.layout)));
      }
      operands.push_back(b.getDictionaryAttr(fields));
    }
  };
  if (request.params.size() != kernel.getNumParams() || request.outputs.size() != kernel.getNumOutputs())
    return Error::internal("the request's operands do not match the kernel", kernel.getSymName().str());
  describe(request.params, 0);
  describe(request.outputs, kernel.getNumParams());
  kernel.setProblemAttr(b.getDictionaryAttr({b.getNamedAttr("act", b.getStringAttr(name(request.act))),
                                             b.getNamedAttr("dims", b.getDictionaryAttr(dims)),
                                             b.getNamedAttr("operands", b.getArrayAttr(operands))}));
  kernel.setScheduleAttr(b.getStringAttr(schedule));
  return {};
}

namespace {

struct Reader {
  qn::KernelOp kernel;
  DictionaryAttr problem;
  Problem p;
  std::string failure;

  int64_t dim(StringRef text) {
    auto dims = problem.getAs<DictionaryAttr>("dims");
    auto value = qn::evaluateDim(text, [&](StringRef symbol) -> std::optional<int64_t> {
      if (auto attr = dims.getAs<IntegerAttr>(symbol)) return attr.getInt();
      return std::nullopt;
    });
    if (!value && failure.empty())
      failure = fmt::format("dimension {} has no whole value for {}", text.str(), printed(dims));
    return value.value_or(1);
  }

  static std::string printed(Attribute attr) {
    std::string text;
    llvm::raw_string_ostream(text) << attr;
    return text;
  }

  syntax::Codec readCodec(FlatSymbolRefAttr symbol) {
    syntax::Codec codec;
    auto op = SymbolTable::lookupNearestSymbolFrom<qn::CodecOp>(kernel, symbol);
    codec.name = op.getSymName().str();
    for (auto [i, v] : llvm::enumerate(op.getTable())) codec.table[i] = v;
    codec.highFirst = op.getFirst() == "high";
    codec.scale = op.getScale() == "f32"    ? syntax::ScaleType::F32
                  : op.getScale() == "bf16" ? syntax::ScaleType::BF16
                                            : syntax::ScaleType::E8M0;
    codec.hasZero = op.getZero();
    return codec;
  }

  void readOperands() {
    auto described = problem.getAs<ArrayAttr>("operands");
    int slot = 0;
    for (BlockArgument arg : kernel.getBody().getArguments()) {
      unsigned i = arg.getArgNumber();
      Operand o;
      o.slot = slot;
      auto fields =
          described && i < described.size() ? dyn_cast<DictionaryAttr>(described[i]) : DictionaryAttr();
      if (!fields) return void(failure = fmt::format("operand {} is not described in `problem`", i));
      if (auto dtype = fields.getAs<StringAttr>("dtype"))
        o.dtype = parseDType(dtype.getValue()).value_or(DType::F32);
      if (auto unit = fields.getAs<BoolAttr>("unit_stride")) o.unitStride = unit.getValue();
      if (auto tensor = dyn_cast<qn::MemTensorType>(arg.getType())) {
        o.kind = syntax::Param::Tensor;
        o.rank = tensor.getRank();
        slot += 1 + o.rank;
      } else if (auto packed = dyn_cast<qn::PackedType>(arg.getType())) {
        o.kind = syntax::Param::Packed;
        o.rank = packed.getRank();
        o.block = fields.getAs<IntegerAttr>("block") ? fields.getAs<IntegerAttr>("block").getInt() : 64;
        auto layout = fields.getAs<StringAttr>("layout");
        for (Layout l : {Layout::Bnb, Layout::Cpu, Layout::Gpu})
          if (layout && layout.getValue() == StringRef(name(l))) o.layout = l;
        o.codec = readCodec(packed.getCodec());
        slot += 3;
      } else if (isa<qn::RoutingType>(arg.getType())) {
        o.kind = syntax::Param::Routing;
        p.routing = i;
        slot += 2;
      } else {
        o.kind = syntax::Param::Scalar;
        slot += 1;
      }
      p.operands.push_back(o);
    }
    p.workSlot = slot;
  }

  static RowAccess access(qn::RowAccess a) {
    switch (a) {
    case qn::RowAccess::Row: return RowAccess::Row;
    case qn::RowAccess::Token: return RowAccess::Token;
    case qn::RowAccess::Expert: return RowAccess::Expert;
    default: return RowAccess::None;
    }
  }

  std::vector<Value> results; // of the contractions, in order

  int contractionOf(Value v) {
    auto found = llvm::find(results, v);
    return found == results.end() ? -1 : int(found - results.begin());
  }

  void readContraction(qn::GroupedMatmulOp op) {
    Contraction c;
    c.lhsContraction = contractionOf(op.getLhs());
    if (c.lhsContraction < 0) c.lhs = cast<BlockArgument>(op.getLhs()).getArgNumber();
    c.lhsRow = access(op.getLhsRow());
    c.rhs = cast<BlockArgument>(op.getRhs()).getArgNumber();
    c.byExpert = access(op.getRhsRow()) == RowAccess::Expert;
    c.columns = dim(op.getColumns());
    c.reduced = dim(op.getReduce());
    if (p.operands[c.rhs].kind == syntax::Param::Packed && c.reduced % 2 && failure.empty())
      failure = fmt::format(
          "K = {} is odd: two 4-bit codes share a byte, so a row needs an even number of them", c.reduced);
    p.contractions.push_back(c);
    results.push_back(op.getResult());
  }

  void readWrite(qn::WriteOpInterface op) {
    Write w;
    w.output = cast<BlockArgument>(op.getOutput()).getArgNumber();
    w.combine = op.isCombine();
    w.columns = dim(op.getColumns());
    w.body = &op.getBody();
    for (unsigned i = 0; i < op.getReads().size(); ++i) {
      qn::Read r = op.getRead(i);
      Read read;
      read.row = access(r.row);
      read.hasColumn = r.hasColumn;
      read.mul = r.mul;
      if (r.hasColumn) read.offset = offset(r.offset);
      if (r.row == qn::RowAccess::Weight)
        read.kind = Read::OfRowWeight;
      else if ((read.index = contractionOf(r.value)) >= 0)
        read.kind = Read::OfContraction;
      else
        read.index = cast<BlockArgument>(r.value).getArgNumber();
      w.reads.push_back(read);
    }
    p.writes.push_back(w);
  }

  int64_t offset(StringRef text) { return text == "0" ? 0 : dim(text); }
};

} // namespace

Expected<Problem> readProblem(qn::KernelOp kernel) {
  Reader r{kernel, kernel.getProblemAttr(), {}, "", {}};
  std::string place = "kernel '" + kernel.getSymName().str() + "'";
  if (!r.problem || !kernel.getSchedule() || !r.problem.getAs<DictionaryAttr>("dims"))
    return Error::user(
        "the kernel is not at the scheduled stage: `problem` (with dims) or `schedule` is missing", place);
  r.p.scheduleText = kernel.getSchedule()->str();
  if (StringRef(r.p.scheduleText).starts_with("cpu")) {
    auto schedule = Schedule::parse(r.p.scheduleText, defaultSchedule(Isa::Base));
    if (!schedule) return schedule.takeError();
    r.p.schedule = *schedule;
  }
  if (auto act = r.problem.getAs<StringAttr>("act"))
    r.p.act = parseDType(act.getValue()).value_or(DType::F32);
  r.readOperands();
  for (Operation &op : kernel.getBody().front()) {
    if (!r.failure.empty()) break;
    if (auto matmul = dyn_cast<qn::GroupedMatmulOp>(op))
      r.readContraction(matmul);
    else if (auto write = dyn_cast<qn::WriteOpInterface>(op))
      r.readWrite(write);
  }
  if (!r.failure.empty()) return Error::user(r.failure, place);
  return r.p;
}

} // namespace quern::cpu
