// What stands between the matrix products of a plan on a GPU (graph_plan.h), as few kernels.
//
// Sums, normalisation and exponentials are float32; activations are float32 or bfloat16. Each
// function starts one kernel on `stream` and returns at once: an error if it was not started. One
// of its work shows at the next check of the device. NaN and infinities pass through, so that
// whoever reads the values can reject them.
//
// Where a graph is recorded on Hopper, kernels are set up while the one before them runs
// (programmatic dependent launch).
//
// Where to look: plan_kernels_norm.cu, _actions.cu, _values.cu and _refit.cu; what they share is in
// plan_device.cuh.
//
// Shapes: E observations, N sequences of each, P of them proposals (which come first), S = N - P
//   candidates, H horizon, A action size, L latent size.
// Random numbers: Philox4x32-10 (Salmon et al., SC 2011); key = the plan's seed, counter = (number,
//   observation, purpose and iteration), so a draw depends neither on the launch nor on other
//   observations.
#ifndef POMPC_COMMON_PLANNER_PLAN_KERNELS_H_
#define POMPC_COMMON_PLANNER_PLAN_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace pompc {

// Rows in groups of `from` that are written in groups of `to`: row r becomes row
// (r / from) * to + offset + r % from.
struct RowMap {
  int from = 1, to = 1, offset = 0;
};

// Parameters that differ between groups of rows: row r takes those at (r / rows) * stride.
struct RowGroups {
  int rows = 1 << 30;
  int64_t stride = 0;
};

// What a plan is told, on the device; one of them for the whole batch.
struct PlanControl {
  enum Action : int32_t { kElite = 0, kMean = 1, kNoisyElite = 2 };
  uint64_t seed = 0;
  float proposal_log_std_min = 0, proposal_log_std_max = 0;
  int32_t warm = 0;  // Whether the previous mean counts.
  int32_t action = kElite;
};

// y = act(LayerNorm(x + bias) * gain + shift), row by row; y may be x.
struct NormArgs {
  bool bfloat16 = false;  // x and y; else float32.
  bool simnorm = false;   // Softmax over groups of 8; else Mish.
  int rows = 0;
  int width = 0;  // A multiple of 8, at most kMaxNormWidth.
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* y = nullptr;
  int64_t y_stride = 0;
  RowMap to;
  const float *bias = nullptr, *gain = nullptr, *shift = nullptr;  // [width]
  RowGroups bias_groups, norm_groups;                              // The latter of gain and shift.
};
inline constexpr int kMaxNormWidth = 2048;
[[nodiscard]] cudaError_t Normalise(const NormArgs& args, cudaStream_t stream);

// Start of a plan. mean [E, H, A] becomes `previous` moved on by one step, or 0 where the episode
// starts or the control says so; std [E, H, A] max_std; counts [2] zero.
struct BeginArgs {
  const PlanControl* control;
  const uint8_t* reset;  // [E]
  const float* previous;
  float *mean, *std;
  int32_t* counts;
  int observations, horizon, action;
  float max_std;
};
[[nodiscard]] cudaError_t BeginPlan(const BeginArgs& args, cudaStream_t stream);

// Where the actions of a block of sequences go: `exact` float32 [E, N, H, A], for the refit; the
// networks' inputs in the activations' type: `first` [rows, first_stride] at step 0, columns
// [L, L + A) of `later` [H - 1, rows, later_stride] after that.
struct ActionOutputs {
  bool bfloat16 = false;
  float* exact = nullptr;
  void* first = nullptr;
  int64_t first_stride = 0;
  void* later = nullptr;
  int64_t later_stride = 0;
};

// Candidates: clamp(mean + std eps, -1, 1). NaN stays. Columns of `out.first` and `out.later`
// behind the last action, up to a multiple of four, become 0.
struct SampleArgs {
  const PlanControl* control;
  const float *mean, *std;  // [E, H, A]
  ActionOutputs out;        // Of the observations [first_observation, + observations).
  int first_observation, observations, horizon, action, latent;
  int sequences, proposals;  // N, P.
  int iteration;
};
[[nodiscard]] cudaError_t SampleCandidates(const SampleArgs& args, cudaStream_t stream);

// Actions of a policy network: clamp(tanh(m) + eps std, -1, 1), or tanh(m + eps std) if squashed.
struct PolicyArgs {
  const PlanControl* control;
  const float* output;  // [rows / rows_per_output, output_stride]: m, then the raw log std.
  int64_t output_stride;
  int rows_per_output;
  const float* bias;  // [2 A]
  bool squashed;
  bool proposal;  // Range of log std from the control; else log_std_min and _max.
  float log_std_min, log_std_max;
  int rows, rows_per_observation, first_observation, action;
  bool bfloat16;
  void* to;  // The A columns of a network's input, [rows, to_stride].
  int64_t to_stride;
  float* exact;          // float32 [E, N, H, A] at this step and observation, or null.
  int64_t exact_stride;  // H A.
  RowMap exact_rows;
  int step, iteration;  // Name the draws.
};
[[nodiscard]] cudaError_t DrawPolicyActions(const PolicyArgs& args, cudaStream_t stream);

// out[to(r)] = base[to(r)] + scale * sum over terms t of ratio^t * (expectation of the two-hot
// logits at row t * rows + r, in reward units).
struct DecodeArgs {
  const float* logits;  // [terms * rows, stride]
  int64_t stride;
  int bins;  // At most kMaxBins.
  float bin_min, bin_max;
  const float* bias;  // [bins], of each term if bias_stride > 0.
  int64_t bias_stride;
  int rows, terms;
  float scale, ratio;
  const float* base;  // May be null: 0.
  float* out;
  RowMap to;
};
inline constexpr int kMaxBins = 128;
[[nodiscard]] cudaError_t DecodeSum(const DecodeArgs& args, cudaStream_t stream);

// The two heads of this iteration: copies of `bytes` (a multiple of 16) at heads i and j of
// `source` [heads, bytes] become `out` [2, bytes]. i != j, drawn uniformly.
struct HeadsArgs {
  const PlanControl* control;
  const void* source;
  void* out;
  int64_t bytes;
  int heads, iteration;
};
[[nodiscard]] cudaError_t GatherHeads(const HeadsArgs& args, cudaStream_t stream);

// The elites' mean and std, one block for each observation; at the last iteration also the result.
// A value that is not finite counts as -inf and adds to counts[0]; an observation without any
// finite value adds to counts[1]. E of the elites is `elites`, at most N.
struct RefitArgs {
  const PlanControl* control;
  const float* value;    // [E, N]
  const float* actions;  // [E, N, H, A]
  float *mean, *std;     // [E, H, A]
  int32_t* counts;
  int first_observation, observations;  // Of [E, ...] those that are refitted.
  int sequences, elites, horizon, action;
  float inverse_temperature, min_std, max_std;
  bool last;
  // [E, A], written if `last`: to execute; drawn elite, mean and std of the first step; and [E].
  float *result_action, *result_elite, *result_mean, *result_std, *result_value;
};
inline constexpr int kMaxSequences = 4096;
[[nodiscard]] cudaError_t RefitElites(const RefitArgs& args, cudaStream_t stream);

}  // namespace pompc

#endif  // POMPC_COMMON_PLANNER_PLAN_KERNELS_H_
