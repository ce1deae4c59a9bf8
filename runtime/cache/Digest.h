// XXH3 of 128 bits: the names of entries and the digest inside each. It finds damage, not forgery: whoever
// may write the folder is trusted (README.md).
#pragma once
#include <array>
#include <string>
#include <string_view>

namespace quern::cache {

/// In the library's canonical (big endian) order.
using Digest = std::array<unsigned char, 16>;
Digest digest(std::string_view bytes);
/// 32 lower-case digits.
std::string hex(const Digest &digest);

} // namespace quern::cache
