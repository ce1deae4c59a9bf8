// `quern cache explain`: is the kernel of a call in the cache, and if not, what is different about those that
// are.
#include "runtime/launch/Images.h"
#include "tools/CacheCommand.h"
#include "tools/CacheView.h"
#include "tools/CallRequest.h"
#include "tools/Commands.h"
#include "tools/Load.h"
#include <algorithm>
#include <charconv>
#include <ctime>
#include <fmt/format.h>

namespace quern::tools {
using cache::ListedEntry;
using Json = nlohmann::ordered_json;
namespace {

struct ExplainOptions {
  CacheOptions cache;
  CallOptions call;
  std::string arch = "cpu", schedule;
};

struct Difference {
  std::string field, ours, theirs;
};

/// What stands for a field that a key does not have.
constexpr const char *absent = "(none)";

/// All fields in which two keys differ, in the order of `ours`. Of a name that a key has twice, the first
/// counts.
std::vector<Difference> differences(const cache::Key &ours, const cache::Key &theirs) {
  auto find = [](const cache::Key &key, const std::string &name) -> const std::string * {
    for (const cache::Key::Field &field : key.fields)
      if (field.name == name) return &field.value;
    return nullptr;
  };
  std::vector<Difference> out;
  for (const cache::Key::Field &field : ours.fields)
    if (const std::string *other = find(theirs, field.name); !other || *other != field.value)
      out.push_back({field.name, field.value, other ? *other : absent});
  for (const cache::Key::Field &field : theirs.fields)
    if (!find(ours, field.name)) out.push_back({field.name, absent, field.value});
  return out;
}

/// Of long texts, the first line that differs, from a little before the place where it does.
std::pair<std::string, std::string> excerpts(const std::string &ours, const std::string &theirs) {
  size_t at =
      size_t(std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end()).first - ours.begin());
  size_t line = at ? ours.rfind('\n', at - 1) + 1 : 0; // npos + 1 is 0
  size_t from = at > line + 30 ? at - 30 : line;
  auto excerpt = [&](const std::string &text) {
    if (text.empty()) return std::string("(empty)");
    size_t end = std::min(text.find('\n', at), text.size());
    return (from ? "..." : "") + shortened(text.substr(from, end - from), 100) +
           (end < text.size() ? " ..." : "");
  };
  return {excerpt(ours), excerpt(theirs)};
}

struct ImageAnswer {
  std::string schedule; // of the request; empty: the default
  std::string hash;
  std::optional<cache::Nearest> nearest;
  bool hit() const { return nearest && nearest->differing == 0; }
};

ImageAnswer askImage(const cache::Folder &folder, jit::Request request, const std::string &schedule) {
  request.schedule = schedule;
  cache::Key key = imageKey(request);
  return {schedule, key.hash(), cache::nearest(folder, key)};
}

/// The rows per expert of the nearest entry, if nothing else is different: the answer to a call that says
/// nothing of tokens.
std::optional<int64_t> onlyOtherRows(jit::Request request, const std::string &schedule,
                                     const cache::Nearest &nearest) {
  request.schedule = schedule;
  auto differing = differences(imageKey(request), nearest.entry.key);
  int64_t rows = 0;
  if (differing.size() != 1 || differing[0].field != "rows per expert") return std::nullopt;
  const std::string &text = differing[0].theirs;
  auto end = std::from_chars(text.data(), text.data() + text.size(), rows);
  return end.ec == std::errc() && end.ptr == text.data() + text.size() ? std::optional(rows) : std::nullopt;
}

struct TuningAnswer {
  ListedEntry entry;
  std::string schedule, problem; // problem: why the record cannot be used
};

/// The results of tuning this call, on any device; of these rows per expert, if the call says them. Their key
/// is the image's without its schedule, and then what was tuned on and how (runtime/tune).
std::vector<TuningAnswer> askTuning(const cache::Folder &folder, const jit::Request &request,
                                    bool ofAnyRows) {
  cache::Key key = imageKey(request);
  std::vector<TuningAnswer> out;
  for (ListedEntry &entry : cache::listNames(folder)) {
    if (!entry.name.ends_with(".json") || !cache::readEntry(folder, entry) ||
        entry.state != cache::EntryState::Good || entry.key.kind != "tuning" ||
        fieldOf(entry.key, "image") != key.kind ||
        (!ofAnyRows && fieldOf(entry.key, "bucket") != std::to_string(request.rowsPerExpert)))
      continue;
    auto differing = differences(key, entry.key);
    std::erase_if(differing, [&](const Difference &d) {
      return d.ours == absent || d.field == "schedule" || (d.field == "rows per expert" && ofAnyRows);
    });
    if (!differing.empty()) continue;
    TuningAnswer answer{std::move(entry), "", ""};
    const std::string *text = answer.entry.content.find("result");
    Json result = Json::parse(text ? *text : std::string(), nullptr, false);
    if (result.is_object() && result.contains("schedule") && result["schedule"].is_string())
      answer.schedule = result["schedule"].get<std::string>();
    else
      answer.problem = "it names no schedule";
    answer.entry.content = {};
    out.push_back(std::move(answer));
  }
  return out;
}

void print(const ImageAnswer &image) {
  std::string schedule = image.schedule.empty() ? "the default schedule" : image.schedule;
  if (image.hit()) {
    const ListedEntry &entry = image.nearest->entry;
    std::string_view rows = fieldOf(entry.key, "rows per expert");
    fmt::print("hit   {}  {}{}, {}, {}\n", image.hash.substr(0, 12), schedule,
               rows.empty() || rows == "any" ? "" : fmt::format(" of {} rows per expert", rows),
               sizeText(entry.size), ageText(entry.modified, std::time(nullptr)));
    return;
  }
  fmt::print("miss  {}  {}\n", image.hash.substr(0, 12), schedule);
}

void printDifferences(const cache::Key &key, const cache::Nearest &nearest) {
  auto differing = differences(key, nearest.entry.key);
  fmt::print("      The nearest entry is {}, {}\n", nearest.entry.hash().substr(0, 12),
             shortened(summaryOf(nearest.entry), 90));
  for (size_t i = 0; i < differing.size(); ++i) {
    auto [ours, theirs] = excerpts(differing[i].ours, differing[i].theirs);
    fmt::print("      {} '{}':\n        here   {}\n        there  {}\n",
               i                      ? "also differs in"
               : differing.size() > 1 ? "differs first in"
                                      : "differs in",
               differing[i].field, ours, theirs);
  }
}

Json imageJson(const ImageAnswer &image, const cache::Key &key) {
  Json json = {{"hit", image.hit()}, {"hash", image.hash}, {"schedule", image.schedule}};
  if (!image.nearest) return json;
  json["nearest"] = {{"hash", image.nearest->entry.hash()}, {"differences", Json::array()}};
  for (const Difference &d : differences(key, image.nearest->entry.key))
    json["nearest"]["differences"].push_back({{"field", d.field}, {"ours", d.ours}, {"theirs", d.theirs}});
  return json;
}

Json tuningJson(const TuningAnswer &tuning, const ImageAnswer &image) {
  Json json = {{"hash", tuning.entry.hash()},
               {"device", fieldOf(tuning.entry.key, "device")},
               {"rows_per_expert", fieldOf(tuning.entry.key, "bucket")},
               {"policy", fieldOf(tuning.entry.key, "policy")}};
  if (!tuning.problem.empty())
    json["problem"] = tuning.problem;
  else
    json["schedule"] = tuning.schedule, json["image"] = {{"hit", image.hit()}, {"hash", image.hash}};
  return json;
}

int explain(const ExplainOptions &options) {
  auto program = loadProgram(options.call.file);
  if (!program) return report(program.error());
  auto kernel = pickKernel(**program, options.call.kernel);
  if (!kernel) return report(kernel.error());
  CallOptions call = options.call;
  if (options.arch != "cpu") call.layout = "gpu"; // the only one that GPU kernels read
  auto request = requestFor(**program, **kernel, call);
  if (!request) return report(request.error());
  request->target = options.arch;
  auto folder = openCache(options.cache);
  if (!folder) return report(folder.error());

  auto resolved = call.resolve();
  bool ofAnyRows = !resolved || !saysTokens(**kernel, *resolved);
  auto tuned = askTuning(*folder, *request, ofAnyRows);
  if (options.arch == "cpu")
    request->rowsPerExpert = 0; // of an untuned image: only a GPU's default looks at it
  ImageAnswer image = askImage(*folder, *request, options.schedule);
  if (ofAnyRows && !image.hit() && image.nearest)
    if (auto rows = onlyOtherRows(*request, options.schedule, *image.nearest)) {
      request->rowsPerExpert = *rows;
      image = askImage(*folder, *request, options.schedule);
    }
  jit::Request asked = *request;
  asked.schedule = options.schedule;
  cache::Key key = imageKey(asked);
  Json json = {{"kernel", (*kernel)->name},
               {"arch", options.arch},
               {"image", imageJson(image, key)},
               {"tuning", Json::array()}};
  bool text = !options.cache.json;
  if (text) {
    fmt::print("{} {} for {}, in {}\n", (*kernel)->name, fieldOf(key, "dims"), options.arch, folder->path);
    print(image);
    if (!image.hit() && image.nearest) printDifferences(key, *image.nearest);
    if (!image.nearest) fmt::print("      There is no entry of kind {} to compare with\n", key.kind);
    if (tuned.empty())
      fmt::print("      No tuning result for this call: its first launch uses the default schedule\n");
  }
  for (const TuningAnswer &tuning : tuned) {
    ImageAnswer own = tuning.problem.empty() ? askImage(*folder, *request, tuning.schedule) : ImageAnswer{};
    json["tuning"].push_back(tuningJson(tuning, own));
    if (!text) continue;
    fmt::print("tuned {}  on {} ({} units), rows per expert {}\n", tuning.entry.hash().substr(0, 12),
               fieldOf(tuning.entry.key, "device"), fieldOf(tuning.entry.key, "device units"),
               fieldOf(tuning.entry.key, "bucket"));
    if (tuning.problem.empty())
      print(own);
    else
      fmt::print("      not used: {}\n", tuning.problem);
  }
  if (!text) fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  return image.hit() ? success : checkFailed;
}

} // namespace

void addCacheExplain(CLI::App &cache, int &exitCode) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App *command =
      cache.add_subcommand("explain", "says whether a call's kernel is there, and if not, why");
  options->call.addFile(*command);
  options->cache.add(*command, true);
  command
      ->add_option("--arch", options->arch,
                   "the target: cpu or sm_90a (Hopper); images of the simulator are not kept")
      ->check(CLI::IsMember({"cpu", "sm_90a"}))
      ->capture_default_str();
  options->call.addShape(*command);
  command->add_option("--schedule", options->schedule,
                      "one line, as `quern compile` takes it (default: chosen by Quern)");
  command->footer(
      "The call is described as for `quern compile`. A miss names the fields of the key in which the nearest "
      "entry\n"
      "differs, first of all the first. Examples:\n"
      "  quern cache explain gpt_oss --kernel gate_up --dim E=32,N=5760,K=2880\n"
      "  quern cache explain gpt_oss --kernel gate_up --dim T=512,E=32,N=5760,K=2880,top_k=4 --arch sm_90a\n"
      "Exit code: 0 the kernel is there, 1 it is not, 2 an error.");
  command->callback([options, &exitCode] { exitCode = explain(*options); });
}

} // namespace quern::tools
