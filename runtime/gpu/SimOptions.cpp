// Words to sim::Options.
#include "runtime/gpu/SimBackend.h"
#include <charconv>
#include <fmt/format.h>

namespace quern::gpu {
namespace {

template <class T> bool number(std::string_view text, T &value) {
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

bool flag(std::string_view text, bool &value) {
  if (text != "0" && text != "1") return false;
  value = text == "1";
  return true;
}

/// Sets one field; the empty text on success, else what is legal.
std::string_view set(sim::Options &o, std::string_view name, std::string_view value) {
  constexpr std::string_view zeroOrOne = "0 or 1", ok;
  if (name == "copies") {
    if (value == "eager") return o.copies = sim::CopyMode::Eager, ok;
    if (value == "lazy") return o.copies = sim::CopyMode::Lazy, ok;
    if (value == "random") return o.copies = sim::CopyMode::Random, ok;
    return "eager, lazy or random";
  }
  if (name == "scheduler") {
    if (value == "fifo") return o.scheduler = sim::Scheduler::Fifo, ok;
    if (value == "random") return o.scheduler = sim::Scheduler::Random, ok;
    if (value == "pct") return o.scheduler = sim::Scheduler::Pct, ok;
    return "fifo, random or pct";
  }
  if (name == "seed") return number(value, o.seed) ? ok : "a whole number";
  if (name == "maxIssues") return number(value, o.maxIssues) ? ok : "a whole number";
  if (name == "yield")
    return number(value, o.yieldProbability) && o.yieldProbability >= 0 && o.yieldProbability <= 1
               ? ok
               : "a probability";
  if (name == "happensBefore") return flag(value, o.happensBefore) ? ok : zeroOrOne;
  if (name == "tokens") return flag(value, o.tokens) ? ok : zeroOrOne;
  if (name == "poison") return flag(value, o.poison) ? ok : zeroOrOne;
  if (name == "bounds") return flag(value, o.bounds) ? ok : zeroOrOne;
  if (name == "rehash") return flag(value, o.rehash) ? ok : zeroOrOne;
  if (name == "convergence") return flag(value, o.convergence) ? ok : zeroOrOne;
  if (name == "warpWait") return flag(value, o.warpWait) ? ok : zeroOrOne;
  if (name == "secondsLimit") return number(value, o.secondsLimit) ? ok : "a number";
  return "one of copies, scheduler, seed, yield, maxIssues, secondsLimit, happensBefore, tokens, poison, "
         "bounds, "
         "rehash, convergence, warpWait";
}

} // namespace

Expected<sim::Options> parseSimOptions(std::string_view text, const sim::Options &base) {
  sim::Options options = base;
  while (!text.empty()) {
    size_t end = std::min(text.find_first_of(" ,"), text.size());
    std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    size_t equal = word.find('=');
    std::string_view value = equal == word.npos ? "" : word.substr(equal + 1);
    if (std::string_view legal = set(options, word.substr(0, equal), value); !legal.empty())
      return Error::user(fmt::format("found '{}', expected {}", word, legal), "QUERN_SIM_OPTIONS");
  }
  return options;
}

} // namespace quern::gpu
