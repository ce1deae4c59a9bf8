// See Record.h. Numbers are printed with the fewest digits that give them back, so parse(print(r)) == r.
#include "runtime/tune/Record.h"
#include "runtime/cache/Files.h"
#include "runtime/cache/Notice.h"
#include "runtime/launch/Images.h"
#include "runtime/tune/Space.h"
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace quern::tune {
namespace {

using Json = nlohmann::ordered_json;

template <class Enum, size_t n> Enum named(const Json &json, const Enum (&all)[n]) {
  std::string text = json.get<std::string>();
  for (Enum e : all)
    if (name(e) == text) return e;
  throw Json::other_error::create(501, "unknown name " + text, nullptr);
}
constexpr Skew skews[] = {Skew::Uniform, Skew::Zipf};
constexpr Policy policies[] = {Policy::Device, Policy::Call};
constexpr Verdict verdicts[] = {Verdict::Default, Verdict::Kept, Verdict::Duplicate};
constexpr FailureKind kinds[] = {FailureKind::Compile, FailureKind::Wrong, FailureKind::Bits,
                                 FailureKind::Crash,   FailureKind::Hang,  FailureKind::Device,
                                 FailureKind::Memory};

Json toJson(const Measurement &m) {
  Json json = {{"schedule", m.schedule}, {"candidate", m.candidate}, {"image", m.image}};
  for (const Timing &t : m.timings)
    json["timings"].push_back({{"routing", name(t.skew)},
                               {"medianUs", t.medianUs},
                               {"lowUs", t.lowUs},
                               {"highUs", t.highUs},
                               {"dropped", t.dropped},
                               {"samplesUs", t.samplesUs}});
  if (m.failure)
    json["failure"] = {{"kind", name(m.failure->kind)},
                       {"message", m.failure->message},
                       {"repro", m.failure->repro},
                       {"assembler", m.failure->assembler}};
  json["stopped"] = m.stopped;
  return json;
}

Measurement measurementOf(const Json &json) {
  Measurement m;
  m.schedule = json.at("schedule"), m.candidate = json.at("candidate"), m.image = json.at("image");
  if (json.contains("timings"))
    for (const Json &t : json.at("timings"))
      m.timings.push_back({named(t.at("routing"), skews), t.at("samplesUs"), t.at("dropped"),
                           t.at("medianUs"), t.at("lowUs"), t.at("highUs")});
  if (json.contains("failure")) {
    const Json &f = json.at("failure");
    m.failure = Failure{named(f.at("kind"), kinds), f.at("message"), f.at("repro"), f.at("assembler")};
  }
  m.stopped = json.at("stopped");
  return m;
}

std::vector<Measurement> measurementsOf(const Json &json) {
  std::vector<Measurement> all;
  for (const Json &each : json) all.push_back(measurementOf(each));
  return all;
}

Json arrayOf(const std::vector<Measurement> &all) {
  Json json = Json::array();
  for (const Measurement &m : all) json.push_back(toJson(m));
  return json;
}

Result resultOf(const Json &json) {
  Result r;
  r.schedule = json.at("schedule"), r.reason = json.at("reason"), r.defaultSchedule = json.at("default");
  const Json &device = json.at("device");
  r.device = {device.at("name"), device.at("arch"), device.at("units")};
  r.policy = named(json.at("policy"), policies);
  const Json &work = json.at("work");
  r.work.dims = work.at("dims").get<std::map<std::string, int64_t>>();
  r.work.experts = work.at("experts"), r.work.rows = work.at("rows");
  r.work.rowsPerExpert = work.at("rowsPerExpert"), r.work.flops = work.at("flops"),
  r.work.bytes = work.at("bytes");
  r.pruned = json.at("pruned"), r.illegal = json.at("illegal");
  for (const Json &c : json.at("candidates"))
    r.candidates.push_back({c.at("schedule"), named(c.at("verdict"), verdicts), c.at("reason"),
                            c.at("predictedUs"), c.at("limiter")});
  r.measurements = measurementsOf(json.at("measurements"));
  r.finals = measurementsOf(json.at("finals"));
  r.samples = json.at("samples");
  r.compileSeconds = json.at("compileSeconds"), r.measureSeconds = json.at("measureSeconds");
  return r;
}

} // namespace

std::string printRecord(const Result &r) {
  Json json = {{"protocol", protocolVersion},
               {"schedule", r.schedule},
               {"reason", r.reason},
               {"default", r.defaultSchedule},
               {"device", {{"name", r.device.name}, {"arch", r.device.arch}, {"units", r.device.units}}},
               {"policy", name(r.policy)},
               {"work",
                {{"dims", r.work.dims},
                 {"experts", r.work.experts},
                 {"rows", r.work.rows},
                 {"rowsPerExpert", r.work.rowsPerExpert},
                 {"flops", r.work.flops},
                 {"bytes", r.work.bytes}}},
               {"pruned", r.pruned},
               {"illegal", r.illegal},
               {"candidates", Json::array()}};
  for (const Candidate &c : r.candidates)
    if (c.verdict != Verdict::Pruned && c.verdict != Verdict::Illegal)
      json["candidates"].push_back({{"schedule", c.schedule},
                                    {"verdict", name(c.verdict)},
                                    {"reason", c.reason},
                                    {"predictedUs", c.predictedUs},
                                    {"limiter", c.limiter}});
  json["measurements"] = arrayOf(r.measurements), json["finals"] = arrayOf(r.finals);
  json["samples"] = r.samples;
  json["compileSeconds"] = r.compileSeconds, json["measureSeconds"] = r.measureSeconds;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Expected<Result> parseRecord(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("protocol", Json()) != protocolVersion)
    return Error::user(fmt::format("no tuning result of protocol {}", protocolVersion), "tuning record");
  try {
    return resultOf(json);
  } catch (const Json::exception &e) {
    return Error::user(fmt::format("a tuning result of another form: {}", e.what()), "tuning record");
  }
}

cache::Key tuningKey(const jit::Request &request, const DeviceIdentity &device, Policy policy) {
  cache::Key key;
  key.kind = "tuning";
  key.add("protocol", std::to_string(protocolVersion));
  key.add("policy", std::string(name(policy)));
  key.add("device", device.name);
  key.add("device arch", device.arch);
  key.add("device units", std::to_string(device.units));
  key.add("bucket", std::to_string(request.rowsPerExpert));
  cache::Key image = imageKey(request);
  key.add("image", image.kind);
  for (const auto &field : image.fields)
    if (field.name != "schedule") key.fields.push_back(field);
  return key;
}

std::optional<Result> findRecord(cache::Store &store, const cache::Key &key, const jit::Request &request) {
  auto content = store.find(key);
  if (!content) return std::nullopt;
  const std::string *text = content->find("result");
  auto result = text ? parseRecord(*text) : Expected<Result>(Error::user("no result in it", "tuning record"));
  Status usable = result ? checkTunable(request, result->schedule) : Status(result.error());
  if (!usable) {
    cache::notice("tuning",
                  fmt::format("the tuning result {} of kernel '{}' is not used, the default schedule is: {}",
                              key.hash(), request.kernel, usable.error().message));
    return std::nullopt;
  }
  result->key = key, result->fromRecord = true;
  if (std::string folder = store.folder(); !folder.empty())
    result->recordPath = folder + "/" + cache::entryPath(cache::entryName(key.text()));
  return std::move(*result);
}

Result keepRecord(cache::Store &store, const Result &result, const jit::Request &request) {
  if (!store.publish(result.key, {{{"result", printRecord(result)}}})) return result;
  auto standing = findRecord(store, result.key, request);
  return standing ? *standing : result;
}

} // namespace quern::tune
