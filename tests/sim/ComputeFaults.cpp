// Planted faults of place and value: indices, swizzles, fragments, masks, tables. Their detector is the
// oracle's gate per tile, or a bound.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "tests/sim/Faults.h"

using namespace mlir;

namespace quern::simtest {
namespace {

using Kind = jit::GpuParam::Kind;

const Catch wrongTiles{"numerics", {"tiles are wrong", "rows ", "columns "}};
const Catch wrongNumbers{"numerics", {"NaN", "rows ", "columns "}};
const Catch notWritten{"numerics", {"were not written", "rows ", "columns "}};
const Catch outside{"bounds", {"out of bounds"}};

/// Bits of every wgmma's descriptor of B.
void flipDescriptor(Editor &e, uint64_t bits) {
  for (auto op : e.prims("wgmma.bf16")) {
    unsigned last = op->getNumOperands() - 1;
    e.set(op, last, e.before(op).xori(op->getOperand(last), int64_t(bits)));
  }
}

void moveLoads(Editor &e, const std::vector<LLVM::LoadOp> &loads, int64_t bytes) {
  for (auto load : loads) e.set(load, 0, e.before(load).at(load.getAddr(), bytes));
}

/// Operand `index` of every op of a kind becomes that number ^ 1: its neighbour, which exists.
template <class Op> void neighbour(Editor &e, unsigned index) {
  for (auto op : e.all<Op>()) e.set(op, index, e.before(op).xori(op->getOperand(index), 1));
}

/// The address of an expert's array is taken from the neighbour's entry of the table.
void neighbourArray(Editor &e, Kind kind) {
  for (auto load : e.loadsFrom(e.param(kind, e.plan.facts.packed))) {
    auto gep = load.getAddr().getDefiningOp<LLVM::GEPOp>();
    e.set(gep, 1, e.before(gep).xori(gep->getOperand(1), 8));
  }
}

/// Accumulators trade places by their number in the fragment.
void permuteFragment(Editor &e, int flip) {
  for (auto op : e.all<qtile::EpilogueOp>()) {
    unsigned first = op->getNumOperands() - op.getAccumulators().size();
    SmallVector<Value> values(op.getAccumulators());
    for (unsigned i = 0; i < values.size(); ++i) e.set(op, first + i, values[i ^ unsigned(flip)]);
  }
}

template <class Change> void eachDecode(Editor &e, Change change) {
  for (auto op : e.all<qtile::DecodeOp>()) change(op), e.count();
}

/// The blocks of the weight are read as if it were its transpose.
void transposeBlocks(Editor &e) {
  for (auto copy : e.prims("cp.bulk", Area::Codes)) {
    auto from = copy.getOperand(1).getDefiningOp<LLVM::GEPOp>();
    auto bytes = from ? from->getOperand(1).getDefiningOp<arith::ShLIOp>() : nullptr;
    auto index = bytes ? bytes.getLhs().getDefiningOp<arith::AddIOp>() : nullptr;
    auto row = index ? index.getLhs().getDefiningOp<arith::MulIOp>() : nullptr;
    if (!row) continue;
    gpu::Emitter &b = e.before(index);
    e.set(bytes, 0, b.add(b.mul(index.getRhs(), row.getRhs()), row.getLhs()));
  }
}

void dropSwizzleOfGather(Editor &e) {
  for (auto swizzle : e.all<arith::XOrIOp>())
    if (auto row = swizzle.getRhs().getDefiningOp<arith::AndIOp>(); row && constantOf(row.getRhs()) == 7)
      e.set(swizzle, 1, e.before(swizzle).c(0));
}

void replaceConstants(Editor &e, Operation *op, int64_t from, int64_t to) {
  for (OpOperand &operand : op->getOpOperands())
    if (constantOf(operand.get()) == from) {
      Value value = arith::ConstantIntOp::create(e.before(op).b, op->getLoc(), operand.get().getType(), to);
      e.set(op, operand.getOperandNumber(), value);
    }
}

} // namespace

const std::vector<Fault> &computeFaults() {
  static const std::vector<Fault> table = {
      // The B operand.
      {"descriptor-swizzle-of-64-bytes",
       "the descriptor names the 64-byte swizzle",
       &sorted,
       "expand-multiply",
       [](Editor &e) { flipDescriptor(e, 3ull << 62); },
       {{"wgmma", {"consumer", "descriptor", "start", "swizzle"}}}},
      {"descriptor-stride-halved",
       "the descriptor steps 512 bytes between groups of 8 rows",
       &sorted,
       "expand-multiply",
       [](Editor &e) { flipDescriptor(e, (64ull | 32ull) << 32); },
       {wrongTiles}},
      {"descriptor-of-the-next-slice",
       "a slice of K multiplies with the activations of its neighbour",
       &sorted,
       "expand-multiply",
       [](Editor &e) { flipDescriptor(e, 2); },
       {wrongTiles}},
      {"gather-without-swizzle",
       "gathered activations are stored unswizzled",
       &fused,
       "expand-produce",
       dropSwizzleOfGather,
       {wrongTiles}},
      {"gather-of-the-next-row",
       "the gather takes the token of the next row",
       &fused,
       "expand-produce",
       [](Editor &e) { moveLoads(e, e.loadsFrom(e.param(Kind::RowToken)), 4); },
       {wrongTiles}},
      {"activations-of-the-next-row",
       "a tile's activations start a row too late",
       &sorted,
       "expand-tiles",
       [](Editor &e) {
         for (auto op : e.all<qtile::ProduceOp>()) e.set(op, 1, e.before(op).add(op.getRow0(), 1));
       },
       {wrongTiles}},
      {"activations-of-one-step-back",
       "activations are loaded from the columns of the step before",
       &sorted,
       "expand-produce",
       [](Editor &e) {
         for (auto load : e.prims("tma.load2d")) e.set(load, 2, e.before(load).add(load.getOperand(2), -64));
       },
       {wrongTiles}},

      // Weights.
      {"expert-off-by-one",
       "a tile multiplies with its neighbour's weights",
       &sorted,
       "expand-tiles",
       [](Editor &e) { neighbour<qtile::ProduceOp>(e, 0); },
       {wrongTiles}},
      {"codes-of-another-expert",
       "codes, but not scales, come from the neighbour",
       &sorted,
       "expand-produce",
       [](Editor &e) { neighbourArray(e, Kind::Codes); },
       {wrongTiles}},
      {"scales-of-another-expert",
       "scales, but not codes, come from the neighbour",
       &sorted,
       "expand-produce",
       [](Editor &e) { neighbourArray(e, Kind::Scales); },
       {wrongTiles}},
      {"scale-off-by-one",
       "the scales of the next pair of rows are used",
       &fast,
       "expand-multiply",
       [](Editor &e) { moveLoads(e, e.loadsFrom(Area::Scales), 8); },
       {wrongTiles, wrongNumbers}},
      {"table-off-by-one",
       "the products of the next row are used",
       &sorted,
       "expand-multiply",
       [](Editor &e) { moveLoads(e, e.loadsFrom(Area::Scales), 32); },
       {wrongTiles, wrongNumbers}},
      {"weight-tile-off-by-one",
       "a tile multiplies with the weight rows of its neighbour",
       &sorted,
       "expand-tiles",
       [](Editor &e) { neighbour<qtile::ProduceOp>(e, 4); },
       {wrongTiles}},
      {"square-weight-transposed",
       "blocks of a square weight are read as [K, N]",
       &square,
       "expand-produce",
       transposeBlocks,
       {wrongTiles}},
      {"codes-arranged-wrongly",
       "rows g and g + 8 trade bytes of their codes",
       &sorted,
       "expand-arrange",
       [](Editor &e) {
         for (auto op : e.intrinsics("llvm.nvvm.prmt")) replaceConstants(e, op, 0x3120, 0x3210);
       },
       {wrongTiles}},
      {"halved-pairs-take-the-wrong-row",
       "the neighbour's row of gate and up is picked",
       &halved,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::ArrangeOp>())
           if (op.getSelector()) e.set(op, 2, e.before(op).xori(op.getSelector(), 0x1111));
       },
       {wrongTiles}},

      // Decoding.
      {"low-bytes-of-products-lost",
       "the tables hold the high bytes of products twice",
       &sorted,
       "expand-tables",
       [](Editor &e) {
         for (auto op : e.intrinsics("llvm.nvvm.prmt")) replaceConstants(e, op, 0x6420, 0x7531);
       },
       {wrongTiles}},
      {"top-bit-of-codes-ignored",
       "codes 8 to 15 are looked up as 0 to 7",
       &sorted,
       "expand-decode",
       [](Editor &e) {
         for (auto op : e.all<arith::AndIOp>()) replaceConstants(e, op, 0x44444444, 0);
       },
       {wrongTiles}},
      {"codes-of-a-pair-traded",
       "the first two codes of each row trade places",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         eachDecode(e, [&](qtile::DecodeOp op) { op.getOrderMutable().assign(e.before(op).c(0x32103201)); });
       },
       {wrongTiles}},
      {"tables-of-the-other-row",
       "MMA rows g and g + 8 are decoded with each other's scale",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         eachDecode(e, [&](qtile::DecodeOp op) {
           SmallVector<Value> first(op.getFirst()), second(op.getSecond());
           op.getFirstMutable().assign(second), op.getSecondMutable().assign(first);
         });
       },
       {wrongTiles}},
      {"fast-scales-of-the-other-row",
       "fast mode multiplies rows g and g + 8 by each other's scale",
       &fast,
       "expand-multiply",
       [](Editor &e) {
         eachDecode(e, [&](qtile::DecodeOp op) {
           Value first = op.getScale0(), second = op.getScale1();
           op.getScale0Mutable().assign(second), op.getScale1Mutable().assign(first);
         });
       },
       {wrongTiles}},
      {"pairs-scaled-by-the-other-row",
       "pairs of rows g and g + 8 are multiplied by each other's scale",
       &pairs,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::DecodePairsOp>()) {
           Value first = op.getScale0(), second = op.getScale1();
           op.getScale0Mutable().assign(second), op.getScale1Mutable().assign(first), e.count();
         }
       },
       {wrongTiles}},

      // Weights that were decoded before.
      {"fragments-of-the-next-slice",
       "a slice of K multiplies with the weights of its neighbour",
       &ahead,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::FragmentsOp>()) op.setSlice(op.getSlice() ^ 1), e.count();
       },
       {wrongTiles}},
      {"fragments-of-the-other-warpgroup",
       "a warpgroup reads the fragments of its neighbour",
       &ahead,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::FragmentsOp>()) e.set(op, 0, e.before(op).xori(op.getAt(), 8192));
       },
       {wrongTiles}},
      {"decoded-weights-of-another-expert",
       "a tile multiplies with its neighbour's decoded weights, which may not be there",
       &ahead,
       "expand-tiles",
       [](Editor &e) { neighbour<qtile::ProduceOp>(e, 0); },
       {wrongTiles, wrongNumbers}},

      // Tiles.
      {"tile-table-rounds-down",
       "an expert's last, partial tile is not counted",
       &sorted,
       "expand-setup",
       [](Editor &e) {
         for (auto sum : e.all<arith::AddIOp>()) replaceConstants(e, sum, e.plan.schedule.bn - 1, 0);
       },
       {notWritten}},
      {"last-step-forgotten",
       "consumers leave out the last step of K",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         llvm::SmallPtrSet<Operation *, 8> loops; // a K loop waits twice for all but one slice
         for (auto wait : e.prims("wgmma.wait.1"))
           if (auto loop = wait->getParentOfType<scf::ForOp>(); loop && loops.insert(loop).second)
             loop.setUpperBound(e.before(loop).add(loop.getUpperBound(), -1)), e.count();
       },
       {notWritten, wrongTiles}},

      // The epilogue.
      {"fragment-rows-traded",
       "accumulators of MMA rows g and g + 8 trade places",
       &sorted,
       "expand-multiply",
       [](Editor &e) { permuteFragment(e, 2); },
       {wrongTiles}},
      {"fragment-tokens-traded",
       "accumulators of neighbouring tokens trade places",
       &sorted,
       "expand-multiply",
       [](Editor &e) { permuteFragment(e, 1); },
       {wrongTiles}},
      {"bias-of-another-expert",
       "the bias of the neighbour is added",
       &sorted,
       "expand-multiply",
       [](Editor &e) { neighbour<qtile::EpilogueOp>(e, 0); },
       {wrongTiles}},
      {"results-to-the-wrong-weight-tile",
       "results are stored at the columns of the neighbour",
       &sorted,
       "expand-multiply",
       [](Editor &e) { neighbour<qtile::EpilogueOp>(e, 3); },
       {wrongTiles}},
      {"row-mask-missing",
       "columns of the tile beyond its rows are stored",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::EpilogueOp>()) e.set(op, 2, e.before(op).c(int64_t(op.getWidth())));
       },
       {{"bounds", {"consumer", "global store", "'h'"}}, wrongTiles, wrongNumbers}},
      {"column-mask-missing",
       "weight rows beyond N are stored",
       &edge,
       "expand-multiply",
       [](Editor &e) {
         for (auto op : e.all<qtile::WriteOp>()) op.setColumns(op.getColumns() + 32), e.count();
       },
       {{"bounds", {"consumer", "'b'"}}, {"bounds", {"consumer", "'h'"}}, wrongTiles, wrongNumbers}},
      {"weight-of-the-next-row",
       "rows are multiplied by the next row's routing weight",
       &combined,
       "expand-epilogue",
       [](Editor &e) { moveLoads(e, e.loadsFrom(e.param(Kind::RowWeight)), 4); },
       {wrongTiles}},
      {"tail-not-zeroed",
       "rows beyond the live ones are left as they were",
       &sorted,
       "generate-tile",
       [](Editor &e) {
         for (auto op : e.all<qtile::TailOp>()) op->erase(), e.count();
       },
       {notWritten}},
      {"tail-one-row-too-late",
       "the first row beyond the live ones is left as it was",
       &sorted,
       "expand-tail",
       [](Editor &e) {
         for (auto store : e.all<LLVM::StoreOp>())
           if (isa<VectorType>(store.getValue().getType()))
             if (auto loop = store->getParentOfType<scf::ForOp>();
                 loop && loop.getLowerBound().getType().isInteger(64))
               loop.setLowerBound(e.before(loop).add(loop.getLowerBound(), 256)), e.count();
       },
       {notWritten}},
  };
  return table;
}

} // namespace quern::simtest
