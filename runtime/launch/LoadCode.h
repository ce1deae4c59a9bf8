// Machine code of a CPU image, from bytes to addresses, without a compiler and without a file that others
// see.
#pragma once
#include "compiler/support/Error.h"
#include <string>
#include <string_view>

namespace quern {

/// A shared object that is open for the rest of the process.
class LoadedCode {
  void *handle;

public:
  explicit LoadedCode(void *handle) : handle(handle) {}
  /// Null when the object does not have it.
  void *find(const std::string &symbol) const;
};

/// Opens the bytes of an ELF shared object: from memory, or through a private file where the system forbids
/// that. Its symbols are seen by nobody else. The error is the loader's.
Expected<LoadedCode> loadCode(std::string_view elf);

} // namespace quern
