// Objects made at their first use and never destroyed, without a lock.
#pragma once
#include <atomic>

namespace quern::cache {

/// One object per T. A function's static would be guarded by a lock, which a fork during its making leaves
/// held in the child for ever. Here two threads may make two, and one is thrown away.
template <class T, class Make> T &onceOrTwice(Make make) {
  static std::atomic<T *> the{nullptr};
  if (T *made = the.load(std::memory_order_acquire)) return *made;
  T *mine = make(), *first = nullptr;
  if (the.compare_exchange_strong(first, mine, std::memory_order_acq_rel)) return *mine;
  delete mine;
  return *first;
}

} // namespace quern::cache
