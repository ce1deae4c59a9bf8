// Images of this process by key: one builds, the others wait for it.
#pragma once
#include "compiler/support/Error.h"
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <string>
#include <unordered_map>

namespace quern {

/// Requests that found an image of this process, or one that was being made.
inline std::atomic<int64_t> imagesShared{0};

/// One per kind of image, never destroyed: kernels may be running in any thread.
template <class Image> class ImageFlights {
  struct Flight {
    std::promise<Expected<const Image *>> promise;
    std::shared_future<Expected<const Image *>> result = promise.get_future().share();
    std::atomic<bool> landed{false};
  };
  using Pointer = std::shared_ptr<Flight>;
  std::mutex mutex; // for the map; nothing is built under it
  std::unordered_map<std::string, Pointer> flights;

  ImageFlights() = default;

  void land(const std::string &key, const Pointer &flight, Expected<const Image *> result) {
    if (!result) { // not kept: the next caller tries again
      std::lock_guard lock(mutex);
      if (auto at = flights.find(key); at != flights.end() && at->second == flight) flights.erase(at);
    }
    flight->promise.set_value(std::move(result));
    flight->landed.store(true);
  }

public:
  static ImageFlights &instance() {
    static ImageFlights &table = [&]() -> ImageFlights & {
      static ImageFlights *made = new ImageFlights;
      // In a child, the threads that were building are gone: what they were building is built again. The map
      // itself must be whole when a process forks.
      pthread_atfork([] { made->mutex.lock(); }, [] { made->mutex.unlock(); },
                     [] {
                       std::erase_if(made->flights, [](auto &entry) { return !entry.second->landed.load(); });
                       made->mutex.unlock();
                     });
      return *made;
    }();
    return table;
  }

  /// The image of `key`; `build` runs in the one thread that comes first.
  template <class Build> Expected<const Image *> get(const std::string &key, Build build) {
    Pointer flight;
    bool mine = false;
    {
      std::lock_guard lock(mutex);
      Pointer &held = flights[key];
      if (!held) held = std::make_shared<Flight>(), mine = true;
      flight = held;
    }
    if (!mine) {
      imagesShared.fetch_add(1, std::memory_order_relaxed);
      return flight->result.get();
    }
    struct Landing { // also when `build` throws (no memory): nobody waits for ever
      ImageFlights &table;
      const std::string &key;
      const Pointer &flight;
      Expected<const Image *> result = Error::internal("making an image ended with an exception");
      ~Landing() { table.land(key, flight, result); }
    } landing{*this, key, flight};
    landing.result = build();
    return landing.result;
  }

  /// Forgets the image of `key` if it is this one. A landed image itself stays for those who use it.
  bool forget(const std::string &key, const Image *image) {
    std::lock_guard lock(mutex);
    auto at = flights.find(key);
    if (at == flights.end() ||
        at->second->result.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
      return false;
    auto result = at->second->result.get();
    if (!result || *result != image) return false;
    flights.erase(at);
    return true;
  }
};

} // namespace quern
