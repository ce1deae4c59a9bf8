// The store on a folder, with what tests want to choose.
#pragma once
#include "runtime/cache/Files.h"
#include "runtime/cache/Locks.h"
#include "runtime/cache/Room.h"
#include "runtime/cache/Store.h"
#include <atomic>
#include <map>
#include <memory>
#include <mutex>

namespace quern::cache {

struct StoreOptions {
  std::optional<Folder> folder;
  uint64_t limitBytes = 0;
  /// Null: no single flight across processes.
  std::shared_ptr<const LockFolder> locks;
  /// How long a process waits for another one that makes the same entry.
  std::chrono::milliseconds patience{120'000};
};

class DiskStore final : public Store {
  struct Flight; // one making of one key, in this process
  /// What a forked child must not inherit: locks that threads of the parent may have held.
  struct Flights;
  struct Counters {
    std::atomic<int64_t> diskHits{0}, misses{0}, published{0}, damaged{0}, waited{0};
  };

  StoreOptions options;
  mutable std::atomic<Flights *> flights{nullptr};
  Counters counters;
  Room room;

  Flights &currentFlights();
  std::optional<Content> look(const std::string &name, const std::string &text);
  bool publishText(const std::string &name, const std::string &text, const std::string &bytes);
  Expected<Content> makeAlone(const Key &key, const std::string &name, const std::string &text,
                              const std::function<Expected<Content>()> &make, Flight &flight, bool *made);
  Lock waitForOthers(const std::string &name, const std::string &text, const Key &key,
                     std::optional<Content> &theirs);

public:
  explicit DiskStore(StoreOptions options);
  ~DiskStore() override;
  std::string folder() const override;
  std::optional<Content> find(const Key &key) override;
  bool publish(const Key &key, const Content &content) override;
  Expected<Content> findOrMake(const Key &key, const std::function<Expected<Content>()> &make,
                               bool *made = nullptr) override;
  void discard(const Key &key) override;
  CacheStats stats() const override;
};

} // namespace quern::cache
