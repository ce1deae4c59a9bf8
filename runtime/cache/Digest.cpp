// XXH3 compiled into this file, so that neither a wheel nor a bundle needs libxxhash.so.
#include "runtime/cache/Digest.h"
#include <cstring>
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quern::cache {

Digest digest(std::string_view bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  Digest result;
  static_assert(sizeof canonical.digest == sizeof result);
  std::memcpy(result.data(), canonical.digest, sizeof result);
  return result;
}

std::string hex(const Digest &digest) {
  std::string text;
  for (unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

} // namespace quern::cache
