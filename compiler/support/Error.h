// Error and Expected<T>: how every layer below the Python bindings reports failure (no exceptions there).
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace quern {

/// Whose fault it is: the caller's input, the machine's state (files, memory, missing library), or a bug in
/// Quern.
enum class ErrorKind { User, System, Internal };

/// A failure with all that a reader needs. `str()` is what users see.
struct Error {
  ErrorKind kind = ErrorKind::User;
  std::string message; // one sentence: what was found, what was expected
  std::string place;   // "file:line:col", "argument 'x'", a path, ...; may be empty
  std::string rule;    // label of the rule in LANGUAGE.md ("type.rank"); may be empty
  std::string detail;  // further lines (source line and caret, advice, command to repeat); may be empty

  /// "place: message [rule]\ndetail"; internal errors are prefixed with "internal error: ".
  std::string str() const;

  static Error user(std::string message, std::string place = "", std::string rule = "");
  static Error system(std::string message, std::string place = "");
  static Error internal(std::string message, std::string place = "");
};

/// Either a T or an Error. Test it before use: `if (!x) return x.takeError();`.
template <class T> class [[nodiscard]] Expected {
  std::variant<T, Error> state;

public:
  Expected(T value) : state(std::in_place_index<0>, std::move(value)) {}
  Expected(Error error) : state(std::in_place_index<1>, std::move(error)) {}
  explicit operator bool() const { return state.index() == 0; }
  T &operator*() { return std::get<0>(state); }
  const T &operator*() const { return std::get<0>(state); }
  T *operator->() { return &std::get<0>(state); }
  const T *operator->() const { return &std::get<0>(state); }
  const Error &error() const { return std::get<1>(state); }
  Error takeError() { return std::move(std::get<1>(state)); }
};

/// Success or an Error; converts to true on success, like Expected.
class [[nodiscard]] Status {
  std::optional<Error> failure;

public:
  Status() = default;
  Status(Error error) : failure(std::move(error)) {}
  explicit operator bool() const { return !failure; }
  const Error &error() const { return *failure; }
  Error takeError() { return std::move(*failure); }
};

} // namespace quern
