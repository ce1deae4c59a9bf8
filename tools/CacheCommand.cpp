// `quern cache`: what lies in the cache, why a kernel is not in it, and what to do about it.
#include "tools/CacheCommand.h"
#include "tools/Commands.h"

namespace quern::tools {

void addCache(CLI::App &app, int &exitCode) {
  CLI::App *cache =
      app.add_subcommand("cache", "shows, checks, clears and carries the cache of compiled kernels");
  cache->require_subcommand(1);
  cache->footer(
      "The cache keeps compiled kernels and tuning results, so that no process compiles or tunes twice. Its\n"
      "folder is QUERN_CACHE_DIR, else quern in XDG_CACHE_HOME, else in ~/.cache; its size limit is\n"
      "QUERN_CACHE_LIMIT. Copying the folder, or removing it, is always safe.\n"
      "Examples:\n"
      "  quern cache ls\n"
      "  quern cache explain gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880 --arch sm_90a\n"
      "  quern cache export kernels.tar.zst     and, on another machine:\n"
      "  quern cache import kernels.tar.zst");
  addCacheList(*cache, exitCode);
  addCacheShow(*cache, exitCode);
  addCacheExplain(*cache, exitCode);
  addCacheVerify(*cache, exitCode);
  addCacheClear(*cache, exitCode);
  addCacheExport(*cache, exitCode);
  addCacheImport(*cache, exitCode);
}

} // namespace quern::tools
