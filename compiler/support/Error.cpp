// The one place where an Error becomes text.
#include "compiler/support/Error.h"

namespace quern {

std::string Error::str() const {
  std::string text;
  if (!place.empty()) text += place + ": ";
  if (kind == ErrorKind::Internal) text += "internal error: ";
  text += message;
  if (!rule.empty()) text += " [" + rule + "]";
  if (!detail.empty()) text += "\n" + detail;
  return text;
}

Error Error::user(std::string message, std::string place, std::string rule) {
  return {ErrorKind::User, std::move(message), std::move(place), std::move(rule), ""};
}
Error Error::system(std::string message, std::string place) {
  return {ErrorKind::System, std::move(message), std::move(place), "", ""};
}
Error Error::internal(std::string message, std::string place) {
  return {ErrorKind::Internal, std::move(message), std::move(place), "",
          "Please report this with the input."};
}

} // namespace quern
