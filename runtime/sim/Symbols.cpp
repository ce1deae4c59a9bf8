// The table of qsim_* functions for the JIT.
#include "runtime/sim/Abi.h"
#include "runtime/sim/Sim.h"

namespace quern::sim {

const std::vector<Symbol> &symbols() {
#define QSIM(name)                                                                                           \
  {                                                                                                          \
    #name, reinterpret_cast<void *>(name)                                                                    \
  }
  static const std::vector<Symbol> table = {
      QSIM(qsim_tid_x),
      QSIM(qsim_ntid_x),
      QSIM(qsim_ctaid_x),
      QSIM(qsim_nctaid_x),
      QSIM(qsim_laneid),
      QSIM(qsim_cluster_ctarank),
      QSIM(qsim_smem_base),
      QSIM(qsim_smem_static),
      QSIM(qsim_mbarrier_init),
      QSIM(qsim_fence_mbarrier_init),
      QSIM(qsim_mbarrier_expect_tx),
      QSIM(qsim_mbarrier_arrive),
      QSIM(qsim_mbarrier_arrive_cluster),
      QSIM(qsim_mbarrier_arrive_release_cluster),
      QSIM(qsim_mbarrier_wait),
      QSIM(qsim_mbarrier_wait_cluster),
      QSIM(qsim_cp_bulk),
      QSIM(qsim_tma_load2d),
      QSIM(qsim_tma_load2d_multicast),
      QSIM(qsim_tma_prefetch),
      QSIM(qsim_cp_async16),
      QSIM(qsim_cp_async_commit),
      QSIM(qsim_cp_async_wait),
      QSIM(qsim_fence_proxy_async),
      QSIM(qsim_wgmma),
      QSIM(qsim_wgmma_fence),
      QSIM(qsim_wgmma_commit),
      QSIM(qsim_wgmma_wait),
      QSIM(qsim_syncthreads),
      QSIM(qsim_barrier_sync),
      QSIM(qsim_cluster_arrive),
      QSIM(qsim_cluster_wait),
      QSIM(qsim_ld_cluster_f32),
      QSIM(qsim_ld_cluster_b64),
      QSIM(qsim_shfl_idx),
      QSIM(qsim_shfl_up),
      QSIM(qsim_shfl_down),
      QSIM(qsim_shfl_bfly),
      QSIM(qsim_ballot),
      QSIM(qsim_syncwarp),
      QSIM(qsim_setmaxnreg),
      QSIM(qsim_grid_wait),
      QSIM(qsim_grid_launch),
      QSIM(qsim_global),
      QSIM(qsim_shared),
      QSIM(qsim_atomic),
      QSIM(qsim_store_f32),
      QSIM(qsim_prmt),
      QSIM(qsim_mul_bf16x2),
      QSIM(qsim_mul_f16x2),
      QSIM(qsim_cvt_bf16x2),
      QSIM(qsim_cvt_f16x2),
      QSIM(qsim_ex2),
      QSIM(qsim_rcp),
  };
#undef QSIM
  return table;
}

} // namespace quern::sim
