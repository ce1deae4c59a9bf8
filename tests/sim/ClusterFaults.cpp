// Planted faults of clusters: barriers between CTAs, multicast, releases to peers, sums through a peer's
// shared memory.
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "tests/sim/Faults.h"

using namespace mlir;

namespace quern::simtest {
namespace {

void addArrivals(Editor &e, Area which, int64_t more) {
  for (auto init : e.prims("mbarrier.init", which))
    e.set(init, 1, e.before(init).add(init.getOperand(1), more));
}

void setMask(Editor &e, int64_t mask) {
  for (auto load : e.prims("tma.load2d.multicast"))
    e.set(load, 5, arith::ConstantIntOp::create(e.before(load).b, load.getLoc(), e.before(load).i16(), mask));
}

/// The barriers between the CTAs of a cluster: at the start or at the end of the program.
void dropClusterBarrier(Editor &e, bool atEnd) {
  auto arrivals = e.prims("cluster.arrive"), waits = e.prims("cluster.wait");
  if (arrivals.empty() || waits.empty()) return;
  e.drop(atEnd ? arrivals.back() : arrivals.front());
  e.drop(atEnd ? waits.back() : waits.front());
}

} // namespace

const std::vector<Fault> &clusterFaults() {
  static const std::vector<Fault> table = {
      // Activations by multicast.
      {"cluster-barrier-missing-at-the-end",
       "a CTA may end while another one still copies into it",
       &paired,
       "generate-tile",
       [](Editor &e) { dropClusterBarrier(e, true); },
       {{"cluster-exit", {"CTA rank", "may end before"}}}},
      {"cluster-barrier-missing-at-the-start",
       "another CTA's barriers are used before their init",
       &paired,
       "expand-setup",
       [](Editor &e) { dropClusterBarrier(e, false); },
       {{"mbarrier", {"smem+0x", "CTA rank"}}, {"proxy-fence", {"the mbarrier at smem+0x", "CTA rank"}}}},
      {"release-only-own-cta",
       "a stage that another CTA's multicast fills is released to this CTA alone",
       &paired,
       "expand-multiply",
       [](Editor &e) {
         for (auto arrive : e.prims("mbarrier.arrive.cluster"))
           e.set(arrive, 1, e.before(arrive).sreg("cluster.ctarank"));
       },
       {{"race", {"producer", "smem+0x", "overwrites", "CTA rank"}}}},
      {"multicast-to-rank-0-only",
       "the mask leaves out the second CTA",
       &paired,
       "expand-produce",
       [](Editor &e) { setMask(e, 1); },
       {{"deadlock", {"consumer of CTA rank 1", "the mbarrier at smem+0x", "lacks"}},
        {"tx-bytes", {"smem+0x"}}}},
      {"multicast-to-rank-1-only",
       "the mask leaves out the first CTA",
       &paired,
       "expand-produce",
       [](Editor &e) { setMask(e, 2); },
       {{"deadlock", {"consumer of CTA rank 0", "the mbarrier at smem+0x", "lacks"}},
        {"tx-bytes", {"smem+0x"}}}},
      {"multicast-of-the-same-box",
       "both CTAs load the first half of the activations",
       &paired,
       "expand-produce",
       [](Editor &e) {
         for (auto load : e.prims("tma.load2d.multicast"))
           if (auto loop = load->getParentOfType<scf::ForOp>())
             loop.setLowerBound(e.before(loop).c(0)), e.count();
       },
       {{"race", {"producer", "smem+0x", "an earlier async copy"}},
        {"uninitialised", {"consumer", "smem+0x"}}}},

      // Partial sums of a split K range.
      {"sums-not-awaited",
       "rank 0 adds the peer's sums without waiting for them",
       &split,
       "expand-reduce",
       [](Editor &e) { e.drop(e.prims("mbarrier.wait.cluster", Area::Ready)); },
       {{"race", {"consumer", "smem+0x", "of CTA rank 1"}},
        {"uninitialised", {"consumer", "smem+0x", "of CTA rank 1"}}}},
      {"sums-overwritten",
       "the peer leaves its next sums before the last ones were read",
       &split,
       "expand-reduce",
       [](Editor &e) { e.drop(e.prims("mbarrier.wait.cluster", Area::Taken)); },
       // Or it gets two phases ahead, and the first CTA waits for the one that it has missed.
       {{"race", {"consumer", "smem+0x", "of CTA rank 1"}},
        {"deadlock", {"consumer of CTA rank 0", "the mbarrier at smem+0x", "has 0 of 8 arrivals"}}}},
      {"sums-never-taken",
       "rank 0 does not say that it has read the sums",
       &split,
       "expand-reduce",
       [](Editor &e) { e.drop(e.prims("mbarrier.arrive.release.cluster", Area::Taken)); },
       {{"deadlock", {"consumer of CTA rank 1", "the mbarrier at smem+0x", "has 0 of 8 arrivals"}}}},
      {"sums-ready-one-warp-early",
       "the barrier of the sums expects one warp less",
       &split,
       "expand-setup",
       [](Editor &e) { addArrivals(e, Area::Ready, -1); },
       {{"race", {"consumer", "smem+0x", "of CTA rank 1"}}, {"mbarrier", {"consumer", "smem+0x"}}}},
      {"sums-of-the-own-rank",
       "rank 0 reads its own region in place of the peer's",
       &split,
       "expand-reduce",
       [](Editor &e) {
         for (auto load : e.prims("ld.cluster.b64")) e.set(load, 1, e.before(load).c(0));
       },
       {{"uninitialised", {"consumer", "smem+0x", "of CTA rank 0"}}}},
      {"split-ranges-overlap",
       "both CTAs multiply the first half of K",
       &split,
       "expand-produce",
       [](Editor &e) {
         for (auto load : e.prims("tma.load2d")) // columns 64 k: the rank's first step is left out
           e.set(load, 2, e.before(load).andi(load.getOperand(2), 127));
       },
       {{"numerics", {"tiles are wrong", "rows ", "columns "}}}},
  };
  return table;
}

} // namespace quern::simtest
