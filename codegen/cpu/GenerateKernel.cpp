// See GenerateKernel.h. `prepare` fills the workspace rows of a segment (activations in the dot product's
// form, small-rank contractions); `main` walks bands of output columns: contraction blocks into scratch, then
// the pointwise writes.
#include "codegen/cpu/GenerateKernel.h"
#include "codegen/cpu/DotRows.h"
#include "codegen/cpu/DotTile.h"
#include "codegen/cpu/Epilogue.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

using namespace mlir;
namespace qn = mlir::quern;

namespace quern::cpu {

static int64_t roundUp(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

namespace {

/// Writes that share bands, and the contraction blocks they read.
struct BandGroup {
  std::vector<const Write *> writes;
  std::vector<int64_t> bandOf; // output columns of a band, per write
  std::vector<ColumnBlock> blocks;
  int64_t bands = 0;
};

class Generator {
public:
  Generator(ModuleOp m, qn::KernelOp k, const Problem &problem)
      : module(m), p(problem), name(k.getSymName().str()), b(m.getContext()),
        e(b, k.getLoc(), problem.schedule.isa >= Isa::Avx512Bf16) {}

  ImageFacts run() {
    planForms();
    planBands();
    emitContractions();
    emitPrepare();
    emitMain();
    facts.maxSegmentRows = p.schedule.segment;
    facts.isa = p.schedule.isa;
    for (const Operand &o : p.operands)
      for (float v : o.codec.table) facts.denormalScales |= std::abs(v) > 1;
    return facts;
  }

private:
  ModuleOp module;
  const Problem &p;
  std::string name;
  OpBuilder b;
  Emitter e;
  ImageFacts facts;
  std::vector<PreparedForm> forms;
  std::vector<int64_t> formOffset;
  std::vector<TileForm> tileForms;
  std::vector<int64_t> tileOffset;
  std::vector<int> tileFormOf; // per contraction; -1: never tiles
  Workspace workspace;
  std::vector<int64_t> bufferBytes, pitchOf;
  std::vector<BandGroup> groups;

  void planForms() {
    for (const Contraction &c : p.contractions) {
      Weights w(e, p, c, dotOf(p, c), module);
      Activations x(e, p, c, dotOf(p, c), w, forms);
      int64_t bytes = DotRows(e, p.schedule, w, x).bufferBytes();
      int tiles = -1;
      if (tileable(p, c)) {
        TileForm wanted{c.lhs, c.lhsRow, c.reduced};
        auto found = llvm::find(tileForms, wanted);
        tiles = int(found - tileForms.begin());
        if (found == tileForms.end()) tileForms.push_back(wanted);
        bytes = std::max(bytes, DotTile(e, p.schedule, w, module).bufferBytes());
      }
      tileFormOf.push_back(tiles);
      bufferBytes.push_back(roundUp(bytes, 64));
    }
    for (const PreparedForm &f : forms) {
      formOffset.push_back(workspace.rowBytes);
      workspace.rowBytes += roundUp(f.bytes(), 64);
    }
    for (const TileForm &f : tileForms) {
      tileOffset.push_back(workspace.tileBytes);
      workspace.tileBytes += f.bytes();
    }
    facts.workBytesPerRow = workspace.bytesPerRow();
    facts.prepareMinRows = forms.empty() ? p.schedule.tile : 0;
  }

  void planBands() {
    pitchOf.assign(p.contractions.size(), 0);
    for (const Write &w : p.writes) {
      int64_t band = bandColumns(w, p.schedule.band), bands = (w.columns + band - 1) / band;
      auto blocks = blocksOf(w, p.schedule.band);
      facts.ordered |= w.combine;
      if (groups.empty() || groups.back().bands != bands) groups.push_back({{}, {}, {}, bands});
      BandGroup &g = groups.back();
      g.writes.push_back(&w);
      g.bandOf.push_back(band);
      for (const ColumnBlock &block : blocks)
        if (llvm::find(g.blocks, block) == g.blocks.end()) g.blocks.push_back(block);
    }
    for (BandGroup &g : groups) facts.bands += g.bands;
  }

  func::FuncOp function(StringRef suffix, ArrayRef<Type> arguments, bool exported) {
    b.setInsertionPointToEnd(module.getBody());
    auto f = func::FuncOp::create(b, e.loc, name + suffix.str(), b.getFunctionType(arguments, {}));
    if (!exported) f.setPrivate();
    b.setInsertionPointToStart(f.addEntryBlock());
    return f;
  }

  // contract<i>(slots, expert, row0, workRow, tokens, n0, columns, pitch, c, buffer): one contraction's
  // columns for one segment.
  void emitContractions() {
    for (auto [i, c] : llvm::enumerate(p.contractions)) {
      auto f = function(
          "_contract" + std::to_string(i),
          {e.ptr(), e.i64(), e.i64(), e.i64(), e.i64(), e.i64(), e.i64(), e.i64(), e.ptr(), e.ptr()}, false);
      auto arg = [&](int k) -> Value { return f.getArgument(k); };
      Weights w(e, p, c, dotOf(p, c), module);
      std::vector<PreparedForm> known = forms;
      Activations x(e, p, c, dotOf(p, c), w, known);
      w.bind(arg(0), arg(1));
      x.bind(arg(0), arg(2), arg(3), workspace, x.prepared() ? formOffset[x.formIndex()] : 0);
      auto rows = [&] { DotRows(e, p.schedule, w, x).emit(arg(5), arg(6), arg(7), arg(4), arg(8), arg(9)); };
      if (int form = tileFormOf[i]; form >= 0) {
        auto tiles = [&] {
          Value first =
              workspace.groupAddress(e, e.slot(arg(0), p.workSlot, e.ptr()), arg(3), tileOffset[form]);
          DotTile(e, p.schedule, w, module)
              .emit(arg(5), arg(6), arg(7), arg(4), arg(8), arg(9), first, 16 * workspace.bytesPerRow());
        };
        e.ifThen(e.le(e.c(p.schedule.tile), arg(4)), tiles, rows);
      } else {
        rows();
      }
      func::ReturnOp::create(b, e.loc);
    }
  }

  void callContraction(int i, const SegmentValues &s, Value workRow, Value n0, Value columns, int64_t pitch,
                       Value c, Value buffer) {
    func::CallOp::create(
        b, e.loc, name + "_contract" + std::to_string(i), TypeRange(),
        ValueRange{s.slots, s.expert, s.row0, workRow, s.tokens, n0, columns, e.c(pitch), c, buffer});
  }

  SegmentValues loadSegment(Value slots, Value segment) {
    Value row0 = e.load(e.i64(), e.at(segment, 8), 8), row1 = e.load(e.i64(), e.at(segment, 16), 8);
    return {slots, e.load(e.i64(), segment, 8), row0, e.sub(row1, row0)};
  }

  int64_t largestBuffer() {
    int64_t bytes = 0;
    for (int64_t v : bufferBytes) bytes = std::max(bytes, v);
    return bytes;
  }

  void emitPrepare() {
    auto f = function("_prepare", {e.ptr(), e.ptr(), e.ptr()}, true);
    Value slots = f.getArgument(0), segment = f.getArgument(1), scratch = f.getArgument(2);
    SegmentValues s = loadSegment(slots, segment);
    Value workRow = e.load(e.i64(), e.at(segment, 24), 8);
    Value work = e.slot(slots, p.workSlot, e.ptr()), whole = e.load(e.i64(), e.at(segment, 32), 8);
    if (!tileForms.empty())
      e.ifThen(e.le(e.c(p.schedule.tile), whole), [&] {
        e.forEach(e.c(0), s.tokens, 16, [&](Value t) {
          for (auto [form, offset] : llvm::zip(tileForms, tileOffset))
            prepareTiles(e, p, form, slots, e.add(s.row0, t), e.min(e.sub(s.tokens, t), e.c(16)),
                         workspace.groupAddress(e, work, e.add(workRow, t), offset));
        });
      });
    for (auto [i, form] : llvm::enumerate(forms)) {
      int64_t offset = formOffset[i];
      auto place = [&](Value t) { return workspace.rowAddress(e, work, e.add(workRow, t), offset); };
      if (form.operand >= 0) {
        e.forEach(e.c(0), s.tokens, 1,
                  [&](Value t) { prepareRow(e, p, form, slots, e.add(s.row0, t), place(t)); });
        continue;
      }
      // A small-rank contraction: all its columns, then one copy per row; zeros pad the reduction of the next
      // contraction.
      int64_t rank = form.k, pitch = roundUp(rank, 32);
      Value c = e.at(scratch, largestBuffer());
      callContraction(form.contraction, s, workRow, e.c(0), e.c(pitch), pitch, c, scratch);
      e.forEach(e.c(0), s.tokens, 1, [&](Value t) {
        Value from = e.at(c, e.mul(t, pitch * 4)), to = place(t);
        auto place = [&](Value k) { return e.at(to, e.mul(positionIn(e, form.order, k), 4)); };
        e.forEach(e.c(0), e.c(rank), 1,
                  [&](Value k) { e.store(e.load(e.f32(), e.at(from, e.mul(k, 4)), 4), place(k), 4); });
        e.forEach(e.c(rank), e.c(form.padded), 1, [&](Value k) { e.store(e.constantZeroF(), place(k), 4); });
      });
      noteScratch(largestBuffer() + pitch * 4 * p.schedule.segment);
    }
    func::ReturnOp::create(b, e.loc);
  }

  void noteScratch(int64_t bytes) { facts.scratchBytes = std::max(facts.scratchBytes, roundUp(bytes, 64)); }

  void emitMain() {
    auto f = function("_main", {e.ptr(), e.ptr(), e.i64(), e.i64(), e.ptr()}, true);
    Value slots = f.getArgument(0), segment = f.getArgument(1), scratch = f.getArgument(4);
    SegmentValues s = loadSegment(slots, segment);
    Value workRow = e.load(e.i64(), e.at(segment, 24), 8);
    e.forEach(f.getArgument(2), f.getArgument(3), 1, [&](Value band) {
      int64_t first = 0;
      for (const BandGroup &g : groups) {
        if (groups.size() == 1) {
          emitBand(g, band, s, workRow, scratch);
        } else {
          Value inside =
              arith::AndIOp::create(b, e.loc, e.le(e.c(first), band), e.lt(band, e.c(first + g.bands)));
          e.ifThen(inside, [&] { emitBand(g, e.sub(band, e.c(first)), s, workRow, scratch); });
        }
        first += g.bands;
      }
    });
    func::ReturnOp::create(b, e.loc);
  }

  void emitBand(const BandGroup &g, Value band, const SegmentValues &s, Value workRow, Value scratch) {
    std::vector<BlockValues> values;
    int64_t offset = largestBuffer();
    for (const ColumnBlock &block : g.blocks) {
      Value first = e.add(e.mul(band, block.perBand), block.base);
      Value aligned = block.aligned() ? first : e.mul(e.div(first, 32), 32);
      BlockValues v{block, e.at(scratch, offset), block.aligned() ? e.c(0) : e.sub(first, aligned)};
      callContraction(block.contraction, s, workRow, aligned, e.c(block.width()), block.width(), v.c,
                      scratch);
      values.push_back(v);
      // One line more: a vector that picks every mul-th element may look past the last one.
      offset += roundUp(block.width() * 4 * (p.schedule.segment + 1), 64);
    }
    noteScratch(offset);
    for (auto [w, columns] : llvm::zip(g.writes, g.bandOf))
      emitWrite(e, p, *w, values, s, e.mul(band, columns), columns);
  }
};

} // namespace

ImageFacts generateKernel(ModuleOp module, qn::KernelOp kernel, const Problem &problem) {
  return Generator(module, kernel, problem).run();
}

void setImageFacts(ModuleOp module, StringRef kernel, const ImageFacts &f) {
  Builder b(module.getContext());
  auto field = [&](StringRef key, int64_t v) { return b.getNamedAttr(key, b.getI64IntegerAttr(v)); };
  module->setAttr(
      "quern.image",
      b.getDictionaryAttr(
          {b.getNamedAttr("isa", b.getStringAttr(name(f.isa))),
           b.getNamedAttr("kernel", b.getStringAttr(kernel)), field("bands", f.bands),
           field("denormal_scales", f.denormalScales), field("max_segment_rows", f.maxSegmentRows),
           field("ordered", f.ordered), field("prepare_min_rows", f.prepareMinRows),
           field("scratch_bytes", f.scratchBytes), field("work_bytes_per_row", f.workBytesPerRow)}));
}

std::optional<ImageFacts> getImageFacts(ModuleOp module) {
  auto attr = module->getAttrOfType<DictionaryAttr>("quern.image");
  if (!attr) return std::nullopt;
  auto field = [&](StringRef key) {
    auto v = attr.getAs<IntegerAttr>(key);
    return v ? v.getInt() : 0;
  };
  auto isa = attr.getAs<StringAttr>("isa");
  return ImageFacts{field("bands"),
                    field("work_bytes_per_row"),
                    field("scratch_bytes"),
                    field("max_segment_rows"),
                    field("prepare_min_rows"),
                    field("ordered") != 0,
                    field("denormal_scales") != 0,
                    isa ? parseIsa(isa.getValue().str()).value_or(Isa::Base) : Isa::Base};
}

} // namespace quern::cpu
