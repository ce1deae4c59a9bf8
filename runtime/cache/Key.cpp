// Text, hash and parser of keys.
#include "runtime/cache/Key.h"
#include "runtime/cache/Digest.h"

namespace quern::cache {
namespace {

/// Names give up '=' as well: the first one in a line ends the name.
void appendEscaped(std::string &text, std::string_view part, bool name) {
  for (char c : part) {
    if (c == '\\')
      text += "\\\\";
    else if (c == '\n')
      text += "\\n";
    else if (c == '\r')
      text += "\\r";
    else if (c == '=' && name)
      text += "\\e";
    else
      text += c;
  }
}

bool unescape(std::string_view text, bool name, std::string &part) {
  part.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\r' || (c == '=' && name)) return false;
    if (c != '\\') {
      part += c;
      continue;
    }
    if (++i == text.size()) return false;
    if (text[i] == '\\')
      part += '\\';
    else if (text[i] == 'n')
      part += '\n';
    else if (text[i] == 'r')
      part += '\r';
    else if (text[i] == 'e' && name)
      part += '=';
    else
      return false;
  }
  return true;
}

} // namespace

std::string Key::text() const {
  std::string text;
  appendEscaped(text, kind, true);
  text += '\n';
  for (const Field &field : fields) {
    appendEscaped(text, field.name, true);
    text += '=';
    appendEscaped(text, field.value, false);
    text += '\n';
  }
  return text;
}

std::string Key::hash() const { return hex(digest(text())); }

bool parseKey(std::string_view text, Key &key) {
  Key parsed;
  bool first = true;
  while (first || !text.empty()) {
    size_t end = text.find('\n');
    if (end == text.npos) return false;
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (first) {
      first = false;
      if (!unescape(line, true, parsed.kind)) return false;
      continue;
    }
    size_t equals = line.find('=');
    if (equals == line.npos) return false;
    Key::Field field;
    if (!unescape(line.substr(0, equals), true, field.name) ||
        !unescape(line.substr(equals + 1), false, field.value))
      return false;
    parsed.fields.push_back(std::move(field));
  }
  key = std::move(parsed);
  return true;
}

} // namespace quern::cache
