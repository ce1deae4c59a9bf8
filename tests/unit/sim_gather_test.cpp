// cp.async: producers gather rows that wgmma reads. Each of the four steps between them can be left out.
#include "sim_gemm.h"
#include <memory>

namespace sim_tests {
namespace {

enum class Gap { None, NoWait, WaitOne, NoCommit, NoProxyFence, FenceAfterArrive, NoArrive, ReaderFence };

struct Gather {
  Gemm gemm;
  Gap gap;
  uint32_t rows[32]; // row of b, or 99: a row of zeros
};

void gatherKernel(Gather &g) {
  const uint32_t t = qsim_tid_x() % 128, n = 32;
  char *full = smem(n * 128);
  if (qsim_tid_x() == 0) {
    qsim_mbarrier_init(full, 128);
    qsim_fence_mbarrier_init();
  }
  qsim_syncthreads();
  if (qsim_tid_x() < 128) { // one step of 64 columns: 32 rows of 8 chunks, 2 for each thread
    for (uint32_t i = t; i < n * 8; i += 128) {
      const uint32_t row = i / 8, chunk = i % 8, from = g.rows[row];
      qsim_cp_async16(smem(row * 128 + (chunk ^ row % 8) * 16),
                      from == 99 ? nullptr : &g.gemm.b[from][chunk * 8], from == 99 ? 0 : 16);
    }
    if (g.gap != Gap::NoCommit) qsim_cp_async_commit();
    if (g.gap != Gap::NoWait) qsim_cp_async_wait(g.gap == Gap::WaitOne);
    if (g.gap == Gap::None || g.gap == Gap::NoArrive) qsim_fence_proxy_async();
    if (g.gap != Gap::NoArrive) qsim_mbarrier_arrive(full);
    if (g.gap == Gap::FenceAfterArrive) qsim_fence_proxy_async();
    return;
  }
  if (g.gap != Gap::NoArrive) qsim_mbarrier_wait(full, 0);
  if (g.gap == Gap::ReaderFence) qsim_fence_proxy_async();
  float acc[16] = {};
  for (uint32_t slice = 0; slice < 4; ++slice) {
    uint32_t a[4];
    loadA(g.gemm, t, slice * 16, a);
    qsim_wgmma_fence(acc, 16, a, 4);
    qsim_wgmma(0, n, acc, a, descriptor(smem(slice * 32)));
    qsim_wgmma_commit();
  }
  qsim_wgmma_wait(0, acc, 16);
  for (uint32_t i = 0; i < 16; ++i)
    storeGlobal(&g.gemm.out[i / 4 * 8 + t % 4 * 2 + i % 2][t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8], acc[i]);
}

KernelRun<Gather> gatherRun(Gather &g, Gap gap) {
  fillGemm(g.gemm, 32, false);
  g.gap = gap;
  for (uint32_t i = 0; i < 32; ++i) g.rows[i] = i % 5 == 0 ? 99 : (i * 7) % 100;
  KernelRun<Gather> run(g, gatherKernel, 256, 32 * 128 + 64);
  run.launch.roles = {{"gatherer", 0, 4}, {"consumer", 4, 8}};
  return run;
}

TEST(SimGather, GatheredRowsAreExact) {
  auto g = std::make_unique<Gather>();
  for (Gap gap : {Gap::None, Gap::ReaderFence})
    expectClean(gatherRun(*g, gap), [&] {
      auto value = [](uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); };
      for (uint32_t n = 0; n < 32; ++n)
        for (uint32_t m = 0; m < 64; ++m) {
          float sum = 0;
          for (uint32_t k = 0; k < 64 && g->rows[n] != 99; ++k)
            sum += value(g->gemm.a[m][k]) * value(g->gemm.b[g->rows[n]][k]);
          ASSERT_EQ(g->gemm.out[n][m], sum);
          g->gemm.out[n][m] = NAN;
        }
    });
}

TEST(SimGather, EveryOmissionIsReported) {
  auto g = std::make_unique<Gather>();
  const char *flying = "where a cp.async of gatherer warp";
  for (auto [gap, text] :
       {std::pair(Gap::NoWait, flying),
        {Gap::WaitOne, flying},
        {Gap::NoCommit, flying},
        {Gap::NoProxyFence, "fence.proxy.async is missing between the write and the barrier"},
        {Gap::FenceAfterArrive, "fence.proxy.async is missing between the write and the barrier"},
        {Gap::NoArrive, "wgmma reads smem+0x"}}) {
    SCOPED_TRACE(int(gap));
    expectIssue(gatherRun(*g, gap), AllOf(HasSubstr(text), HasSubstr("consumer warp")));
  }
  for (Gap gap : {Gap::NoWait, Gap::NoCommit})
    expectIssue(gatherRun(*g, gap),
                HasSubstr("the thread returns with 2 cp.async copies that it did not wait for"));
}

struct Single {
  alignas(16) uint32_t source[64];
  void (*body)(Single &);
};

TEST(SimGather, IllegalOperandsAreReported) {
  Single data{};
  auto issueOf = [&](void (*body)(Single &), const char *text) {
    data.body = body;
    KernelRun<Single> run(
        data,
        [](Single &d) {
          if (qsim_tid_x() == 0) d.body(d);
        },
        32);
    expectIssue(run, HasSubstr(text));
  };
  issueOf([](Single &d) { qsim_cp_async16(smem(8), d.source, 16); },
          "cp.async: destination smem+0x8 needs 16-byte alignment");
  issueOf([](Single &d) { qsim_cp_async16(smem(0), d.source + 1, 16); },
          "cp.async: the global address needs 16-byte alignment, at data+4");
  issueOf([](Single &d) { qsim_cp_async16(smem(0), d.source, 17); }, "source size 17; 0 to 16 is legal");
  issueOf([](Single &d) { qsim_cp_async16(smem(0), reinterpret_cast<char *>(d.source) - 16, 16); },
          "begins 16 bytes before buffer 'data'");
  issueOf([](Single &d) { qsim_cp_async16(smem(4096), d.source, 16); },
          "cp.async: 16 bytes at smem+0x1000 are outside");
  issueOf(
      [](Single &d) {
        qsim_cp_async16(smem(0), d.source, 16);
        loadShared(smem<uint32_t>(4));
      },
      "ld.shared at smem+0x4, where a cp.async of warp 0 lane 0 may still write");
}

} // namespace
} // namespace sim_tests
