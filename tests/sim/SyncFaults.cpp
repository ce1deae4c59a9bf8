// Planted faults of order: barriers, phases, transactions, releases, fences, wgmma groups, clusters,
// registers.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "tests/sim/Faults.h"

using namespace mlir;

namespace quern::simtest {
namespace {

const char *const syncThreads = "llvm.nvvm.barrier.cta.sync.aligned.all";

void invertParity(Editor &e, Area which) {
  for (auto wait : e.prims("mbarrier.wait", which))
    e.set(wait, 1, e.before(wait).xori(wait.getOperand(1), 1));
}

void addBytes(Editor &e, int64_t more) {
  for (auto expect : e.prims("mbarrier.expect_tx"))
    e.set(expect, 1, e.before(expect).add(expect.getOperand(1), more));
}

void addArrivals(Editor &e, Area which, int64_t more) {
  for (auto init : e.prims("mbarrier.init", which))
    e.set(init, 1, e.before(init).add(init.getOperand(1), more));
}

/// The statement of a warp's release: the branch of its lane 0.
Operation *releaseBranch(qtile::PrimOp arrive) { return arrive->getParentOfType<scf::IfOp>(); }

/// Constants that say how many stages there are, where a slot moves to the next one.
void lengthenRing(Editor &e) {
  for (auto compare : e.all<arith::CmpIOp>())
    if (compare.getPredicate() == arith::CmpIPredicate::eq && inStepLoop(compare) &&
        constantOf(compare.getRhs()) == e.plan.schedule.stages)
      e.set(compare, 1, e.before(compare).c(e.plan.schedule.stages + 1));
}

/// Products of a stage's number and a size: where the part of that size lies.
void scaleStage(Editor &e, int64_t bytes, int64_t wrong) {
  for (auto product : e.all<arith::MulIOp>())
    if (product.getType().isInteger(32) && constantOf(product.getRhs()) == bytes)
      e.set(product, 1, e.before(product).c(wrong));
}

} // namespace

const std::vector<Fault> &syncFaults() {
  static const std::vector<Fault> table = {
      // Waits and phases of the stages.
      {"first-full-wait-dropped",
       "a tile's first stage is read without waiting for it",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto wait : e.prims("mbarrier.wait", Area::Full))
           if (!inStepLoop(wait)) e.drop(wait);
       },
       {{"race", {"consumer", "smem+0x", "async copy"}}, {"uninitialised", {"consumer", "smem+0x"}}}},
      {"next-full-wait-dropped",
       "the stage after this one is read without waiting for it",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto wait : e.prims("mbarrier.wait", Area::Full))
           if (inStepLoop(wait)) e.drop(wait);
       },
       {{"race", {"consumer", "smem+0x", "async copy"}}, {"uninitialised", {"consumer", "smem+0x"}}}},
      {"next-fragments-not-waited-for",
       "decoded weights of the next stage are read without waiting for it",
       &ahead,
       "expand-multiply",
       [](Editor &e) {
         for (auto wait : e.prims("mbarrier.wait", Area::Full))
           if (inStepLoop(wait)) e.drop(wait);
       },
       {{"race", {"consumer", "smem+0x", "async copy"}}, {"uninitialised", {"consumer", "smem+0x"}}}},
      {"fragments-not-announced",
       "the bytes of the copy of decoded weights are missing in what the stage waits for",
       &ahead,
       "expand-produce",
       [](Editor &e) { addBytes(e, -16384); },
       {{"tx-bytes", {"mbarrier"}},
        {"race", {"consumer", "smem+0x", "async copy"}},
        {"uninitialised", {"consumer"}}}},
      {"full-parity-inverted",
       "consumers wait for the phase before the one that fills the stage",
       &sorted,
       "expand-multiply",
       [](Editor &e) { invertParity(e, Area::Full); },
       {{"race", {"consumer", "smem+0x", "async copy"}}, {"uninitialised", {"consumer", "smem+0x"}}}},
      {"empty-wait-dropped",
       "the producer fills a stage without waiting until it is free",
       &sorted,
       "expand-multiply",
       [](Editor &e) { e.drop(e.prims("mbarrier.wait", Area::Empty)); },
       {{"race", {"producer", "smem+0x", "overwrites"}},
        {"race", {"producer", "st.shared", "smem+0x", "load of consumer"}},
        {"mbarrier", {"producer", "smem+0x"}}}},
      {"empty-parity-inverted",
       "the producer waits for a release of a stage that was never filled",
       &sorted,
       "expand-multiply",
       [](Editor &e) { invertParity(e, Area::Empty); },
       {{"deadlock", {"producer", "waits for parity 0 of the mbarrier at smem+0x", "has 0 of"}}}},
      {"steps-not-counted",
       "the second tile starts with the ring's first stage and phase again",
       &sorted,
       "expand-tiles",
       [](Editor &e) {
         for (auto loop : e.all<scf::WhileOp>()) {
           auto yield = loop.getYieldOp();
           if (yield.getNumOperands() == 2 && yield.getOperand(1).getDefiningOp<arith::AddIOp>())
             e.set(yield, 1, loop.getAfterArguments()[1]);
         }
       },
       {{"race", {"producer", "smem+0x", "overwrites"}},
        {"mbarrier", {"producer", "smem+0x"}},
        {"deadlock", {"producer", "smem+0x"}}}},
      {"ring-of-one-stage-more",
       "slots wrap after one stage more than there are barriers and memory",
       &sorted,
       "expand-multiply",
       lengthenRing,
       {{"mbarrier", {"smem+0x"}}, {"misaligned", {"smem+0x"}}}},
      {"stages-alias",
       "stages of activations lie half a stage apart",
       &sorted,
       "expand-multiply",
       [](Editor &e) { scaleStage(e, e.plan.xBytes, e.plan.xBytes / 2); },
       {{"race", {"producer", "smem+0x", "overwrites"}}}},
      {"code-stages-alias",
       "the codes of all stages lie in one place",
       &sorted,
       "expand-multiply",
       [](Editor &e) { scaleStage(e, e.plan.codeBytes, 0); },
       {{"race", {"producer", "smem+0x", "overwrites"}}}},

      // Transactions and arrivals.
      {"expect-tx-short",
       "256 bytes less announced than are copied",
       &sorted,
       "expand-produce",
       [](Editor &e) { addBytes(e, -256); },
       {{"tx-bytes", {"smem+0x", "more arrived"}}}},
      {"expect-tx-long",
       "16 bytes more announced than are copied",
       &sorted,
       "expand-produce",
       [](Editor &e) { addBytes(e, 16); },
       {{"deadlock", {"consumer", "the mbarrier at smem+0x", "lacks 16 bytes"}}}},
      {"expect-tx-without-scales",
       "the bytes of the scales were forgotten",
       &sorted,
       "expand-produce",
       [](Editor &e) { addBytes(e, -e.plan.scaleBytes); },
       {{"tx-bytes", {"smem+0x", "more arrived"}},
        {"race", {"consumer", "smem+0x"}},
        {"uninitialised", {"consumer", "smem+0x"}}}},
      {"full-count-too-large",
       "full barriers expect one arrival more than comes",
       &sorted,
       "expand-setup",
       [](Editor &e) { addArrivals(e, Area::Full, 1); },
       {{"deadlock", {"consumer", "the mbarrier at smem+0x", "has 129 of 130 arrivals"}}}},
      {"empty-count-too-large",
       "empty barriers expect one arrival more than comes",
       &sorted,
       "expand-setup",
       [](Editor &e) { addArrivals(e, Area::Empty, 1); },
       {{"deadlock", {"producer", "the mbarrier at smem+0x", "has 8 of 9 arrivals"}}}},
      {"empty-count-too-small",
       "a stage is free when all warps but one have released it",
       &sorted,
       "expand-setup",
       [](Editor &e) { addArrivals(e, Area::Empty, -1); },
       {{"race", {"producer", "smem+0x", "overwrites"}}, {"mbarrier", {"consumer", "smem+0x"}}}},

      // Releases.
      {"stage-not-released",
       "consumers never release a stage",
       &sorted,
       "expand-multiply",
       [](Editor &e) { e.drop(e.prims("mbarrier.arrive", Area::Empty)); },
       {{"deadlock", {"producer", "the mbarrier at smem+0x", "has 0 of 8 arrivals"}}}},
      {"stage-released-twice",
       "each warp releases a stage twice",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto arrive : e.prims("mbarrier.arrive", Area::Empty))
           e.before(arrive).b.clone(*arrive), e.count();
       },
       {{"race", {"producer", "smem+0x", "overwrites"}},
        {"race", {"producer", "st.shared", "smem+0x", "load of consumer"}},
        {"mbarrier", {"consumer", "smem+0x"}}}},
      {"stage-released-early",
       "a stage is released before its last wgmma is known to be done",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto arrive : e.prims("mbarrier.arrive", Area::Empty)) {
           Operation *branch = releaseBranch(arrive);
           for (auto wait : e.prims("wgmma.wait.0"))
             if (wait->getBlock() == branch->getBlock() && wait->isBeforeInBlock(branch))
               wait->moveAfter(branch), e.count();
         }
       },
       {{"race", {"producer", "smem+0x", "wgmma group", "consumer"}}}},

      // wgmma groups and fences.
      {"wgmma-wait-dropped",
       "accumulators are used, and the stage released, while wgmma runs",
       &sorted,
       "expand-multiply",
       [](Editor &e) { e.drop(e.prims("wgmma.wait.")); },
       {{"accumulator", {"consumer", "wgmma"}}}},
      {"wgmma-wait-one-group-late",
       "the last wait of a step leaves one group in flight",
       &sorted,
       "expand-multiply",
       [](Editor &e) {
         for (auto wait : e.prims("wgmma.wait.0"))
           e.rename(wait,
                    "wgmma.wait.1" + wait.getPrimitive().drop_front(StringRef("wgmma.wait.0").size()).str());
       },
       {{"accumulator", {"consumer", "wgmma"}}, {"race", {"producer", "smem+0x", "wgmma group"}}}},
      {"wgmma-fence-dropped",
       "registers of a wgmma are written without a fence",
       &sorted,
       "expand-multiply",
       [](Editor &e) { e.drop(e.prims("wgmma.fence.")); },
       {{"wgmma-fence", {"consumer", "fence"}}}},
      {"wgmma-commit-dropped",
       "wgmmas are never committed to a group",
       &sorted,
       "expand-multiply",
       [](Editor &e) { e.drop(e.prims("wgmma.commit")); },
       {{"accumulator", {"consumer", "wgmma"}}, {"exit", {"consumer", "wgmma"}}}},

      // The fused gather's copies.
      {"gather-fence-dropped",
       "gathered activations are handed over without fence.proxy.async",
       &fused,
       "expand-drain",
       [](Editor &e) { e.drop(e.prims("fence.proxy.async")); },
       {{"proxy-fence", {"consumer", "smem+0x", "producer", "fence.proxy.async"}}}},
      {"gather-wait-dropped",
       "gathered activations are handed over without waiting for the copies",
       &fused,
       "expand-drain",
       [](Editor &e) { e.drop(e.prims("cp.async.wait.")); },
       {{"race", {"consumer", "smem+0x", "cp.async of producer"}}}},
      {"gather-wait-one-group-late",
       "a step's copies may still be in flight when it is handed over",
       &fused,
       "expand-drain",
       [](Editor &e) {
         int64_t lag = e.plan.gatherLag();
         for (auto wait : e.prims("cp.async.wait." + std::to_string(lag)))
           e.rename(wait, "cp.async.wait." + std::to_string(lag + 1));
       },
       {{"race", {"consumer", "smem+0x", "cp.async of producer"}}}},
      {"gather-arrives-for-this-step",
       "the stage that is being filled is handed over at once, while its copies are in flight",
       &fused,
       "expand-produce",
       [](Editor &e) {
         for (auto arrive : e.prims("mbarrier.arrive", Area::Full)) {
           auto branch = arrive->getParentOfType<scf::IfOp>();
           auto late = branch ? branch.getCondition().getDefiningOp<arith::CmpIOp>() : nullptr;
           if (!late) continue;
           e.set(late, 1, e.before(late).c(0));
           for (auto stage : branch.thenBlock()->getOps<arith::RemUIOp>()) e.set(stage, 0, late.getLhs());
         }
       },
       {{"race", {"wgmma reads smem+0x", "producer", "stored, but consumer", "has not observed"}}}},
      {"gather-handed-over-a-step-too-late",
       "a step is handed over when a stage is free that its reader still holds",
       &fused,
       "expand-produce",
       [](Editor &e) {
         for (auto arrive : e.prims("mbarrier.arrive", Area::Full)) {
           auto branch = arrive->getParentOfType<scf::IfOp>();
           auto late = branch ? branch.getCondition().getDefiningOp<arith::CmpIOp>() : nullptr;
           if (!late) continue;
           int64_t lag = e.plan.schedule.stages - 1;
           e.set(late, 1, e.before(late).c(lag));
           for (auto before : branch.thenBlock()->getOps<arith::SubIOp>())
             e.set(before, 1, e.before(before).c(lag));
         }
       },
       {{"deadlock", {"consumer", "the mbarrier at smem+0x", "has 1 of 129 arrivals"}}}},
      {"drain-lost",
       "the last steps of a fused gather are never handed over",
       &fused,
       "generate-tile",
       [](Editor &e) {
         for (auto drain : e.all<qtile::DrainOp>()) e.drop(drain);
       },
       {{"deadlock", {"consumer", "the mbarrier at smem+0x", "arrivals"}}}},
      {"drain-loses-the-last-arrival",
       "the last step of a fused gather is never handed over",
       &fused,
       "expand-drain",
       [](Editor &e) {
         auto arrivals = e.prims("mbarrier.arrive", Area::Full);
         if (!arrivals.empty() && !inStepLoop(arrivals.back())) e.drop(arrivals.back());
       },
       {{"deadlock", {"consumer", "the mbarrier at smem+0x", "has 1 of 129 arrivals"}}}},

      // Setup and registers.
      {"setup-without-syncthreads",
       "barriers and tile table are used before they are there",
       &sorted,
       "expand-setup",
       [](Editor &e) {
         for (auto sync : e.intrinsics(syncThreads)) sync->erase(), e.count();
       },
       {{"mbarrier", {"smem+0x"}},
        {"race", {"smem+0x", "a barrier is missing"}},
        {"uninitialised", {"smem+0x"}}},
       sim::Scheduler::Fifo}, // as in the next one
      {"table-without-syncthreads",
       "the tile table is read without a barrier after its stores",
       &sorted,
       "expand-setup",
       [](Editor &e) {
         bool first = true; // the one between the warps' totals and their readers stays
         for (auto sync : e.intrinsics(syncThreads)) {
           if (!first) sync->erase(), e.count();
           first = false;
         }
       },
       {{"race", {"consumer", "smem+0x", "store of producer", "a barrier is missing"}}},
       sim::Scheduler::Fifo}, // values from before the store would divide by zero, which ends a process on a
                              // CPU
      {"mbarrier-init-not-fenced",
       "fence.mbarrier.init is missing",
       &sorted,
       "expand-setup",
       [](Editor &e) { e.drop(e.prims("fence.mbarrier.init")); },
       {{"proxy-fence", {"producer", "the mbarrier at smem+0x", "fence.mbarrier.init"}}}},
      {"setmaxnreg-above-the-pool",
       "consumers ask for 8 registers more than there are",
       &sorted,
       "expand-roles",
       [](Editor &e) {
         for (auto inc : e.prims("setmaxnreg.inc."))
           e.rename(inc, "setmaxnreg.inc." + std::to_string(e.plan.schedule.regs + 8));
       },
       {{"deadlock", {"consumer", "waits in setmaxnreg.inc 240", "registers are free"}}}},
      {"producer-keeps-its-registers",
       "setmaxnreg.dec is missing",
       &sorted,
       "expand-roles",
       [](Editor &e) { e.drop(e.prims("setmaxnreg.dec.")); },
       {{"deadlock", {"consumer", "waits in setmaxnreg.inc 232", "registers are free"}}}},
  };
  return table;
}

} // namespace quern::simtest
