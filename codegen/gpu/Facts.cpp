// See Facts.h.
#include "codegen/gpu/Facts.h"
#include "mlir/IR/Builders.h"
#include <fmt/format.h>

using namespace mlir;

namespace quern::gpu {

static constexpr StringRef pairings[] = {"none", "interleaved", "halved"};
static constexpr StringRef scaleTypes[] = {"f32", "bf16", "e8m0"};

static int indexIn(ArrayRef<StringRef> names, StringRef name) {
  auto at = llvm::find(names, name);
  return at == names.end() ? 0 : int(at - names.begin());
}

DictionaryAttr Facts::attribute(MLIRContext *context) const {
  Builder b(context);
  int scaleIndex = scale == syntax::ScaleType::F32 ? 0 : scale == syntax::ScaleType::BF16 ? 1 : 2;
  SmallVector<NamedAttribute> fields;
  auto add = [&](StringRef key, Attribute value) { fields.push_back(b.getNamedAttr(key, value)); };
  auto integer = [&](StringRef key, int64_t v) { add(key, b.getI64IntegerAttr(v)); };
  auto flag = [&](StringRef key, bool v) { add(key, b.getBoolAttr(v)); };
  integer("n", n), integer("k", k), integer("packed", packed), integer("lhs", lhs), integer("block", block);
  add("pairing", b.getStringAttr(pairings[int(pairing)]));
  flag("routed", routed), flag("by_expert", byExpert), flag("by_token", byToken);
  flag("zero", zero), flag("high_first", highFirst);
  add("act", b.getStringAttr(name(act))), add("state", b.getStringAttr(name(state)));
  add("scale", b.getStringAttr(scaleTypes[scaleIndex]));
  add("table", b.getDenseF32ArrayAttr(table));
  return b.getDictionaryAttr(fields);
}

Facts Facts::of(DictionaryAttr a) {
  Facts f;
  auto integer = [&](StringRef key) {
    auto v = a.getAs<IntegerAttr>(key);
    return v ? v.getInt() : 0;
  };
  auto flag = [&](StringRef key) {
    auto v = a.getAs<BoolAttr>(key);
    return v && v.getValue();
  };
  auto word = [&](StringRef key) {
    auto v = a.getAs<StringAttr>(key);
    return v ? v.getValue() : StringRef();
  };
  f.n = integer("n"), f.k = integer("k"), f.packed = integer("packed"), f.lhs = integer("lhs");
  f.block = integer("block");
  f.pairing = Pairing(indexIn(pairings, word("pairing")));
  f.routed = flag("routed"), f.byExpert = flag("by_expert"), f.byToken = flag("by_token");
  f.zero = flag("zero"), f.highFirst = flag("high_first");
  f.act = parseDType(word("act")).value_or(DType::BF16),
  f.state = parseDType(word("state")).value_or(DType::BF16);
  int scaleIndex = indexIn(scaleTypes, word("scale"));
  f.scale = scaleIndex == 0   ? syntax::ScaleType::F32
            : scaleIndex == 1 ? syntax::ScaleType::BF16
                              : syntax::ScaleType::E8M0;
  if (auto t = a.getAs<DenseF32ArrayAttr>("table"))
    for (auto [i, v] : llvm::enumerate(t.asArrayRef()))
      if (i < 16) f.table[i] = v;
  return f;
}

Plan::Plan(qtile::ProgramOp program) : facts(Facts::of(program.getFacts())) {
  auto parsed = Schedule::parse(program.getSchedule().str(), Schedule());
  if (parsed) schedule = *parsed;
  place();
}

void Plan::place() {
  auto up = [](int64_t v, int64_t to) { return (v + to - 1) / to * to; };
  xBytes = schedule.bn * 128;
  codeBytes = schedule.weightBytes();
  scaleBytes = schedule.bm * facts.scalesPerStep() * schedule.scaleBytes(facts.zero);
  boxRows = schedule.bn <= 32 ? 8 : 32;
  codes = up(schedule.stages * xBytes, 1024);
  scales = codes + schedule.stages * codeBytes;
  barriers = up(scales + schedule.stages * scaleBytes, 128);
  exchange = barriers + schedule.stages * 16;
  table = exchange + (schedule.split > 1 ? Schedule::exchangeBytes : 0);
  scratch = table + (maxExperts + 1) * 4;
  pairs = up(scratch + 33 * 4, 128);
  partial = pairs + (schedule.decode == Decode::Pairs ? Schedule::pairTableBytes : 0);
  end = partial + schedule.partialBytes();
}

std::vector<int64_t> Plan::widths() const {
  std::vector<int64_t> widths;
  if (schedule.bn <= 32)
    for (int64_t w = 8; w <= schedule.bn; w *= 2) widths.push_back(w);
  else
    for (int64_t w = 32; w <= schedule.bn; w += 32) widths.push_back(w);
  return widths;
}

static constexpr StringRef paramKinds[] = {"map",   "pointer", "stride",  "codes",      "scales",
                                           "zeros", "offsets", "token",   "row_weight", "scalar",
                                           "rows",  "experts", "partial", "low_rank",   "decoded"};

std::string paramText(const jit::GpuParam &p) {
  return fmt::format("{} {} {}", paramKinds[p.kind].str(), p.operand, p.index);
}

jit::GpuParam parseParam(StringRef text) {
  auto [kind, rest] = text.split(' ');
  auto [operand, index] = rest.split(' ');
  jit::GpuParam p;
  p.kind = jit::GpuParam::Kind(indexIn(paramKinds, kind));
  operand.getAsInteger(10, p.operand);
  index.getAsInteger(10, p.index);
  return p;
}

Type paramType(MLIRContext *context, jit::GpuParam::Kind kind) {
  Builder b(context);
  switch (kind) {
  case jit::GpuParam::TensorMap: return LLVM::LLVMPointerType::get(context, 0);
  case jit::GpuParam::Stride: return b.getI64Type();
  case jit::GpuParam::Scalar: return b.getF32Type();
  case jit::GpuParam::Rows:
  case jit::GpuParam::Experts: return b.getI32Type();
  default: return LLVM::LLVMPointerType::get(context, 1);
  }
}

Value findParam(qtile::ProgramOp program, jit::GpuParam::Kind kind, int operand, int index) {
  std::string wanted = paramText({kind, operand, index});
  for (auto [i, text] : llvm::enumerate(program.getParams()))
    if (cast<StringAttr>(text).getValue() == wanted) return program.getBody().getArgument(i);
  return {};
}

} // namespace quern::gpu
