# Writes OUT: a header that names the compiler by the contents of its sources (the files FILES below ROOT), so that an image that
# another version made is never taken for this one's. No path of this machine and no time is in it.
string(REPLACE "|" ";" FILES "${FILES}")
list(SORT FILES)
set(all "")
foreach(file IN LISTS FILES)
  file(SHA256 ${ROOT}/${file} digest)
  string(APPEND all "${file} ${digest}\n")
endforeach()
string(SHA256 stamp "${all}")
string(SUBSTRING ${stamp} 0 32 stamp)
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT "// Generated: what compiles kernels, as the cache's keys name it.
#pragma once
#include <string_view>

namespace quern::jit {
inline constexpr std::string_view compilerStamp = \"@stamp@\";
inline constexpr std::string_view llvmVersion = \"@LLVM@\"; // \"none\": built without the compiler
} // namespace quern::jit
")
