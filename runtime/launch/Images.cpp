// See Images.h.
#include "runtime/launch/Images.h"
#include "runtime/cache/Digest.h"
#include "runtime/cache/JobSlots.h"
#include "runtime/cache/Store.h"
#include "runtime/driver/ToolIdentity.h"
#include "runtime/launch/ImageFile.h"
#include "runtime/launch/ImageFlights.h"
#include "runtime/launch/ImageKey.h"
#include "runtime/launch/LoadCode.h"
#include <atomic>
#include <chrono>
#include <fmt/format.h>

namespace quern {
namespace {

using cache::Content;
using cache::Store;
using jit::CpuImage;
using jit::GpuImage;
using jit::Request;

std::atomic<int64_t> compilations{0}, diskHits{0}, compileUs{0};

/// One compilation, in a slot that all local processes share; counts it and its time.
template <class Compile> auto counted(Compile compile) {
  cache::JobSlot slot;
  auto start = std::chrono::steady_clock::now();
  auto result = compile();
  auto time = std::chrono::steady_clock::now() - start;
  if (result) {
    ++compilations;
    compileUs += std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  }
  return result;
}

/// What cpuImage and gpuImage give. For ever: kernels of it may be running in any thread.
template <class Image> struct Held final : Image {
  bool fromDisk = false;
};
template <class Image> Held<Image> *hold(Image image) { return new Held<Image>{std::move(image)}; }

/// An entry that carries the right key and digest, and still is no image of this request: only another
/// program, or a bug, can have written it.
Error notAnImage(const cache::Key &key) {
  return Error::internal(fmt::format("what was compiled does not read back as a {} image", key.kind),
                         key.hash());
}

/// From the parts of an entry to something that runs.
Expected<Held<CpuImage> *> loadCpu(const Content &content, const Request &request, const cache::Key &key) {
  auto compiled = cpuFromContent(content, request.kernel);
  if (!compiled || compiled->image.features != request.features) return notAnImage(key);
  auto code = loadCode(compiled->elf);
  if (!code) return code.takeError();
  auto *image = hold(std::move(compiled->image));
  image->main = reinterpret_cast<decltype(image->main)>(code->find(request.kernel + "_main"));
  image->prepare = reinterpret_cast<decltype(image->prepare)>(code->find(request.kernel + "_prepare"));
  if (!image->main || !image->prepare) return notAnImage(key);
  return image;
}

Expected<Held<GpuImage> *> loadGpu(const Content &content, const Request &request, const cache::Key &key) {
  auto image = gpuFromContent(content);
  if (!image || image->arch != request.target || image->entry != request.kernel) return notAnImage(key);
  return hold(std::move(*image));
}

/// Disk, else compiler; an entry that does not load is made anew, once. What was compiled runs from the bytes
/// that are published.
template <class Image, class Make, class Load>
Expected<const Image *> fromStore(const cache::Key &key, Make make, Load load) {
  Store &store = Store::user();
  for (bool again = false;; again = true) {
    bool made = false;
    auto content = store.findOrMake(key, make, &made);
    if (!content) return content.takeError();
    Expected<Held<Image> *> image = load(*content);
    if (image && !made) ++diskHits, (*image)->fromDisk = true;
    if (image) return *image;
    if (made || again) return image.takeError();
    store.discard(key);
  }
}

Expected<const CpuImage *> buildCpu(const Request &request, const cache::Key &key) {
  auto make = [&]() -> Expected<Content> {
    auto compiled = counted([&] { return jit::compileThroughLibrary(request); });
    if (!compiled) return compiled.takeError();
    return toContent(*compiled);
  };
  return fromStore<CpuImage>(key, make,
                             [&](const Content &content) { return loadCpu(content, request, key); });
}

/// Compiles for sm_90a, and says under which assembler's name the image belongs.
Expected<GpuImage> compileGpu(const Request &request, std::string &ptxas) {
  auto image = counted([&] { return jit::compileGpuThroughLibrary(request); });
  if (!image) return image;
  ptxas = image->cubin.empty() ? "none" : driver::ptxasVersion(image->ptxasPath);
  Content content = toContent(*image);
  if (gpuFromContent(content)) return image;
  Error error = Error::system(
      fmt::format("wrote a cubin of {} bytes without the kernel '{}'", image->cubin.size(), image->entry),
      image->ptxasPath);
  error.detail = image->ptxasLog;
  return error;
}

/// Without a ptxas here: what another machine's assembled, if that is in the cache.
const GpuImage *assembledElsewhere(const Request &request) {
  Store &store = Store::user();
  std::string ptxas = driver::newestTool(store, imageKeyWithoutTool(request));
  if (ptxas.empty()) return nullptr;
  cache::Key key = imageKeyWith(request, ptxas);
  auto content = store.find(key);
  if (!content) return nullptr;
  auto image = loadGpu(*content, request, key);
  if (!image) return store.discard(key), nullptr;
  ++diskHits, (*image)->fromDisk = true;
  return *image;
}

Expected<const GpuImage *> buildGpu(const Request &request, const std::string &ptxas, bool elsewhere) {
  if (request.target == "sim") {
    auto image = counted([&] { return jit::compileGpuThroughLibrary(request); });
    if (!image) return image.takeError();
    return hold(std::move(*image));
  }
  if (ptxas == "none" && elsewhere)
    if (const GpuImage *image = assembledElsewhere(request)) return image;
  Store &store = Store::user();
  cache::Key key = imageKeyWith(request, ptxas);
  std::optional<Content> other; // another ptxas made it than the key foretold
  auto make = [&]() -> Expected<Content> {
    std::string used;
    auto image = compileGpu(request, used);
    if (!image) return image.takeError();
    Content content = toContent(*image);
    if (used != "none") driver::rememberTool(store, imageKeyWithoutTool(request), used);
    if (used == ptxas) return content;
    store.publish(imageKeyWith(request, used), content);
    other = std::move(content);
    return Error::internal("assembled by " + used, "ptxas");
  };
  auto load = [&](const Content &content) { return loadGpu(content, request, key); };
  auto image = fromStore<GpuImage>(key, make, load);
  if (!other) return image;
  auto loaded = load(*other);
  if (!loaded) return loaded.takeError();
  return *loaded;
}

std::string assemblerOf(const Request &request) {
  return request.target == "sm_90a" ? driver::ptxasInUse() : "";
}

/// Says that code was made again and came out the same.
cache::Key sameAgainKey(const GpuImage &image) {
  cache::Key key{"rebuilt", {}};
  key.add("code", cache::hex(cache::digest(image.cubin + image.ptx)));
  return key;
}

bool isSameCode(const GpuImage &a, const GpuImage &b) { return a.cubin == b.cubin && a.ptx == b.ptx; }

} // namespace

bool isFromDisk(const CpuImage *image) { return static_cast<const Held<CpuImage> *>(image)->fromDisk; }
bool isFromDisk(const GpuImage *image) { return static_cast<const Held<GpuImage> *>(image)->fromDisk; }

ImageStats imageStats() {
  return {compilations.load(), diskHits.load(), imagesShared.load(), compileUs.load()};
}

Expected<const CpuImage *> cpuImage(const Request &request) {
  Request full = resolved(request);
  cache::Key key = imageKeyWith(full, "");
  return ImageFlights<CpuImage>::instance().get(key.text(), [&] { return buildCpu(full, key); });
}

Expected<const GpuImage *> gpuImage(const Request &request) {
  Request full = resolved(request);
  std::string ptxas = assemblerOf(full);
  return ImageFlights<GpuImage>::instance().get(imageKeyWith(full, ptxas).text(),
                                                [&] { return buildGpu(full, ptxas, true); });
}

Expected<const GpuImage *> rebuildGpuImage(const Request &request, const GpuImage *refused) {
  Request full = resolved(request);
  std::string ptxas = assemblerOf(full);
  cache::Key key = imageKeyWith(full, ptxas);
  auto &flights = ImageFlights<GpuImage>::instance();
  Store &store = Store::user();
  std::vector<std::pair<cache::Key, Content>> dropped;
  auto drop = [&](const cache::Key &key) {
    auto kept = store.find(key);
    auto image = kept ? gpuFromContent(*kept) : std::nullopt;
    if (image && !isSameCode(*image, *refused)) return; // another process has replaced it
    store.discard(key);
    if (image) dropped.emplace_back(key, std::move(*kept));
  };
  // Another thread may have rebuilt it already: then there is nothing to drop.
  if (flights.forget(key.text(), refused)) {
    drop(key);
    if (ptxas == "none")
      if (std::string theirs = driver::newestTool(store, imageKeyWithoutTool(full)); !theirs.empty())
        drop(imageKeyWith(full, theirs));
  }
  auto made = flights.get(key.text(), [&] { return buildGpu(full, ptxas, false); });
  if (!made) // a machine with another driver, or this one by its PTX, can still use it
    for (auto &[key, content] : dropped) store.publish(key, content);
  else if (!isFromDisk(*made) && isSameCode(**made, *refused))
    store.publish(sameAgainKey(*refused), {{{"entry", key.hash()}}});
  return made;
}

bool isRebuiltTheSame(const GpuImage &image) { return Store::user().find(sameAgainKey(image)).has_value(); }

} // namespace quern
