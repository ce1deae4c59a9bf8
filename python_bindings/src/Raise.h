// From Error values to Python exceptions. Everything below the bindings returns Expected<T> or Status; here
// they become the classes of quern/errors.py.
#pragma once
#include "compiler/support/Error.h"
#include <exception>

namespace quern::python {

/// Which Python class a user error becomes. System and internal errors have their own class whatever the
/// family.
enum class Family : int { Compile = 0, Argument = 1 };

/// Thrown inside the bindings only; the translator registered in Module.cpp turns it into a Python exception.
struct Raised : std::exception {
  Error error;
  Family family;
  Raised(Error e, Family f) : error(std::move(e)), family(f) {}
  const char *what() const noexcept override { return error.message.c_str(); }
};

/// The value, or a Python exception.
template <class T> T unwrap(Expected<T> value, Family family) {
  if (!value) throw Raised(value.takeError(), family);
  return std::move(*value);
}

inline void unwrap(Status status, Family family) {
  if (!status) throw Raised(status.takeError(), family);
}

} // namespace quern::python
