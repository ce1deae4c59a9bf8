// One process of a workload on the user's cache, for tests/python/test_cache_processes.py: asks for entries
// in a random order, makes those that are missing, and checks what it gets.
//   quern-cache-worker ENTRIES BYTES SEED MILLISECONDS LOG
// Entry i has about BYTES bytes and takes MILLISECONDS to make. Each making appends "i pid\n" to LOG. Prints
// the counters as JSON. Exit code: 0, or 1 when an entry is not what was made.
#include "runtime/cache/Store.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>

using namespace quern::cache;

static Key keyOf(int number) {
  Key key{number % 4 == 3 ? "device" : "gpu", {}};
  key.add("kernel", "kernel" + std::to_string(number));
  key.add("dims", "K=64 N=" + std::to_string(32 * number));
  key.add("source", "first line " + std::to_string(number) + "\nsecond line");
  return key;
}

static Content contentOf(int number, size_t bytes) {
  std::mt19937_64 random(static_cast<uint64_t>(number));
  std::string code(bytes + random() % 100, '\0');
  for (char &c : code) c = char(random());
  return {{{"meta", "number " + std::to_string(number)}, {"cubin", code}}};
}

int main(int argc, char **argv) {
  if (argc != 6) return 2;
  int entries = std::atoi(argv[1]);
  size_t bytes = size_t(std::atoll(argv[2]));
  std::mt19937_64 random(std::strtoull(argv[3], nullptr, 10));
  auto duration = std::chrono::milliseconds(std::atoi(argv[4]));
  int log = open(argv[5], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  std::vector<int> order(static_cast<size_t>(entries));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  int made = 0;
  for (int number : order) {
    Content expected = contentOf(number, bytes);
    auto got = Store::user().findOrMake(keyOf(number), [&]() -> quern::Expected<Content> {
      std::string line = std::to_string(number) + " " + std::to_string(getpid()) + "\n";
      if (write(log, line.data(), line.size()) < 0) std::perror("log");
      std::this_thread::sleep_for(duration);
      ++made;
      return expected;
    });
    if (!got || !(*got == expected)) {
      std::fprintf(stderr, "entry %d is wrong\n", number);
      return 1;
    }
  }
  CacheStats stats = Store::user().stats();
  std::printf("{\"made\": %d, \"hits\": %lld, \"published\": %lld, \"damaged\": %lld, \"evicted\": %lld}\n",
              made, (long long)stats.diskHits, (long long)stats.published, (long long)stats.damaged,
              (long long)stats.evicted);
}
