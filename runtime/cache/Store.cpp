// Finding, publishing and making of entries: README.md has the rules.
#include "runtime/cache/Limit.h"
#include "runtime/cache/Notice.h"
#include "runtime/cache/Once.h"
#include "runtime/cache/StoreImpl.h"
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fmt/format.h>
#include <thread>

namespace quern::cache {

struct DiskStore::Flight {
  std::mutex mutex;
  std::condition_variable landed;
  std::optional<Expected<Content>> result;
  std::thread::id maker = std::this_thread::get_id();
  uint64_t generation = forkGeneration();

  /// A child of fork() that returns from its parent's `make` finds the mutex as it was then: perhaps held.
  bool inherited() const { return generation != forkGeneration(); }
  void land(Expected<Content> value) {
    if (inherited()) return;
    std::lock_guard<std::mutex> guard(mutex);
    result = std::move(value);
    landed.notify_all();
  }
  Expected<Content> wait() {
    std::unique_lock<std::mutex> guard(mutex);
    landed.wait(guard, [&] { return result.has_value(); });
    return *result;
  }
};

struct DiskStore::Flights {
  uint64_t generation = forkGeneration();
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Flight>> byText;
};

DiskStore::DiskStore(StoreOptions options) : options(std::move(options)) {}

DiskStore::~DiskStore() {
  // A child abandons its parent's: a mutex in it may be held by a thread that exists only there.
  Flights *held = flights.load();
  if (held && held->generation == forkGeneration()) delete held;
}

DiskStore::Flights &DiskStore::currentFlights() {
  Flights *held = flights.load(std::memory_order_acquire);
  while (!held || held->generation != forkGeneration()) {
    auto *fresh = new Flights;
    if (flights.compare_exchange_strong(held, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
  }
  return *held;
}

std::string DiskStore::folder() const { return options.folder ? options.folder->path : ""; }

std::optional<Content> DiskStore::look(const std::string &name, const std::string &text) {
  if (!options.folder) return std::nullopt;
  ReadEntry entry = readEntryFile(*options.folder, name, &text, true);
  if (entry.result == ReadResult::Found) return std::move(entry.decoded.content);
  std::string path = fmt::format("{}/{}", options.folder->path, entryPath(name));
  if (entry.result == ReadResult::Damaged) {
    ++counters.damaged;
    if (options.folder->writable) removeEntryFile(*options.folder, name, entry);
    notice("cache", fmt::format("the cache entry {} is damaged ({}): it is made anew", path, entry.why));
  } else if (entry.result == ReadResult::Untrusted) {
    notice("cache", fmt::format("the cache entry {} is not used: others could have written it", path));
  }
  return std::nullopt;
}

std::optional<Content> DiskStore::find(const Key &key) {
  std::string text = key.text();
  std::optional<Content> found = look(entryName(text), text);
  ++(found ? counters.diskHits : counters.misses);
  return found;
}

bool DiskStore::publish(const Key &key, const Content &content) {
  std::string text = key.text(), name = entryName(text);
  if (!options.folder) return false;
  if (!options.folder->writable) return look(name, text).has_value();
  std::string bytes = encodeEntry(text, content);
  return !bytes.empty() && publishText(name, text, bytes);
}

bool DiskStore::publishText(const std::string &name, const std::string &text, const std::string &bytes) {
  const Folder &folder = *options.folder;
  Lock turn;
  if (!room.makeFor(folder, options.locks.get(), options.limitBytes, bytes.size(), turn)) return false;
  int error = 0;
  for (int attempt = 0; attempt < 2; ++attempt) {
    error = publishEntryFile(folder, name, bytes);
    if (error == 0) {
      ++counters.published;
      room.published(bytes.size());
      return true;
    }
    if (error == EEXIST) {
      // The first one wins; a damaged one does not. look() removes it.
      if (look(name, text)) return true;
    } else if ((error != ENOSPC && error != EDQUOT) || !room.freeUp(folder, bytes.size())) {
      break;
    }
  }
  if (error != EEXIST)
    notice("cache",
           fmt::format("nothing can be kept in the cache folder {}: {}{}; kernels are compiled again in "
                       "the next process",
                       folder.path, std::strerror(error),
                       error == EFBIG ? " for this process (ulimit -f)" : ""));
  return false;
}

Lock DiskStore::waitForOthers(const std::string &name, const std::string &text, const Key &key,
                              std::optional<Content> &theirs) {
  Lock lock;
  const LockFolder *locks = options.locks.get();
  struct stat status;
  if (!locks || !options.folder || !options.folder->writable ||
      sys::stat(options.folder->file.get(), status) != 0) {
    theirs = look(name, text);
    return lock;
  }
  // A lock per key and folder. 60 bits of the hash.
  uint64_t number =
      std::stoull(name.substr(0, 15), nullptr, 16) ^ status.st_ino ^ (uint64_t(status.st_dev) << 32);
  using Outcome = LockFolder::Outcome;
  auto arrived = [&] { return (theirs = look(name, text)).has_value(); };
  Outcome outcome = locks->tryLock("making", number, lock);
  if (outcome == Outcome::Busy) {
    ++counters.waited;
    auto deadline = std::chrono::steady_clock::now() + options.patience;
    outcome = locks->waitLock("making", number, lock, deadline, arrived);
  }
  if (outcome == Outcome::Held) locks->signHolder(number);
  if (!theirs) arrived(); // whoever held the lock has published, perhaps
  if (outcome == Outcome::Busy && !theirs)
    notice("cache", fmt::format("{} has been making the same {} entry for {:.0f} s: it is made here as well",
                                locks->holder(number), key.kind, options.patience.count() / 1e3));
  return lock;
}

Expected<Content> DiskStore::makeAlone(const Key &key, const std::string &name, const std::string &text,
                                       const std::function<Expected<Content>()> &make, Flight &flight,
                                       bool *made) {
  std::optional<Content> theirs;
  Lock lock = waitForOthers(name, text, key, theirs);
  if (theirs) {
    ++counters.diskHits;
    flight.land(*theirs);
    return std::move(*theirs);
  }
  ++counters.misses;
  if (made) *made = true;
  Expected<Content> result = make();
  // Nobody in this process waits for the disk.
  flight.land(result);
  if (result) publish(key, *result);
  return result;
}

Expected<Content> DiskStore::findOrMake(const Key &key, const std::function<Expected<Content>()> &make,
                                        bool *made) {
  if (made) *made = false;
  std::string text = key.text(), name = entryName(text);
  if (std::optional<Content> found = look(name, text)) {
    ++counters.diskHits;
    return std::move(*found);
  }
  Flights &current = currentFlights();
  std::shared_ptr<Flight> flight;
  bool mine;
  {
    std::lock_guard<std::mutex> guard(current.mutex);
    std::shared_ptr<Flight> &held = current.byText[text];
    mine = !held;
    if (mine) held = std::make_shared<Flight>();
    flight = held;
  }
  if (!mine && flight->maker != std::this_thread::get_id()) return flight->wait();
  // A maker that asks for its own key gets what it makes then: it would wait for itself.
  if (!mine) {
    if (made) *made = true;
    return make();
  }
  // Also when `make` throws: those who wait get an error instead of waiting for ever.
  struct Landing {
    Flights &current;
    const std::string &text;
    Flight &flight;
    ~Landing() {
      if (flight.inherited()) return;
      bool landed;
      {
        std::lock_guard<std::mutex> guard(flight.mutex);
        landed = flight.result.has_value();
      }
      if (!landed) flight.land(Error::internal("the maker of a cache entry threw an exception"));
      std::lock_guard<std::mutex> guard(current.mutex);
      current.byText.erase(text);
    }
  } landing{current, text, *flight};
  return makeAlone(key, name, text, make, *flight, made);
}

void DiskStore::discard(const Key &key) {
  if (!options.folder || !options.folder->writable) return;
  std::string text = key.text(), name = entryName(text);
  ReadEntry entry = readEntryFile(*options.folder, name, &text, false);
  if (entry.result == ReadResult::Found || entry.result == ReadResult::Damaged)
    removeEntryFile(*options.folder, name, entry);
}

CacheStats DiskStore::stats() const {
  CacheStats stats;
  stats.diskHits = counters.diskHits;
  stats.misses = counters.misses;
  stats.published = counters.published;
  stats.damaged = counters.damaged;
  stats.evicted = room.evicted();
  stats.waited = counters.waited;
  return stats;
}

/// The user's locks live as long as the process.
static std::shared_ptr<const LockFolder> userLocks() {
  return {std::shared_ptr<void>(), &LockFolder::user()};
}

Store &Store::user() {
  return onceOrTwice<DiskStore>([] {
    StoreOptions options;
    options.limitBytes = limitFromEnvironment();
    FolderChoice choice = chooseFolder(Places::fromEnvironment());
    if (!choice.warning.empty()) notice("cache", choice.warning);
    options.folder = std::move(choice.folder);
    options.locks = userLocks();
    return new DiskStore(std::move(options));
  });
}

std::unique_ptr<Store> Store::open(const std::string &folder, uint64_t limitBytes) {
  Expected<Folder> opened = openFolder(folder, true);
  if (!opened) return nullptr;
  StoreOptions options;
  options.folder = std::move(*opened);
  options.limitBytes = limitBytes;
  options.locks = userLocks();
  return std::make_unique<DiskStore>(std::move(options));
}

} // namespace quern::cache
