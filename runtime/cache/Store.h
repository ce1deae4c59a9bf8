// The cache on disk as its users see it: immutable entries, found by key, made once. Whatever happens to the
// folder, an answer is right or missing, never wrong, and nothing here fails a caller: the worst is a miss
// and one warning (README.md).
#pragma once
#include "compiler/support/Error.h"
#include "runtime/cache/Key.h"
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace quern::cache {

/// The parts of an entry, each a name and bytes ("meta", "ptx", "cubin", "elf", ...).
struct Section {
  std::string name, bytes;
  bool operator==(const Section &) const = default;
};
struct Content {
  std::vector<Section> sections;
  const std::string *find(std::string_view name) const;
  bool operator==(const Content &) const = default;
};

/// Counters since the process started, for tests, `quern.stats()` and the warm-start benchmark.
struct CacheStats {
  int64_t diskHits = 0, misses = 0, published = 0, damaged = 0, evicted = 0, waited = 0;
};

class Store {
public:
  /// The user's cache: folder and limits from the knobs, opened at the first call, once per process; without
  /// a usable folder it finds and keeps nothing (one warning says why). Never destroyed.
  static Store &user();
  /// A store on a folder of its own, for tools and tests. Null: nothing is kept.
  static std::unique_ptr<Store> open(const std::string &folder, uint64_t limitBytes);
  virtual ~Store() = default;

  /// Empty: no folder.
  virtual std::string folder() const = 0;
  /// The entry of exactly this key, digest and key text checked; anything else (absent, damaged, unreadable)
  /// is a miss. No lock is taken.
  virtual std::optional<Content> find(const Key &key) = 0;
  /// Publishes an entry; the first one wins. Best effort: says whether an entry of this key is there now.
  virtual bool publish(const Key &key, const Content &content) = 0;
  /// `find`, or else `make` and `publish`. One process of this machine makes a key while others wait for it,
  /// for a bounded time; then they make it too. What `make` gave is returned as it is, never read back. Not
  /// for measurements, which must wait for nobody. `*made` says whether `make` ran.
  virtual Expected<Content> findOrMake(const Key &key, const std::function<Expected<Content>()> &make,
                                       bool *made = nullptr) = 0;
  /// Removes the entry of a key that turned out to be unusable (a driver refuses its image).
  virtual void discard(const Key &key) = 0;
  virtual CacheStats stats() const = 0;
};

} // namespace quern::cache
