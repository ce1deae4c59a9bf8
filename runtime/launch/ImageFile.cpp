// See ImageFile.h. One list of fields per record serves both directions, so that none is written and not
// read.
#include "runtime/launch/ImageFile.h"
#include "runtime/driver/ElfSymbols.h"
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

namespace quern {
namespace {

using driver::definesFunction, driver::machineCuda, driver::machineX86;

using Json = nlohmann::ordered_json;

constexpr std::string_view paramKinds[] = {"tensor map", "pointer", "stride",    "codes",      "scales",
                                           "zeros",      "offsets", "row token", "row weight", "scalar",
                                           "rows",       "experts", "partial",   "low rank",   "decoded"};
constexpr int kindCount = std::size(paramKinds);
static_assert(kindCount == int(jit::GpuParam::Decoded) + 1);

/// Calls f(name, field) for each field that is kept. `Record` may be const.
template <class Record, class F> void cpuFields(Record &r, F f) {
  f("schedule", r.schedule), f("features", r.features), f("bands", r.bands), f("ordered", r.ordered);
  f("workBytesPerRow", r.workBytesPerRow), f("prepareMinRows", r.prepareMinRows);
  f("scratchBytes", r.scratchBytes), f("maxSegmentRows", r.maxSegmentRows);
  f("denormalScales", r.denormalScales);
}
template <class Record, class F> void gpuFields(Record &r, F f) {
  f("entry", r.entry), f("arch", r.arch), f("schedule", r.schedule), f("params", r.params);
  f("threads", r.threads), f("cluster", r.cluster), f("ctasPerSm", r.ctasPerSm);
  f("registers", r.registers), f("smemBytes", r.smemBytes), f("tiles", r.tiles), f("x", r.x);
  f("lowRank", r.lowRank), f("combine", r.combine), f("decode", r.decode);
}
template <class F> void fieldsOf(auto &r, F f) {
  using Record = std::remove_cvref_t<decltype(r)>;
  if constexpr (std::is_same_v<Record, jit::CpuImage>) {
    cpuFields(r, f);
  } else if constexpr (std::is_same_v<Record, jit::GpuImage>) {
    gpuFields(r, f);
  } else if constexpr (std::is_same_v<Record, jit::GpuParam>) {
    f("kind", r.kind), f("operand", r.operand), f("index", r.index);
  } else if constexpr (std::is_same_v<Record, jit::LowRankStep>) {
    f("lhs", r.lhs), f("rhs", r.rhs), f("byToken", r.byToken), f("byExpert", r.byExpert);
    f("columns", r.columns), f("reduced", r.reduced);
  } else if constexpr (std::is_same_v<Record, jit::CombineStep>) {
    f("output", r.output), f("columns", r.columns);
  } else if constexpr (std::is_same_v<Record, jit::DecodeStep>) {
    f("packed", r.packed), f("byExpert", r.byExpert), f("halved", r.halved), f("rows", r.rows);
    f("columns", r.columns), f("tileRows", r.tileRows), f("dtype", r.dtype);
  } else {
    static_assert(std::is_same_v<Record, jit::GpuImage::Activations>);
    f("operand", r.operand), f("byToken", r.byToken), f("sorted", r.sorted), f("dtype", r.dtype);
    f("columns", r.columns), f("boxRows", r.boxRows);
  }
}

template <class T> constexpr bool isList = false;
template <class T> constexpr bool isList<std::vector<T>> = true;

template <class T> Json toJson(const T &value) {
  if constexpr (std::is_same_v<T, DType>) {
    return std::string(name(value));
  } else if constexpr (std::is_enum_v<T>) {
    return std::string(paramKinds[value]);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (isList<T>) {
    Json list = Json::array();
    for (auto &item : value) list.push_back(toJson(item));
    return list;
  } else {
    Json object = Json::object();
    fieldsOf(value, [&](const char *name, const auto &field) { object[name] = toJson(field); });
    return object;
  }
}

template <class T> std::string dumped(const T &value) {
  return toJson(value).dump(1, ' ', false, Json::error_handler_t::replace); // never throws
}

/// False when the value is not what a writer could have written.
template <class T> bool fromJson(const Json &json, T &value) {
  if constexpr (std::is_same_v<T, DType>) {
    auto type = json.is_string() ? parseDType(json.get_ref<const std::string &>()) : std::nullopt;
    if (type) value = *type;
    return type.has_value();
  } else if constexpr (std::is_enum_v<T>) {
    if (!json.is_string()) return false;
    for (int i = 0; i < kindCount; ++i)
      if (json.get_ref<const std::string &>() == paramKinds[i]) return value = T(i), true;
    return false;
  } else if constexpr (std::is_same_v<T, bool>) {
    return json.is_boolean() && (value = json.get<bool>(), true);
  } else if constexpr (std::is_integral_v<T>) {
    if (!json.is_number_integer()) return false;
    if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max()))
      return false;
    int64_t wide = json.get<int64_t>();
    if (wide < std::numeric_limits<T>::min() || wide > std::numeric_limits<T>::max()) return false;
    return value = T(wide), true;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return json.is_string() && (value = json.get<std::string>(), true);
  } else if constexpr (isList<T>) {
    if (!json.is_array()) return false;
    value.resize(json.size());
    for (size_t i = 0; i < value.size(); ++i)
      if (!fromJson(json[i], value[i])) return false;
    return true;
  } else {
    if (!json.is_object()) return false;
    size_t count = 0;
    bool good = true;
    fieldsOf(value, [&](const char *name, auto &field) {
      auto found = json.find(name);
      good = good && found != json.end() && fromJson(*found, field);
      ++count;
    });
    return good && count == json.size();
  }
}

template <class T> bool readMeta(const cache::Content &content, T &value) {
  const std::string *meta = content.find("meta");
  if (!meta) return false;
  Json json = Json::parse(*meta, nullptr, /*allow_exceptions=*/false);
  return !json.is_discarded() && fromJson(json, value);
}

/// What a launcher multiplies with or allocates by.
bool inRange(const jit::CpuImage &image) {
  return image.bands > 0 && image.workBytesPerRow >= 0 && image.prepareMinRows >= 0 &&
         image.scratchBytes >= 0 && image.maxSegmentRows > 0;
}

bool inRange(const jit::GpuImage &image) {
  bool good = !image.entry.empty() && !image.arch.empty() && image.threads > 0 && image.threads <= 1024 &&
              image.cluster > 0 && image.cluster <= 16 && image.ctasPerSm > 0 && image.registers >= 0 &&
              image.smemBytes >= 0 && image.tiles > 0 && image.x.columns >= 0 && image.x.boxRows >= 0;
  for (auto &param : image.params) good = good && param.operand >= -1 && param.index >= 0;
  for (auto &step : image.lowRank)
    good = good && step.lhs >= 0 && step.rhs >= 0 && step.columns > 0 && step.reduced > 0;
  for (auto &step : image.combine) good = good && step.output >= 0 && step.columns > 0;
  good = good && image.decode.size() <= 1;
  for (auto &step : image.decode) // at most what a workspace's size can be computed from
    good = good && step.packed >= 0 && step.rows > 0 && step.rows <= INT32_MAX && step.columns > 0 &&
           step.columns <= INT32_MAX && step.tileRows > 0 && step.tileRows % 64 == 0 && step.tileRows <= 1024;
  return good;
}

} // namespace

cache::Content toContent(const jit::CompiledCpu &compiled) {
  return {{{"meta", dumped(compiled.image)}, {"elf", compiled.elf}}};
}

cache::Content toContent(const jit::GpuImage &image) {
  return {{{"meta", dumped(image)}, {"ptx", image.ptx}, {"cubin", image.cubin}, {"log", image.ptxasLog}}};
}

std::optional<jit::CompiledCpu> cpuFromContent(const cache::Content &content, const std::string &kernel) {
  jit::CompiledCpu compiled;
  const std::string *elf = content.find("elf");
  if (!elf || !readMeta(content, compiled.image) || !inRange(compiled.image)) return std::nullopt;
  for (const char *phase : {"_main", "_prepare"})
    if (!definesFunction(*elf, machineX86, kernel + phase)) return std::nullopt;
  compiled.elf = *elf;
  return compiled;
}

std::optional<jit::GpuImage> gpuFromContent(const cache::Content &content) {
  jit::GpuImage image;
  const std::string *ptx = content.find("ptx"), *cubin = content.find("cubin"), *log = content.find("log");
  if (!ptx || !cubin || !log || ptx->empty() || !readMeta(content, image) || !inRange(image))
    return std::nullopt;
  if (!cubin->empty() && !definesFunction(*cubin, machineCuda, image.entry)) return std::nullopt;
  image.ptx = *ptx, image.cubin = *cubin, image.ptxasLog = *log;
  return image;
}

} // namespace quern
