// generate-tile: a scheduled kernel becomes a tile program.
//
//   quern.kernel @gate_up ... schedule = "sm_90a bm=128 bn=256 ..."
// becomes
//   qtile.program @gate_up { setup; role producer { tiles { produce } drain }; role consumer { tiles {
//   consume } }; tail }
#include "codegen/cpu/ReadProblem.h"
#include "codegen/gpu/Emitter.h"
#include "codegen/gpu/Passes.h"
#include "codegen/gpu/ReadFacts.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/IRMapping.h"

using namespace mlir;
namespace qn = mlir::quern;

namespace quern::gpu {
namespace {

using Kind = jit::GpuParam::Kind;

struct Generator {
  qn::KernelOp kernel;
  const Schedule &s;
  TileKernel &t;
  Emitter &e;
  qtile::ProgramOp program;

  Value param(Kind kind, int operand = -1) { return findParam(program, kind, operand); }

  void tiles(const std::function<void(ValueRange)> &body) {
    auto op = qtile::TilesOp::create(e.b, e.loc, e.i32(), param(Kind::Offsets), param(Kind::Experts));
    {
      OpBuilder::InsertionGuard guard(e.b);
      SmallVector<Type> types(6, e.i32());
      SmallVector<Location> locations(6, e.loc);
      Block *block = e.b.createBlock(&op.getBody(), {}, types, locations);
      body(block->getArguments());
    }
    if (&body != &produce) return;
    qtile::DrainOp::create(e.b, e.loc, op.getDone());
    tail(); // the producer has registers to spare; after the consumers' loop this would cost them a spill
  }

  void role(StringRef name, int64_t first, int64_t warps, int64_t registers, bool increase,
            const std::function<void(ValueRange)> &body) {
    auto op = qtile::RoleOp::create(e.b, e.loc, name, first, warps, registers, increase);
    OpBuilder::InsertionGuard guard(e.b);
    e.b.createBlock(&op.getBody());
    tiles(body);
  }

  std::function<void(ValueRange)> produce = [this](ValueRange v) {
    qtile::ProduceOp::create(e.b, e.loc, v[0], v[1], v[2], v[3], v[4], v[5]);
  };

  void write(const TileWrite &w) {
    SmallVector<Attribute> reads;
    for (const Read &r : w.reads) reads.push_back(e.b.getStringAttr(r.str()));
    Block &source = w.body->front();
    // Scalars of the kernel that the region uses become reads of their own.
    SmallVector<Value> scalars;
    source.walk([&](Operation *op) {
      for (Value v : op->getOperands())
        if (v.getParentBlock() == &kernel.getBody().front() && !llvm::is_contained(scalars, v))
          scalars.push_back(v);
    });
    for (Value v : scalars) {
      Read r;
      r.kind = Read::OfScalar, r.index = cast<BlockArgument>(v).getArgNumber();
      reads.push_back(e.b.getStringAttr(r.str()));
    }
    auto op =
        qtile::WriteOp::create(e.b, e.loc, w.operand, w.combine, w.index, w.columns, e.b.getArrayAttr(reads));
    op->setAttr("dtype", e.b.getStringAttr(name(w.dtype)));
    OpBuilder::InsertionGuard guard(e.b);
    SmallVector<Type> types(reads.size(), e.f32());
    Block *block = e.b.createBlock(&op.getBody(), {}, types, SmallVector<Location>(reads.size(), e.loc));
    IRMapping map;
    for (auto [from, to] : llvm::zip(source.getArguments(), block->getArguments())) map.map(from, to);
    for (auto [i, v] : llvm::enumerate(scalars)) map.map(v, block->getArgument(source.getNumArguments() + i));
    for (Operation &inner : source.without_terminator()) e.b.clone(inner, map);
    qtile::ValueOp::create(e.b, e.loc, map.lookupOrDefault(source.getTerminator()->getOperand(0)));
  }

  std::function<void(ValueRange)> consume = [this](ValueRange v) {
    Plan plan(s, t.facts);
    auto op = qtile::ConsumeOp::create(e.b, e.loc, v[0], v[1], v[2], v[3], v[4], v[5], plan.widths());
    OpBuilder::InsertionGuard guard(e.b);
    e.b.createBlock(&op.getBody());
    for (const TileWrite &w : t.writes) write(w);
  };

  void tail() {
    SmallVector<int64_t> operands, lines;
    for (const TileWrite &w : t.writes)
      if (!w.combine) operands.push_back(w.operand), lines.push_back(w.columns * byteSize(w.dtype));
    if (!t.facts.routed || operands.empty()) return;
    qtile::TailOp::create(e.b, e.loc, param(Kind::Offsets), param(Kind::Experts), param(Kind::Rows), operands,
                          lines);
  }

  void run() {
    SmallVector<Attribute> names;
    SmallVector<Type> types;
    for (auto &p : t.params)
      names.push_back(e.b.getStringAttr(paramText(p))), types.push_back(paramType(e.b.getContext(), p.kind));
    program = qtile::ProgramOp::create(e.b, e.loc, kernel.getSymName(), e.b.getArrayAttr(names), s.str(),
                                       t.facts.attribute(e.b.getContext()));
    e.b.createBlock(&program.getBody(), {}, types, SmallVector<Location>(types.size(), e.loc));
    qtile::SetupOp::create(e.b, e.loc, param(Kind::Offsets), param(Kind::Experts));
    int64_t consumers = s.consumers();
    role("producer", 0, 4, s.producerRegs, false, produce);
    role("consumer", 4, 4 * consumers, s.regs, true, consume);
    if (s.cluster * s.split > 1) { // no CTA leaves while another may still write into it
      e.prim("cluster.arrive", {});
      e.prim("cluster.wait", {});
    }
  }
};

struct GenerateTile : PassWrapper<GenerateTile, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(GenerateTile)
  StringRef getArgument() const override { return "generate-tile"; }
  StringRef getDescription() const override { return "lower scheduled kernels to qtile programs"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<qtile::QtileDialect, math::MathDialect, LLVM::LLVMDialect, scf::SCFDialect>();
  }
  void runOnOperation() override {
    ModuleOp module = getOperation();
    for (qn::KernelOp kernel : llvm::make_early_inc_range(module.getOps<qn::KernelOp>())) {
      auto fail = [&](const Error &error) {
        kernel.emitError(error.message);
        signalPassFailure();
      };
      auto problem = cpu::readProblem(kernel);
      if (!problem) return fail(problem.error());
      auto schedule = Schedule::parse(problem->scheduleText, Schedule());
      if (!schedule) return fail(schedule.error());
      auto tile = readTileKernel(*problem, *schedule);
      if (!tile) return fail(tile.error());
      OpBuilder builder(kernel);
      Emitter e(builder, kernel.getLoc());
      Generator g{kernel, *schedule, *tile, e, {}};
      g.run();
      kernel.erase();
    }
    for (qn::CodecOp codec : llvm::make_early_inc_range(module.getOps<qn::CodecOp>())) codec.erase();
  }
};

} // namespace

std::unique_ptr<Pass> createGenerateTilePass() { return std::make_unique<GenerateTile>(); }

} // namespace quern::gpu
