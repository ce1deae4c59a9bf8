// What the end of a thread means to barriers and to the rest of its cluster.
#pragma once

namespace quern::sim {

struct Cta;
struct Thread;

/// The CTA-wide barrier and the cluster barrier count only threads that have not returned.
void barrierAfterExit(Cta &cta);
void clusterBarrierAfterExit();
/// Ends of a CTA: copies or wgmmas in flight, peers that may still touch its shared memory.
void checkCtaExit(Cta &cta);

} // namespace quern::sim
