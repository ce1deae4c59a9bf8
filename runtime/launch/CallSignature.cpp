// See CallSignature.h.
#include "runtime/launch/CallSignature.h"
#include <bit>
#include <cstring>
#include <string_view>

namespace quern {
namespace {

int64_t word(const void *pointer) { return int64_t(reinterpret_cast<uintptr_t>(pointer)); }

void describe(CallSignature &out, const TensorView &t) {
  auto address = reinterpret_cast<uintptr_t>(t.data);
  // Whether rows can be copied 16 bytes at a time depends on the address.
  out.push_back(int64_t(t.dtype) << 8 | (address == 0) << 1 | (address % 16 != 0));
  out.push_back(int64_t(t.shape.size()) << 32 | int64_t(t.strides.size()));
  out.insert(out.end(), t.shape.begin(), t.shape.end());
  out.insert(out.end(), t.strides.begin(), t.strides.end());
}

/// A codec by what it means: two programs may use one name, or one address, for different tables.
void describe(CallSignature &out, const syntax::Codec &codec) {
  for (int i = 0; i < 16; i += 2)
    out.push_back(int64_t(std::bit_cast<uint32_t>(codec.table[i])) << 32 |
                  std::bit_cast<uint32_t>(codec.table[i + 1]));
  out.push_back(int64_t(codec.scale) << 2 | codec.highFirst << 1 | codec.hasZero);
}

void describe(CallSignature &out, const PackedView &w) {
  out.push_back(w.codec != nullptr);
  if (w.codec) describe(out, *w.codec);
  out.insert(out.end(), {w.experts, w.shape.n, w.shape.k, w.shape.block});
  out.push_back(int64_t(w.hasExpertDim) << 16 | int64_t(w.dtype) << 8 | int64_t(w.layout));
  auto addresses = [&](const auto &pointers) {
    out.push_back(int64_t(pointers.size()));
    for (const void *pointer : pointers) out.push_back(word(pointer));
  };
  addresses(w.codes), addresses(w.scales), addresses(w.zeros);
}

void describe(CallSignature &out, const RoutingView &r) {
  out.insert(out.end(), {r.tokens, r.experts, r.topK, int64_t(r.onDevice())});
}

} // namespace

void describeCall(CallSignature &out, const void *owner, const syntax::Kernel &kernel,
                  const std::vector<Arg> &args, const std::string &schedule) {
  out.clear();
  out.insert(out.end(), {word(owner), word(&kernel), int64_t(schedule.size()), int64_t(args.size())});
  for (size_t at = 0; at < schedule.size(); at += 8) {
    int64_t part = 0;
    std::memcpy(&part, schedule.data() + at, std::min<size_t>(8, schedule.size() - at));
    out.push_back(part);
  }
  for (const Arg &arg : args) {
    out.push_back(int64_t(arg.index()));
    if (auto *t = std::get_if<TensorView>(&arg))
      describe(out, *t);
    else if (auto *w = std::get_if<PackedView>(&arg))
      describe(out, *w);
    else if (auto *r = std::get_if<RoutingView>(&arg))
      describe(out, *r);
  }
}

size_t CallSignatureHash::operator()(const CallSignature &signature) const {
  return std::hash<std::string_view>()(
      {reinterpret_cast<const char *>(signature.data()), signature.size() * sizeof(int64_t)});
}

} // namespace quern
