// A layer of many rows as one kernel: y = act(LayerNorm(x w^T + bias) * gain + shift) in bfloat16,
// with float32 sums. On Hopper GPUs alone: it multiplies by their warpgroup instructions.
//
// Clusters of blocks take tiles of 64 rows, one after the other. Each block of a cluster has 128 of
// the columns, whose weights it keeps in shared memory; the blocks fetch a tile of x together, a
// part each for all of them, and exchange their rows' means and squared deviations. Four
// warpgroups take turns: while one multiplies, others normalise and store what they have.
#ifndef POMPC_COMMON_PLANNER_FUSED_LAYER_H_
#define POMPC_COMMON_PLANNER_FUSED_LAYER_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/planner/plan_kernels.h"

namespace pompc {

// One layer, or that of several heads of equal sizes side by side. Everything is bfloat16 but the
// parameters in `norm`. Addresses are 16-byte aligned, strides multiples of 8.
struct FusedLayerArgs {
  // norm.rows are those of all heads, head by head; norm.x is not read; norm_groups, if it has a
  // stride, has the rows of a head.
  NormArgs norm;
  int heads = 1;
  int in = 0;  // Columns of x: a multiple of 8.
  const void* x = nullptr;
  int64_t x_stride = 0, x_head_stride = 0;  // The latter 0 where all heads see the same rows.
  const void* weight = nullptr;             // [norm.width, in] of each head.
  int64_t weight_stride = 0, weight_head_stride = 0;
  // Two thirds of the multiprocessors at most, so that other kernels can begin meanwhile.
  bool leaves_room = false;
};

// Whether this device and kernel can do layers of `width` columns: 256 or 512, of up to some
// 700 inputs. Not on a part of a GPU that has no room for a cluster.
bool SupportsFusedLayer(int width, int in);

// Starts the kernel on `stream` and returns at once: an error if it was not started. The weights
// are read before the kernel before it on the stream has ended, if that allows it: it must not be
// what writes them.
[[nodiscard]] cudaError_t FusedLayer(const FusedLayerArgs& args, cudaStream_t stream);

// DecodeSum() of logits x w^T that are nowhere stored; likewise. The weights of all terms are the
// same.
struct FusedDecodeArgs {
  DecodeArgs decode;  // logits, stride and bias_stride are not read.
  int in = 0;
  const void* x = nullptr;  // [rows, in] of each term.
  int64_t x_stride = 0, x_term_stride = 0;
  const void* weight = nullptr;  // [weight_rows, in], bins or some more: a multiple of 8.
  int64_t weight_stride = 0;
  int weight_rows = 0;
  bool leaves_room = false;  // As a layer's.
};
bool SupportsFusedDecode(int in);
[[nodiscard]] cudaError_t FusedDecode(const FusedDecodeArgs& args, cudaStream_t stream);

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_FUSED_LAYER_H_
