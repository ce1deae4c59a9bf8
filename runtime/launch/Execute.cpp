// See Execute.h. A call is: clear what the kernel adds to or does not reach, then batches of segments, each a
// `prepare` phase and a `main` phase. An ordered image (a combine) gives each task a range of columns and
// walks the segments inside it in ascending order, so that every output element sums its rows in one fixed
// order.
#include "runtime/launch/Execute.h"
#include "runtime/launch/ParallelFor.h"
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <immintrin.h>
#include <memory>

namespace quern {
namespace {

constexpr int64_t alignment = 64;

/// Memory that a calling thread keeps between calls: fresh pages would cost more than a small kernel.
struct Arena {
  std::unique_ptr<void, decltype(&std::free)> memory{nullptr, &std::free};
  int64_t size = 0;
  void *reserve(int64_t bytes) {
    if (bytes > size) {
      memory.reset();
      memory.reset(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
      size = memory ? bytes : 0;
    }
    return memory.get();
  }
};

/// Subnormal results are flushed to zero while a kernel runs (DESIGN: allowed; they cost microcode assists on
/// some CPUs).
struct FlushSubnormals {
  unsigned saved = _mm_getcsr();
  explicit FlushSubnormals(bool inputsToo) { _mm_setcsr(saved | 0x8000 | (inputsToo ? 0x40 : 0)); }
  ~FlushSubnormals() { _mm_setcsr(saved); }
};

int64_t elements(const TensorView &t) {
  int64_t n = 1;
  for (int64_t d : t.shape) n *= d;
  return n;
}

void zero(char *data, int64_t bytes) {
  constexpr int64_t piece = 1 << 20;
  parallelFor((bytes + piece - 1) / piece,
              [&](int64_t i, int) { std::memset(data + i * piece, 0, std::min(piece, bytes - i * piece)); });
}

struct Call {
  const jit::CpuImage &image;
  const syntax::Kernel &kernel;
  const Binding &binding;
  const std::vector<Arg> &args;
  const std::vector<TensorView> &outputs;
  std::vector<int64_t> slots;
  std::vector<jit::Segment> segments;
  int64_t workRows = 0; // of the largest batch

  const RoutingView *routing() const {
    return kernel.routing < 0 ? nullptr : &std::get<RoutingView>(args[kernel.routing]);
  }
  int64_t totalRows() const {
    if (const RoutingView *r = routing()) return r->offsets[r->experts];
    return binding.dims.count(kernel.rows.sym)
               ? binding.dims.at(kernel.rows.sym) * kernel.rows.mul / kernel.rows.div
               : kernel.rows.mul;
  }

  void fillSlots() {
    auto pointer = [&](const void *p) { slots.push_back(int64_t(reinterpret_cast<uintptr_t>(p))); };
    auto tensor = [&](const TensorView &t) {
      pointer(t.data);
      for (int64_t s : t.strides) slots.push_back(s);
    };
    for (const Arg &arg : args) {
      if (auto *t = std::get_if<TensorView>(&arg))
        tensor(*t);
      else if (auto *w = std::get_if<PackedView>(&arg))
        pointer(w->codes.data()), pointer(w->scales.data()), pointer(w->zeros.data());
      else if (auto *r = std::get_if<RoutingView>(&arg))
        pointer(r->rowToken), pointer(r->rowWeight);
      else
        slots.push_back(std::bit_cast<uint32_t>(float(std::get<double>(arg))));
    }
    for (const TensorView &t : outputs) tensor(t);
  }

  void cutSegments() {
    auto cut = [&](int64_t expert, int64_t from, int64_t to) {
      for (int64_t row = from; row < to; row += image.maxSegmentRows) {
        int64_t end = std::min(to, row + image.maxSegmentRows);
        segments.push_back({expert, row, end, 0, end - row});
      }
    };
    if (const RoutingView *r = routing())
      for (int64_t e = 0; e < r->experts; ++e) cut(e, r->offsets[e], r->offsets[e + 1]);
    else
      cut(0, 0, totalRows());
  }

  /// Clears combined outputs, and the rows of the others that no segment reaches.
  void clearOutputs() {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const TensorView &t = outputs[i];
      int64_t count = elements(t), from = 0;
      if (!count) continue;
      bool perRow = kernel.routing >= 0 && kernel.outputs[i].dims[0].sym == "R";
      if (perRow)
        from = count / t.shape[0] * totalRows();
      else if (!image.ordered)
        continue;
      zero(static_cast<char *>(t.data) + from * byteSize(t.dtype), (count - from) * byteSize(t.dtype));
    }
  }

  int64_t packedBytes() const {
    int64_t bytes = 0;
    for (const Arg &arg : args)
      if (auto *w = std::get_if<PackedView>(&arg)) bytes += w->experts * w->shape.codeBytes();
    return bytes;
  }

  /// Ends of batches of segments whose workspace fits the budget; sets each segment's workRow.
  std::vector<size_t> batches() {
    std::vector<size_t> ends;
    int64_t budget = std::max<int64_t>(4 << 20, packedBytes() * 3 / 100), rows = 0;
    for (size_t i = 0; i < segments.size(); ++i) {
      int64_t need = image.workBytesPerRow ? (segments[i].segmentRows + 15) / 16 * 16 : 0;
      if (rows && (rows + need) * image.workBytesPerRow > budget) {
        ends.push_back(i);
        rows = 0;
      }
      segments[i].workRow = rows;
      rows += need;
      workRows = std::max(workRows, rows);
    }
    ends.push_back(segments.size());
    return ends;
  }

  Status run() {
    slots.reserve(64);
    fillSlots();
    cutSegments();
    auto ends = batches();
    int threads = numThreads();
    int64_t scratchBytes = (image.scratchBytes + alignment - 1) / alignment * alignment + 4096;
    int64_t workBytes = (workRows * image.workBytesPerRow + alignment - 1) / alignment * alignment;
    static thread_local Arena arena;
    char *memory = static_cast<char *>(arena.reserve(scratchBytes * threads + workBytes));
    if (!memory)
      return Error::system(
          fmt::format("cannot allocate {} bytes of workspace", scratchBytes * threads + workBytes));
    char *work = memory + scratchBytes * threads;
    slots.push_back(int64_t(reinterpret_cast<uintptr_t>(work)));
    clearOutputs();
    size_t first = 0;
    for (size_t end : ends) {
      phases(first, end, memory, scratchBytes, threads);
      first = end;
    }
    return {};
  }

  void phases(size_t first, size_t end, char *memory, int64_t scratchBytes, int threads) {
    bool inputsToo = !image.denormalScales;
    if (image.workBytesPerRow) {
      std::vector<jit::Segment> pieces; // 32 rows: enough parallelism for one long segment
      for (size_t i = first; i < end; ++i) {
        const jit::Segment &s = segments[i];
        if (s.segmentRows < image.prepareMinRows) continue;
        for (int64_t row = s.row0; row < s.row1; row += 32)
          pieces.push_back(
              {s.expert, row, std::min(s.row1, row + 32), s.workRow + row - s.row0, s.segmentRows});
      }
      parallelFor(int64_t(pieces.size()), threads, [&](int64_t i, int worker) {
        FlushSubnormals flush(inputsToo);
        image.prepare(slots.data(), &pieces[i], memory + worker * scratchBytes);
      });
    }
    int64_t count = int64_t(end - first);
    if (!count) return;
    auto one = [&](int64_t segment, int64_t band0, int worker, int64_t bandsPerTask) {
      image.main(slots.data(), &segments[first + segment], band0, std::min(image.bands, band0 + bandsPerTask),
                 memory + worker * scratchBytes);
    };
    // Enough tasks to balance the threads, few enough that a task's activations stay in its cache.
    if (image.ordered) {
      int64_t perTask = std::clamp<int64_t>(image.bands / (threads * 4), 1, 32),
              tasks = (image.bands + perTask - 1) / perTask;
      parallelFor(tasks, threads, [&](int64_t task, int worker) {
        FlushSubnormals flush(inputsToo);
        for (int64_t s = 0; s < count; ++s) one(s, task * perTask, worker, perTask);
      });
      return;
    }
    int64_t perTask = std::clamp<int64_t>(image.bands * count / (threads * 16), 1, 32),
            groups = (image.bands + perTask - 1) / perTask;
    parallelFor(count * groups, threads, [&](int64_t task, int worker) {
      FlushSubnormals flush(inputsToo);
      one(task / groups, task % groups * perTask, worker, perTask);
    });
  }
};

} // namespace

Status execute(const jit::CpuImage &image, const syntax::Kernel &kernel, const Binding &binding,
               const std::vector<Arg> &args, const std::vector<TensorView> &outputs) {
  return Call{image, kernel, binding, args, outputs, {}, {}, 0}.run();
}

} // namespace quern
