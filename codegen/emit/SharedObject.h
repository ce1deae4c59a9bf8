// Object file -> shared object, by lld as a library: bytes that any process can open without LLVM.
#pragma once
#include "compiler/support/Error.h"
#include <string>
#include <string_view>

namespace quern::x86 {

/// A self-contained ELF shared object of one object file: no path, time or host in it, so that equal objects
/// give equal bytes. It needs the C and the math library (memset, ...) and nothing else.
Expected<std::string> linkShared(std::string_view object);

} // namespace quern::x86
