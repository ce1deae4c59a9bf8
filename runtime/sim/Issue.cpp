// Records issues and names threads and places.
#include "runtime/sim/Machine.h"

namespace quern::sim {

std::string_view roleOf(unsigned warp) {
  for (const Launch::Role &role : machine->launch->roles)
    if (warp >= role.firstWarp && warp < role.endWarp) return role.name;
  return "";
}

Text nameOfWarp(const Cta &cta, unsigned warp) {
  std::string_view role = roleOf(warp);
  Text rank = machine->launch->cluster > 1 ? text(" of CTA rank {}", cta.rank) : text("");
  return text("{}{}warp {}{}", role, role.empty() ? "" : " ", warp, rank);
}

Text nameOf(const Thread &thread) {
  std::string_view role = roleOf(thread.warp());
  Text rank = machine->launch->cluster > 1 ? text(" of CTA rank {}", thread.cta->rank) : text("");
  return text("{}{}warp {} lane {}{}", role, role.empty() ? "" : " ", thread.warp(), thread.lane(), rank);
}

Text nameOf(unsigned thread) { return nameOf(machine->threads[thread]); }

Text placeOf(const Cta &cta, uint32_t address) {
  Text rank = machine->launch->cluster > 1 ? text(" of CTA rank {}", cta.rank) : text("");
  if (address < staticBase) return text("smem+0x{:x}{}", address - cta.base, rank);
  for (const auto &[id, variable] : cta.statics)
    if (address - staticBase - variable.offset < variable.bytes)
      return text("static {}+0x{:x}{}", id, address - staticBase - variable.offset, rank);
  return text("static area+0x{:x}{}", address - staticBase, rank);
}

void recordIssue(const char *detector, const void *key, std::string_view message) {
  Machine &m = *machine;
  ++m.report.issueCount;
  const Thread *thread = m.current;
  std::string role(thread ? roleOf(thread->warp()) : "");
  if (!m.log.seen.insert({detector, key, role}).second) return;
  if (m.report.issues.size() >= size_t(std::max(m.options.maxIssues, 0))) return;
  Text where = thread ? text("CTA {}, {}: ", thread->cta->index, nameOf(*thread))
                      : text("CTA {}: ", m.ctas.empty() ? 0 : m.ctas[0].index);
  m.report.issues.push_back(fmt::format("[{}] {}{}", detector, where, message));
}

void stopLaunch() {
  machine->stopped = true;
  if (machine->current) finishFiber();
  // Only fibers call primitives, and the scheduler's own checks use issue().
  __builtin_unreachable();
}

std::string Report::str() const {
  std::string all = fmt::format(
      "simulator: {} issue{} (seed {}; {} CTAs, {} switches, {} wgmmas, {} copies, {:.1f} ms){}", issueCount,
      issueCount == 1 ? "" : "s", seed, ctas, switches, wgmmas, copies, ms, deadlock ? ", deadlock" : "");
  for (const std::string &issue : issues) all += "\n  " + issue;
  if (issueCount > issues.size())
    all += fmt::format("\n  {} more, most of them repetitions", issueCount - issues.size());
  return all;
}

} // namespace quern::sim
