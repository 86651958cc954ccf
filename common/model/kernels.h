// CPU kernels behind the model's layers, fused where separate LibTorch operators would walk memory
// several times. One implementation, compiled for AMX, AVX-512 with and without bfloat16, AVX2 and
// baseline x86-64, chosen once at run time.
//
// Shapes: every matrix is float32, row-major and contiguous unless a stride is named; `rows` and
//   `cols` are those of the output. A pointer may be null only where it says so.
// Accuracy: within a few units in the last place of the operators they stand for; the tests say how
//   many. NaN and infinity propagate like there.
// Thread-safety: pure functions. Single-threaded. No allocation.
// Determinism: bit-equal results for equal inputs on one kind of CPU.
#ifndef POMPC_COMMON_MODEL_KERNELS_H_
#define POMPC_COMMON_MODEL_KERNELS_H_

#include <cstdint>

namespace pompc {

// Two bfloat16 numbers of a row, columns 2 k and 2 k + 1: what bfloat16 products multiply and add
// at once. It may live in buffers of floats, whose size it has.
struct [[gnu::may_alias]] alignas(4) BFloat16Pair {
  uint16_t first, second;
};
// Pairs of a row of n numbers; behind an odd n the last one ends in zero.
inline constexpr int64_t PairsOf(int64_t n) { return (n + 1) / 2; }

// What follows LayerNorm in a normalised layer.
enum class Activation { kMish, kSimNorm };

// y = act(LayerNorm(x * mask) * gain + shift), row by row, epsilon 1e-5.
struct NormActivation {
  int64_t rows = 0;
  int64_t cols = 0;
  const float* gain = nullptr;   // [cols]
  const float* shift = nullptr;  // [cols]
  const float* mask = nullptr;   // [rows, cols] dropout mask, already scaled; or null.
  Activation activation = Activation::kMish;
  int64_t simnorm_dim = 8;  // Size of a simplex; divides cols. Only for kSimNorm.
  int64_t stride = 0;       // From row to row of x and of y; 0: cols. Forward only.
  // [rows, PairsOf(cols)] also receives y, rounded; or null. Forward, with bfloat16 products, only.
  BFloat16Pair* pairs = nullptr;
};

// The right-hand matrix of gemm_packed, [in, out], repacked into panels of kPanel columns,
// zero-padded: [ceil(out / kPanel)][in][kPanel].
inline constexpr int64_t kPanel = 32;
inline constexpr int64_t PackedSize(int64_t in, int64_t out) {
  return (out + kPanel - 1) / kPanel * kPanel * in;
}

// The action of a Gaussian policy network's output (m, x) [action_dim each] for standard normal
// eps: tanh(m + eps std) when squashed, else clamp(tanh(m) + eps std, -1, 1); log std as in
// LogStd().
struct PolicyActionOptions {
  int64_t action_dim = 0;
  int64_t output_stride = 0;  // From row to row of the output; 0: one output for all rows.
  bool squashed = false;
  double log_std_min = 0;
  double log_std_max = 0;
};

struct KernelTable {
  const char* isa;

  // Forward. `statistics` [rows, 2] receives mean and 1/std of every row, for the backward; or
  // null. y may be x.
  void (*norm_activation)(const NormActivation& layer, const float* x, float* y, float* statistics);
  // Backward: x, statistics as above, dy [rows, cols] -> dx [rows, cols] (gradient of x, mask
  // applied), dbias [cols] (its sum over the rows), and dgain, dshift [cols]; all are overwritten.
  void (*norm_activation_backward)(const NormActivation& layer, const float* x,
                                   const float* statistics, const float* dy, float* dx,
                                   float* dbias, float* dgain, float* dshift);

  // out[i] = symexp(sum_k softmax(logits[i])[k] * bins[k]), bins evenly over [bin_min, bin_max].
  void (*decode)(int64_t rows, int64_t bins, double bin_min, double bin_max, const float* logits,
                 float* out);
  // dlogits[i] = dout[i] * d out[i] / d logits[i].
  void (*decode_backward)(int64_t rows, int64_t bins, double bin_min, double bin_max,
                          const float* logits, const float* dout, float* dlogits);
  // loss[i] = -sum_k two_hot(target[i])[k] * log_softmax(logits[i])[k].
  void (*cross_entropy)(int64_t rows, int64_t bins, double bin_min, double bin_max,
                        const float* logits, const float* target, float* loss);
  void (*cross_entropy_backward)(int64_t rows, int64_t bins, double bin_min, double bin_max,
                                 const float* logits, const float* target, const float* dloss,
                                 float* dlogits);

  // eps [rows, A] -> action [rows, A] with action_stride floats from row to row.
  void (*policy_action)(const PolicyActionOptions& options, int64_t rows, const float* output,
                        const float* eps, float* action, int64_t action_stride);

  // n numbers, independently 0 with probability `rate` and else 1 / (1 - rate): the words of
  // Philox4x32 blocks 0, 1, .. under the key `seed`. Equal on every CPU.
  void (*dropout_mask)(uint64_t seed, double rate, int64_t n, float* mask);

  // packed [PackedSize(in, out)] = a matrix [in, out] whose element (k, j) is read from
  // matrix[k * in_stride + j * out_stride]; one of the strides is 1. A LibTorch weight [out, in]
  // has in_stride 1. It moves elements of 32 bits, floats or pairs.
  void (*pack)(const void* matrix, int64_t in_stride, int64_t out_stride, int64_t in, int64_t out,
               void* packed);
  // c [rows, out] (stride ldc) = start + a * packed, a [rows, in] with element (r, k) at
  // a[r * lda + k], or at a[r + k * lda] when `transposed`. `start` is one row [out] (a bias), or a
  // row for each row of c with start_stride > 0; it may be c itself (accumulation).
  void (*gemm_packed)(int64_t rows, int64_t in, int64_t out, const float* a, int64_t lda,
                      bool transposed, const float* packed, const float* start,
                      int64_t start_stride, float* c, int64_t ldc);

  // Products in bfloat16 with sums in float32; both null in tables without them.
  // pairs [rows, PairsOf(cols)] (stride pairs_stride) = x, rounded to nearest, ties to even.
  void (*round_pairs)(int64_t rows, int64_t cols, const float* x, int64_t x_stride,
                      BFloat16Pair* pairs, int64_t pairs_stride);
  // As gemm_packed, `in` and lda counted in pairs.
  void (*gemm_packed_pairs)(int64_t rows, int64_t in, int64_t out, const BFloat16Pair* a,
                            int64_t lda, const BFloat16Pair* packed, const float* start,
                            int64_t start_stride, float* c, int64_t ldc);
};

// The best table for this CPU.
const KernelTable& Kernels();
// Whether this CPU multiplies bfloat16 numbers faster than others: Kernels() has the functions.
inline bool HasBFloat16Products() { return Kernels().gemm_packed_pairs != nullptr; }
// All tables that this CPU can run, best first; for tests and benchmarks.
const KernelTable* const* AllKernels(int* count);

}  // namespace pompc

#endif  // POMPC_COMMON_MODEL_KERNELS_H_
