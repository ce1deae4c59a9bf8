// See jit_support.h.
#include "tests/unit/jit_support.h"
#include "compiler/syntax/Syntax.h"
#include <algorithm>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <sys/mman.h>
#include <unistd.h>

namespace quern::jittest {
namespace {

/// What the process is doing, for the handler of a fault.
char running[2048] = "nothing";

void onFault(int) {
  auto print = [](const char *text) {
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) _exit(3);
  };
  print("\nmemory outside the arguments was touched, or an input was written, by: ");
  print(running);
  print("\n");
  _exit(3);
}

size_t pageSize() { return size_t(sysconf(_SC_PAGESIZE)); }
constexpr char guard = char(0xa5);

} // namespace

uint64_t seed() {
  static const uint64_t value = [] {
    const char *env = std::getenv("QUERN_TEST_SEED");
    return env ? std::strtoull(env, nullptr, 0) : 1;
  }();
  return value;
}

char *GuardedBytes::pages() const { return map + pageSize(); }

GuardedBytes::GuardedBytes(size_t bytes, bool flushRight) : size(bytes) {
  size_t page = pageSize(), usable = std::max(page, (bytes + page - 1) / page * page);
  mapped = usable + 2 * page;
  void *got = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) std::abort();
  map = static_cast<char *>(got);
  mprotect(pages(), usable, PROT_READ | PROT_WRITE);
  std::memset(pages(), guard, usable);
  offset = flushRight ? usable - bytes : 0;
}

GuardedBytes::GuardedBytes(GuardedBytes &&other) noexcept
    : map(std::exchange(other.map, nullptr)), mapped(other.mapped), size(other.size), offset(other.offset) {}

GuardedBytes::~GuardedBytes() {
  if (map) munmap(map, mapped);
}

void GuardedBytes::seal(bool sealed) const {
  mprotect(pages(), mapped - 2 * pageSize(), sealed ? PROT_READ : PROT_READ | PROT_WRITE);
}

bool GuardedBytes::guardsIntact() const {
  const char *begin = pages(), *end = begin + mapped - 2 * pageSize();
  auto intact = [](const char *from, const char *to) {
    return std::all_of(from, to, [](char c) { return c == guard; });
  };
  return intact(begin, begin + offset) && intact(begin + offset + size, end);
}

const char *name(Strides s) {
  constexpr const char *names[] = {"padded rows",       "transposed",      "negative rows",
                                   "negative columns",  "zero row stride", "every other column",
                                   "zero column stride"};
  return names[int(s)];
}

std::string Case::str() const {
  std::vector<std::string> dims;
  for (auto &[symbol, value] : options.dims) dims.push_back(fmt::format("{}={}", symbol, value));
  bool shipped = source.find('{') == std::string::npos;
  return fmt::format(
      "{}quern run {} --kernel {} --dim {} --dtype {} --quant-dtype {}{} --routing {} --seed {}{} --check",
      shipped ? "" : source + "\n", shipped ? source : "-", kernel, fmt::join(dims, ","),
      quern::name(options.act), quern::name(options.quant),
      options.block ? fmt::format(" --block {}", options.block) : "", oracle::name(options.routing),
      options.seed, options.exact ? " --exact" : "");
}

void PrintTo(const Case &c, std::ostream *out) { *out << c.str(); }

std::shared_ptr<Module> moduleOf(const std::string &source) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<Module>> modules;
  std::lock_guard lock(mutex);
  if (auto found = modules.find(source); found != modules.end()) return found->second;
  bool isText = source.find('{') != std::string::npos;
  std::string text = isText ? source : syntax::shippedFile(source).value_or("");
  auto module = Module::load(text, isText ? "test.qn" : source);
  if (!module) {
    ADD_FAILURE() << module.error().str();
    return nullptr;
  }
  return modules[source] = *module;
}

Call::Call(const Case &c) : what(c) {
  module = moduleOf(c.source);
  if (!module) return;
  const syntax::Kernel *found = module->program().findKernel(c.kernel);
  if (!found) {
    ADD_FAILURE() << "no kernel " << c.kernel;
    return;
  }
  oracle::GenerateOptions options = c.options;
  options.layout = c.layout;
  auto generated = oracle::generate(module->program(), *found, options);
  if (!generated) {
    ADD_FAILURE() << c.str() << ": " << generated.error().str();
    return;
  }
  kernel = found;
  args = std::move(generated->args);
  route = std::move(generated->routing);
  if (route) keepRouting();
  for (Arg &arg : args) {
    if (auto *t = std::get_if<TensorView>(&arg)) {
      int64_t count = byteSize(t->dtype);
      for (int64_t s : t->shape) count *= s;
      t->data = keep(t->data, count);
    } else if (auto *w = std::get_if<PackedView>(&arg)) {
      int64_t scaleSize = w->codec->scale == syntax::ScaleType::F32    ? 4
                          : w->codec->scale == syntax::ScaleType::BF16 ? 2
                                                                       : 1;
      for (int64_t e = 0; e < w->experts; ++e) {
        w->codes[e] = static_cast<uint8_t *>(keep(w->codes[e], w->shape.codeBytes()));
        w->scales[e] = keep(w->scales[e], w->shape.scaleCount() * scaleSize);
        if (w->codec->hasZero) w->zeros[e] = static_cast<uint8_t *>(keep(w->zeros[e], w->shape.scaleCount()));
      }
    }
  }
}

void *Call::keep(const void *source, int64_t bytes) {
  memory.emplace_back(size_t(bytes), memory.size() % 3 != 2); // most errors read beyond the end
  if (bytes) std::memcpy(memory.back().data(), source, size_t(bytes));
  return memory.back().data();
}

Arg &Call::find(const std::string &name) {
  for (size_t i = 0; i < args.size(); ++i)
    if (kernel->params[i].name == name) return args[i];
  ADD_FAILURE() << "no parameter " << name;
  std::abort();
}

TensorView &Call::tensor(const std::string &name) { return std::get<TensorView>(find(name)); }
PackedView &Call::packed(const std::string &name) { return std::get<PackedView>(find(name)); }
RoutingView &Call::routing() { return std::get<RoutingView>(args[kernel->routing]); }

void Call::setRouting(const std::vector<int64_t> &ids, const std::vector<float> &weights) {
  const RoutingView &view = routing();
  route = std::make_unique<Routing>(routeFromIds(ids.data(), 8, view.topK, 1, weights.data(), DType::F32,
                                                 view.topK, 1, view.tokens, view.topK, view.experts));
  keepRouting();
}

void Call::keepRouting() {
  auto kept = [&](const auto &values) {
    using Element = typename std::decay_t<decltype(values)>::value_type;
    return static_cast<const Element *>(keep(values.data(), int64_t(values.size() * sizeof(Element))));
  };
  RoutingView &view = routing();
  view.offsets = kept(route->offsets), view.rowToken = kept(route->rowToken);
  view.rowWeight = kept(route->rowWeight);
}

void Call::setRowsPerExpert(const std::vector<int64_t> &rows) {
  const RoutingView &view = routing();
  ASSERT_EQ(int64_t(rows.size()), view.experts);
  std::vector<int64_t> ids;
  for (size_t e = 0; e < rows.size(); ++e) ids.insert(ids.end(), size_t(rows[e]), int64_t(e));
  size_t pairs = size_t(view.tokens * view.topK);
  ASSERT_LE(ids.size(), pairs);
  const int64_t outside[] = {-1, view.experts, INT64_MIN, INT64_MAX};
  while (ids.size() < pairs) ids.push_back(outside[ids.size() % 4]);
  oracle::Random random(what.options.seed, "rows per expert");
  for (size_t i = ids.size(); i > 1; --i)
    std::swap(ids[i - 1], ids[size_t(random.below(int64_t(i), int64_t(i)))]);
  std::vector<float> weights;
  for (size_t i = 0; i < pairs; ++i)
    weights.push_back(what.options.exact ? std::ldexp(1.0f, -int(random.below(int64_t(i), 3)))
                                         : float(random.normal(int64_t(i))));
  setRouting(ids, weights);
}

void Call::setStrides(const std::string &name, Strides how) {
  TensorView &t = tensor(name);
  const void *old = t.data;
  std::vector<int64_t> oldStrides = t.strides;
  size_t last = t.shape.size() - 1, row = last ? last - 1 : 0;
  int64_t count = 1;
  for (int64_t s : t.shape) count *= s;
  if (!count) return;
  // The extent of each dimension in elements; outer dimensions stay row-major around it.
  auto contiguous = [&](std::vector<size_t> order, int64_t innermost, int64_t padding) {
    int64_t stride = innermost;
    for (size_t i : order) {
      t.strides[i] = stride;
      stride = stride * t.shape[i] + (i == order.front() ? padding : 0);
    }
  };
  std::vector<size_t> order(t.shape.size());
  std::iota(order.rbegin(), order.rend(), 0);
  if (how == Strides::Transposed && last) std::swap(order[0], order[1]);
  contiguous(order, how == Strides::EveryOther ? 2 : 1, how == Strides::PaddedRows ? 7 : 0);
  if (how == Strides::NegativeRows) t.strides[row] = -t.strides[row];
  if (how == Strides::NegativeLast) t.strides[last] = -t.strides[last];
  if (how == Strides::ZeroRows) t.strides[row] = 0;
  if (how == Strides::ZeroLast) t.strides[last] = 0;
  int64_t lowest = 0, highest = 0;
  for (size_t d = 0; d < t.shape.size(); ++d)
    (t.strides[d] < 0 ? lowest : highest) += (t.shape[d] - 1) * t.strides[d];
  int64_t width = byteSize(t.dtype);
  memory.emplace_back(size_t((highest - lowest + 1) * width), true);
  char *origin = static_cast<char *>(memory.back().data()) - lowest * width;
  std::vector<int64_t> at(t.shape.size());
  for (int64_t i = count; i-- > 0;) { // descending: where strides are zero, the first element stays
    int64_t rest = i, from = 0, to = 0;
    for (size_t d = t.shape.size(); d-- > 0; rest /= t.shape[d]) at[d] = rest % t.shape[d];
    for (size_t d = 0; d < at.size(); ++d) from += at[d] * oldStrides[d], to += at[d] * t.strides[d];
    std::memcpy(origin + to * width, static_cast<const char *>(old) + from * width, size_t(width));
  }
  t.data = origin;
}

void Call::fill(const std::string &name, const std::function<float(int64_t)> &value) {
  TensorView &t = tensor(name);
  int64_t count = 1;
  for (int64_t s : t.shape) count *= s;
  for (int64_t i = 0; i < count; ++i) storeAs(t.dtype, t.data, i, value(i));
}

Status Call::run() {
  auto binding = bindArguments(module->program(), *kernel, args);
  if (!binding) return binding.takeError();
  outputs.clear();
  std::vector<TensorView> views;
  for (const OutputSpec &spec : binding->outputs) views.push_back(outputs.emplace_back(spec).view);
  static const bool handled =
      std::signal(SIGSEGV, onFault) != SIG_ERR && std::signal(SIGBUS, onFault) != SIG_ERR;
  if (!handled) return Error::internal("no handler for faults");
  std::string text = what.str();
  static std::mutex describing;
  if (std::lock_guard lock(describing); true)
    std::memcpy(running, text.c_str(), std::min(text.size() + 1, sizeof running - 1));
  for (const GuardedBytes &m : memory) m.seal(true);
  Status status = module->run(*kernel, args, views);
  for (const GuardedBytes &m : memory) m.seal(false);
  return status;
}

bool Call::ran() {
  if (!ok()) return false; // said so already
  if (Status status = run(); !status) {
    ADD_FAILURE() << what.str() << "\n" << status.error().str();
    return false;
  }
  for (const GuardedBytes &m : memory) EXPECT_TRUE(m.guardsIntact()) << what.str();
  for (const oracle::OutputBuffer &b : outputs)
    EXPECT_TRUE(b.guardsIntact()) << "memory beside an output was written: " << what.str();
  return true;
}

void Call::expectCorrect() {
  if (!ran()) return;
  auto expected = oracle::interpret(module->program(), *kernel, args);
  ASSERT_TRUE(expected) << expected.error().str();
  for (size_t i = 0; i < outputs.size(); ++i) {
    oracle::Comparison c = oracle::compare((*expected)[i], outputs[i].view);
    EXPECT_TRUE(c.pass) << what.str() << "\n" << c.output << ": " << c.verdict();
  }
}

void Call::expectExact() {
  if (!ran()) return;
  auto expected = oracle::interpret(module->program(), *kernel, args);
  ASSERT_TRUE(expected) << expected.error().str();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorView &found = outputs[i].view;
    const oracle::Output &want = (*expected)[i];
    int64_t wrong = 0, first = -1;
    for (int64_t j = 0; j < int64_t(want.values.size()); ++j) {
      ASSERT_EQ(double(float(want.values[size_t(j)])), want.values[size_t(j)]) << "the data are not exact";
      if (bitsOf(found, j) == bitsOf(found.dtype, float(want.values[size_t(j)]))) continue;
      if (!wrong++) first = j;
    }
    EXPECT_EQ(wrong, 0) << what.str() << "\n"
                        << want.name << "[" << first / found.shape[1] << ", " << first % found.shape[1]
                        << "] is " << loadAs(found.dtype, found.data, first) << ", expected "
                        << want.values[size_t(first)];
  }
}

std::string Call::bits() const {
  std::string all;
  for (const oracle::OutputBuffer &b : outputs) {
    int64_t bytes = byteSize(b.view.dtype);
    for (int64_t s : b.view.shape) bytes *= s;
    all.append(static_cast<const char *>(b.view.data), size_t(bytes));
  }
  return all;
}

uint32_t bitsOf(const TensorView &t, int64_t i) { return bitsOf(t.dtype, loadAs(t.dtype, t.data, i)); }

uint32_t bitsOf(DType type, float value) {
  uint32_t bits = 0;
  storeAs(type, &bits, 0, value == 0 ? 0.0f : value);
  return bits;
}

std::string currentSchedule() {
  Case c{"linear", "linear", {}};
  c.options.dims = {{"T", 1}, {"N", 64}, {"K", 64}};
  jit::EmitRequest request;
  auto module = moduleOf("linear");
  request.request.program = &module->program();
  request.request.kernel = "linear";
  request.request.dims = {{"N", 64}, {"K", 64}};
  request.request.act = DType::BF16;
  request.request.params = {{DType::BF16}, {DType::BF16}};
  request.request.outputs = {{DType::BF16}};
  if (const char *env = std::getenv("QUERN_CPU_SCHEDULE")) request.request.schedule = env;
  request.stage = "scheduled";
  auto text = jit::emitThroughLibrary(request);
  if (!text) return text.error().str();
  size_t from = text->find("schedule = \"");
  if (from == std::string::npos) return *text;
  from += std::strlen("schedule = \"");
  return text->substr(from, text->find('"', from) - from);
}

std::string currentIsa() {
  std::string line = currentSchedule();
  size_t from = line.find("isa=");
  if (from == std::string::npos) return line;
  return line.substr(from + 4, line.find(' ', from) - from - 4);
}

} // namespace quern::jittest
