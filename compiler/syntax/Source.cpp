// Error messages: place, source line, caret, and near names.
#include "compiler/syntax/Source.h"
#include <algorithm>
#include <fmt/format.h>

namespace quern::syntax {

static bool isContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

/// Length of the valid UTF-8 sequence at `at`, or 0 (Unicode 15, table 3-7: no overlong forms, no
/// surrogates).
size_t utf8Length(std::string_view text, size_t at) {
  auto byte = [&](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  unsigned first = byte(at), second = byte(at + 1);
  auto tail = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return tail(at + 1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    unsigned low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    return second >= low && second <= high && tail(at + 2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    unsigned low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return second >= low && second <= high && tail(at + 2) && tail(at + 3) ? 4 : 0;
  }
  return 0;
}

/// Replaces what would disturb a terminal or is no UTF-8; tabs stay because the caret line repeats them.
static std::string printable(std::string_view text) {
  std::string out(text);
  for (size_t at = 0; at < out.size();) {
    size_t length = utf8Length(text, at);
    if (length == 0 || (static_cast<unsigned char>(out[at]) < 0x20 && out[at] != '\t') || out[at] == 0x7F)
      out[at] = '?';
    at += length == 0 ? 1 : length;
  }
  return out;
}

std::string quoted(std::string_view name) {
  constexpr size_t limit = 40;
  std::string shown;
  if (name.size() <= limit) {
    shown = printable(name);
  } else {
    size_t end = limit - 3;
    while (end > 0 && isContinuation(name[end])) --end;
    shown = printable(name.substr(0, end)) + "...";
  }
  return "'" + shown + "'";
}

/// The part of `line` around byte `at` that fits in about 100 columns, and where `at` lies in it.
static std::string excerpt(std::string_view line, size_t at, size_t &caret) {
  constexpr size_t before = 60, width = 96;
  size_t begin = line.size() > width && at > before ? at - before : 0;
  while (begin > 0 && begin < line.size() && isContinuation(line[begin])) --begin;
  size_t end = std::min(line.size(), begin + width);
  while (end < line.size() && isContinuation(line[end])) ++end;
  std::string prefix = begin > 0 ? "..." : "", suffix = end < line.size() ? "..." : "";
  caret = prefix.size() + at - begin;
  return prefix + printable(line.substr(begin, end - begin)) + suffix;
}

Error Source::error(Loc loc, std::string message, std::string_view rule) const {
  Error error = Error::user(std::move(message), fmt::format("{}:{}:{}", fileName, loc.line, loc.column),
                            std::string(rule));
  size_t begin = 0;
  for (uint32_t line = 1; line < loc.line; ++line) {
    size_t next = text.find('\n', begin);
    if (next == std::string_view::npos) break;
    begin = next + 1;
  }
  std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  size_t caret = 0;
  std::string shown = excerpt(line, std::min<size_t>(loc.column - 1, line.size()), caret);
  std::string pad; // one column per character shown before the caret
  for (size_t i = 0; i < caret; ++i)
    if (!isContinuation(shown[i])) pad += shown[i] == '\t' ? '\t' : ' ';
  std::string number = std::to_string(loc.line);
  error.detail = fmt::format("  {} | {}\n  {} | {}^", number, shown, std::string(number.size(), ' '), pad);
  return error;
}

static size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string didYouMean(std::string_view name, const std::vector<std::string> &candidates) {
  constexpr size_t maxLength = 64, maxCandidates = 1000; // bounds the work on hostile files
  if (name.size() > maxLength) return "";
  size_t best = name.size() / 3 + 1 + (name.size() > 2); // one or two slips in short names
  const std::string *nearest = nullptr;
  for (size_t i = 0; i < candidates.size() && i < maxCandidates; ++i) {
    if (candidates[i].size() > maxLength || candidates[i] == name) continue;
    size_t distance = editDistance(name, candidates[i]);
    if (distance < best && distance < std::max(name.size(), candidates[i].size())) {
      best = distance;
      nearest = &candidates[i];
    }
  }
  return nearest ? "; did you mean " + quoted(*nearest) + "?" : "";
}

} // namespace quern::syntax
