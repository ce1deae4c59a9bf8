// The simulator as a device: host memory between guard zones, every range of a launch registered, every
// problem an error of the launch. Environment, read at each launch: QUERN_SIM_SEED (default 1),
// QUERN_SIM_OPTIONS (parseSimOptions); read once: QUERN_SIM_SMS (multiprocessors, default 4: persistent
// kernels then walk several tiles).
#pragma once
#include "runtime/gpu/Backend.h"
#include "runtime/sim/Sim.h"
#include <string_view>

namespace quern::gpu {

/// Fields of sim::Options over `base`, separated by spaces or commas: "copies=eager|lazy|random
/// scheduler=fifo|random|pct yield=0.1 seed=7 maxIssues=8 happensBefore=0 tokens=0 poison=0 bounds=0
/// rehash=0". A user error names the word and what is legal.
Expected<sim::Options> parseSimOptions(std::string_view text, const sim::Options &base);

/// Sums over the launches of this process.
struct SimStats {
  uint64_t launches = 0, ctas = 0, switches = 0, wgmmas = 0, copies = 0;
  uint64_t seed = 0; // of the last launch
  double ms = 0;
  std::string str() const;
};
SimStats simStats();

} // namespace quern::gpu
