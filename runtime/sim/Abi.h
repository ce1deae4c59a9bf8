// What lowered code calls: one C function per primitive of codegen/gpu/Primitives.h (dots become underscores)
// and the helpers listed at the end of Sim.h. Every pointer into shared memory is a host pointer into the
// window of the calling thread's CTA. They may only be called from a kernel that launch() runs.
#pragma once
#include <cstdint>

extern "C" {
// Special registers and addresses
uint32_t qsim_tid_x();
uint32_t qsim_ntid_x();
uint32_t qsim_ctaid_x();
uint32_t qsim_nctaid_x();
uint32_t qsim_laneid();
uint32_t qsim_cluster_ctarank();
void *qsim_smem_base();
void *qsim_smem_static(uint32_t id, uint32_t bytes, uint32_t align);

// mbarriers (Mbarrier.cpp)
void qsim_mbarrier_init(void *barrier, uint32_t count);
void qsim_fence_mbarrier_init();
void qsim_mbarrier_expect_tx(void *barrier, uint32_t bytes);
void qsim_mbarrier_arrive(void *barrier);
void qsim_mbarrier_arrive_cluster(void *barrier, uint32_t rank);
void qsim_mbarrier_arrive_release_cluster(void *barrier, uint32_t rank);
void qsim_mbarrier_wait(void *barrier, uint32_t parity);
void qsim_mbarrier_wait_cluster(void *barrier, uint32_t parity);

// Async copies (AsyncCopy.cpp, CpAsync.cpp) and the proxy fence (Shadow.cpp)
void qsim_cp_bulk(void *shared, void *global, uint32_t bytes, void *barrier);
void qsim_tma_load2d(void *shared, void *map, int32_t column, int32_t row, void *barrier);
void qsim_tma_load2d_multicast(void *shared, void *map, int32_t column, int32_t row, void *barrier,
                               uint16_t mask);
void qsim_tma_prefetch(void *map);
void qsim_cp_async16(void *shared, void *global, uint32_t srcBytes);
void qsim_cp_async_commit();
void qsim_cp_async_wait(uint32_t groups);
void qsim_fence_proxy_async();

// wgmma (WgmmaAbi.cpp)
void qsim_wgmma(uint32_t isF16, uint32_t n, float *acc, const uint32_t *a, uint64_t desc);
void qsim_wgmma_fence(float *acc, uint32_t nacc, const uint32_t *a, uint32_t na);
void qsim_wgmma_commit();
void qsim_wgmma_wait(uint32_t groups, float *acc, uint32_t nacc);

// Barriers, clusters, warps, registers
void qsim_syncthreads();
void qsim_barrier_sync(uint32_t id, uint32_t threads);
void qsim_cluster_arrive();
void qsim_cluster_wait();
float qsim_ld_cluster_f32(void *shared, uint32_t rank);
uint64_t qsim_ld_cluster_b64(void *shared, uint32_t rank);
uint32_t qsim_shfl_idx(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp);
uint32_t qsim_shfl_up(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp);
uint32_t qsim_shfl_down(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp);
uint32_t qsim_shfl_bfly(uint32_t mask, uint32_t value, uint32_t lane, uint32_t clamp);
uint32_t qsim_ballot(uint32_t mask, uint32_t predicate);
void qsim_syncwarp(uint32_t mask);
void qsim_setmaxnreg(uint32_t registers, uint32_t increase);
void qsim_grid_wait();
void qsim_grid_launch();

// Before each plain access; before each atomic
void qsim_global(void *p, uint32_t bytes, uint32_t store);
void qsim_shared(void *p, uint32_t bytes, uint32_t store);
void qsim_atomic(void *p, uint32_t bytes, uint32_t space);
void qsim_store_f32(float value);

// Pure functions (Arithmetic.cpp)
uint32_t qsim_prmt(uint32_t a, uint32_t b, uint32_t selector);
uint32_t qsim_mul_bf16x2(uint32_t a, uint32_t b);
uint32_t qsim_mul_f16x2(uint32_t a, uint32_t b);
uint32_t qsim_cvt_bf16x2(float high, float low);
uint32_t qsim_cvt_f16x2(float high, float low);
float qsim_ex2(float x);
float qsim_rcp(float x);
}
