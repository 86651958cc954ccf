#include <cudaTypedefs.h>

#include <algorithm>

#include "common/base/check.h"
#include "common/model/launch.cuh"
#include "common/planner/fused_layer.h"
#include "common/planner/hopper.cuh"
#include "common/planner/plan_device.cuh"

namespace pompc {
namespace {

constexpr int kTileRows = 64;                          // Of a warpgroup's product.
constexpr int kTileColumns = 128;                      // Of a block.
constexpr int kTileInputs = 64;                        // Of a stage: 128 bytes, the widest swizzle.
constexpr int kConsumers = 4;                          // Warpgroups that multiply and normalise.
constexpr int kLayerThreads = 128 * (kConsumers + 1);  // And one of which two threads fetch.
// Of a thread: when the kernel starts; then of warpgroups that fetch, and of those that multiply.
constexpr int kStartRegisters = 96, kFetcherRegisters = 24, kConsumerRegisters = 112;
static_assert(kFetcherRegisters + kConsumers * kConsumerRegisters <=
              (kConsumers + 1) * kStartRegisters);
constexpr int kStageBytes = kTileRows * kTileInputs * 2;
constexpr int kWeightBytes = kTileColumns * kTileInputs * 2;  // Of kTileInputs inputs.
constexpr int kMaxStages = 12, kMinStages = 4;
constexpr int kMaxInputTiles = 12;
constexpr int kMaxShared = 227 * 1024;

enum class Output { kMish, kSimNorm, kDecoded };

// What a block has in shared memory behind the weights and the stages, which are 1024-byte aligned.
template <int kBlocks>
struct Shared {
  // [.][2][.][.][.]: of a warpgroup; for every second tile; of a block; of a warp; of eight lanes,
  // each with (mean, squared deviations) of two rows.
  float4 moments[kConsumers][2][kBlocks][4][8];
  // Times kLog2E. Of decoded logits, gain is the bias as it is.
  float gain[kTileColumns], shift[kTileColumns];
  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t weights[kMaxInputTiles];
  uint64_t has_moments[kConsumers][2];
  // Whether all stages of what a warpgroup multiplies are here, and its four warps know.
  uint64_t all_here[kConsumers];
};

struct Arguments {
  NormArgs norm;      // Unless decoded.
  DecodeArgs decode;  // If decoded.
  int rows;           // Of a head, or of a term of what is decoded.
  int tiles;          // Likewise.
  int input_tiles;    // Of kTileInputs.
  int stages;
  bool shared_input;  // x is the same for all heads.
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What a cluster multiplies, in an order that all its blocks and warps go through alike. Warpgroups
// take turns; one does all terms of a tile, so its turns are `terms` in a row.
template <int kBlocks, Output kOutput>
class Jobs {
 public:
  explicit __device__ Jobs(const Arguments& a)
      : tiles_(a.tiles),
        input_tiles_(a.input_tiles),
        stages_(a.stages),
        terms_(kOutput == Output::kDecoded ? a.decode.terms : 1) {}

  // Goes to the next product, if there is one.
  __device__ bool Next() {
    if (++before_ > 0) {
      for (stage_ += input_tiles_; stage_ >= stages_; phase_ ^= 1) stage_ -= stages_;
    }
    do {
      ++number_;
      const int round =
          kOutput == Output::kDecoded ? number_ / kConsumers / terms_ : number_ / kConsumers;
      const int first = round * kConsumers, clusters = gridDim.x / kBlocks;
      if (blockIdx.x / kBlocks + first * clusters >= tiles_) return false;
      tile_ = blockIdx.x / kBlocks + (first + member()) * clusters;
    } while (tile_ >= tiles_);
    return true;
  }

  __device__ int tile() const { return tile_; }
  __device__ int term() const {
    return kOutput == Output::kDecoded ? number_ / kConsumers % terms_ : 0;
  }
  __device__ int member() const { return number_ % kConsumers; }  // The warpgroup whose it is.
  __device__ int before() const { return before_; }               // Products before this one.
  // Where its first stage is, and the phase of that.
  __device__ int stage() const { return stage_; }
  __device__ int phase() const { return phase_; }

 private:
  const int tiles_, input_tiles_, stages_, terms_;
  int number_ = -1, before_ = -1, tile_ = 0, stage_ = 0, phase_ = 0;
};

// --- Activations. ---

__device__ float Exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ float Inverse(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

constexpr float kLog2E = 1.442695041f, kLn2 = 0.693147181f;

// Of y times kLog2E. Mish as in plan_device.cuh: y (1 - 2 / ((e^y + 1)^2 + 1)).
template <Output kOutput>
__device__ void Activate(float (&y)[8]) {
  if constexpr (kOutput == Output::kSimNorm) {
    float largest = y[0], total = 0;
#pragma unroll
    for (int j = 1; j < 8; ++j) largest = fmaxf(largest, y[j]);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      y[j] = Exp2(y[j] - largest);
      total += y[j];
    }
    const float inverse = Inverse(total);
#pragma unroll
    for (int j = 0; j < 8; ++j) y[j] *= inverse;
  } else {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float e = Exp2(y[j]) + 1.0f;
      y[j] *= fmaf(Inverse(fmaf(e, e, 1.0f)), -2 * kLn2, kLn2);
    }
  }
}

// Over the four lanes that have a row.
__device__ float RowSum(float x) {
  x += __shfl_xor_sync(kFull, x, 1);
  return x + __shfl_xor_sync(kFull, x, 2);
}

// What a thread that multiplies knows of its place: warpgroup, its warp (16 of the tile's rows),
// and there the lane: rows `quad` and `quad` + 8, and in each n-th eight columns of a product
// numbers 2 q and 2 q + 1.
struct Place {
  int group, quarter, quad, q;
};

// A block of a cluster, as its threads see it.
template <int kBlocks, Output kOutput>
struct Block {
  const Arguments& a;
  uint8_t* const weights;  // [a.input_tiles] tiles.
  uint8_t* const stages;   // [a.stages] tiles of x.
  Shared<kBlocks>& shared;
  const int rank = blockIdx.x % kBlocks, head = blockIdx.y;

  explicit __device__ Block(const Arguments& arguments, uint8_t* memory)
      : a(arguments),
        weights(memory),
        stages(weights + a.input_tiles * kWeightBytes),
        shared(*reinterpret_cast<Shared<kBlocks>*>(stages + a.stages * kStageBytes)) {}

  __device__ int FirstColumn() const { return rank * kTileColumns; }

  // One warp does this.
  __device__ void InitialiseBarriers(int lane) const {
    if (lane < a.stages) {
      Initialise(&shared.full[lane], 1);
      Initialise(&shared.empty[lane], 4);  // By the warps that read what this block fetches.
    }
    if (lane < a.input_tiles) Initialise(&shared.weights[lane], 1);
    if (lane < kConsumers) {
      for (int i = 0; i < 2; ++i) Initialise(&shared.has_moments[lane][i], 1);
      Initialise(&shared.all_here[lane], 4);
    }
    PublishBarriers();
  }

  // One thread does this. Rows 32 g + 8 q + 2 j + e of the block's (g, q, j < 4; e < 2) become rows
  // 32 j + 8 g + 2 q + e of the tile: so lane q of a row has 8 neighbouring columns of each g.
  // Those of logits stay in order.
  __device__ void StartWeights(const CUtensorMap& map) const {
    constexpr int kFetches = kOutput == Output::kDecoded ? 1 : 4;
    for (int k = 0; k < a.input_tiles; ++k) {
      Expect(&shared.weights[k], kWeightBytes);
      for (int j = 0; j < kFetches; ++j) {
        Fetch(weights + k * kWeightBytes + j * kWeightBytes / 4, map, &shared.weights[k],
              k * kTileInputs, 2 * j, 0, FirstColumn() / 32, head);
      }
    }
  }

  // One thread for each column. Comes before WaitForKernelBefore(), so from L2: what this
  // multiprocessor has in L1 may be older.
  __device__ void LoadVectors(int column) const {
    if constexpr (kOutput == Output::kDecoded) {
      // Bins that are not there weigh nothing.
      shared.gain[column] = column < a.decode.bins ? __ldcg(a.decode.bias + column) : -INFINITY;
    } else {
      // A head's rows have the same.
      const int64_t from = Offset(a.norm.norm_groups, head * a.rows) + FirstColumn() + column;
      shared.gain[column] = kLog2E * __ldcg(a.norm.gain + from);
      shared.shift[column] = kLog2E * __ldcg(a.norm.shift + from);
    }
  }

  // One thread fetches this block's part of all tiles of x, for the whole cluster.
  __device__ void FetchInputs(const CUtensorMap& map) const {
    constexpr int kPart = kTileRows / kBlocks;
    int stage = 0, phase = 1;
    for (Jobs<kBlocks, kOutput> job(a); job.Next();) {
      for (int k = 0; k < a.input_tiles; ++k) {
        Wait(&shared.empty[stage], phase);
        Expect(&shared.full[stage], kStageBytes);
        FetchForAll(stages + stage * kStageBytes + rank * kPart * kTileInputs * 2, map,
                    &shared.full[stage], k * kTileInputs, job.tile() * kTileRows + rank * kPart,
                    a.shared_input ? 0 : head + job.term(), (1 << kBlocks) - 1);
        if (++stage == a.stages) stage = 0, phase ^= 1;
      }
    }
  }

  // d += x w^T over all inputs.
  __device__ void Multiply(const Place& at, const Jobs<kBlocks, kOutput>& job,
                           float (&d)[64]) const {
    constexpr int kAhead = 2;  // Stages whose products may be under way when the next one's start.
    int stage = job.stage(), phase = job.phase();
    int oldest = stage;  // Not yet free.
    // A warp multiplies 16 rows of a stage, and tells the block that fetched them when it is
    // through with them: that others of its warpgroup are as far, nobody promises.
    const bool first_lane = at.quad == 0 && at.q == 0;
    const uint32_t empty = InBlock(Address(shared.empty), at.quarter * kBlocks / 4);
    const auto free_oldest = [&] {
      if (first_lane) ArriveIn(empty + 8 * oldest);
      if (++oldest == a.stages) oldest = 0;
    };
    const uint64_t first_x = Descriptor(stages), first_w = Descriptor(weights);
    KeepInRegisters(d);
    for (int k = 0; k < a.input_tiles; ++k) {
      if (job.before() < kConsumers) Wait(&shared.weights[k], 0);
      Wait(&shared.full[stage], phase);
      if (k + 1 == a.input_tiles) {
        __syncwarp();  // What this says is true of all lanes.
        if (first_lane) Arrive(&shared.all_here[at.group]);
      }
      const uint64_t x = first_x + stage * (kStageBytes / 16);
      const uint64_t w = first_w + k * (kWeightBytes / 16);
      BeginProducts();
#pragma unroll
      for (int i = 0; i < kTileInputs / 16; ++i) MultiplyAdd(d, x + 2 * i, w + 2 * i);
      CommitProducts();
      if (k >= kAhead) {
        WaitForProducts<kAhead>();
        free_oldest();
      }
      if (++stage == a.stages) stage = 0, phase ^= 1;
    }
    WaitForProducts<0>();
    KeepInRegisters(d);
    for (int k = 0; k < kAhead && k < a.input_tiles; ++k) free_oldest();
  }

  // d[4 (4 j + g) + 2 h + e], of row `first` + 8 h and column 32 g + 8 q + 2 j + e of the block:
  // the bias.
  __device__ void Begin(const Place& at, int first, float (&d)[64]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = head * a.rows + min(first + 8 * h, a.rows - 1);
      const float* bias = a.norm.bias + Offset(a.norm.bias_groups, row) + FirstColumn() + 8 * at.q;
      // In pairs, as they are neighbours in d.
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float2 pair = *reinterpret_cast<const float2*>(bias + 32 * (i % 4) + 2 * (i / 4));
        d[4 * i + 2 * h] = pair.x;
        d[4 * i + 2 * h + 1] = pair.y;
      }
    }
  }

  // Means, and squared deviations from them, of both rows over all columns of the cluster; turn: of
  // this warpgroup. By way of those over each block's columns, whose squared deviations are off by
  // 1e-7 of their mean's square.
  __device__ void Moments(const Place& at, int turn, const float (&d)[64], float (&mean)[2],
                          float (&square)[2]) const {
    mean[0] = mean[1] = square[0] = square[1] = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float x = d[4 * i + 2 * h], y = d[4 * i + 2 * h + 1];
        mean[h] += x;
        mean[h] += y;
        square[h] += x * x;
        square[h] += y * y;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      mean[h] = RowSum(mean[h]) * (1.0f / kTileColumns);
      square[h] = RowSum(square[h]) - kTileColumns * mean[h] * mean[h];
    }
    // Lane q tells block q. What it overwrites there has been read: since then the cluster has been
    // through the turn between.
    uint64_t* has_moments = &shared.has_moments[at.group][turn % 2];
    float4(&moments)[kBlocks][4][8] = shared.moments[at.group][turn % 2];
    if (at.q < kBlocks) {
      Send(InBlock(Address(&moments[rank][at.quarter][at.quad]), at.q),
           InBlock(Address(has_moments), at.q),
           make_float4(mean[0], square[0], mean[1], square[1]));
    }
    Wait(has_moments, turn / 2 % 2);
    float4 part[kBlocks];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) part[b] = moments[b][at.quarter][at.quad];
    mean[0] = mean[1] = square[0] = square[1] = 0;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      mean[0] += part[b].x * (1.0f / kBlocks);
      mean[1] += part[b].z * (1.0f / kBlocks);
    }
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const float x = part[b].x - mean[0], y = part[b].z - mean[1];
      square[0] += part[b].y + kTileColumns * x * x;
      square[1] += part[b].w + kTileColumns * y * y;
    }
  }

  // From the product on.
  __device__ void Normalise(const Place& at, int first, int turn, const float (&d)[64]) const {
    float mean[2], square[2], scale[2], offset[2];
    Moments(at, turn, d, mean, square);
    __nv_bfloat16* out[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float variance = square[h] * (1.0f / (kBlocks * kTileColumns));
      scale[h] = rsqrtf((variance < 0 ? 0.0f : variance) + 1e-5f);  // NaN stays.
      offset[h] = -mean[h] * scale[h];
      const int64_t row = Map(a.norm.to, head * a.rows + first + 8 * h);
      out[h] =
          static_cast<__nv_bfloat16*>(a.norm.y) + row * a.norm.y_stride + FirstColumn() + 8 * at.q;
    }
#pragma unroll
    for (int g = 0; g < 4; ++g) {
      float gain[8], shift[8];
      Load(shared.gain + 32 * g + 8 * at.q, gain);
      Load(shared.shift + 32 * g + 8 * at.q, shift);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float y[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float x = d[4 * (4 * (i / 2) + g) + 2 * h + i % 2];
          y[i] = fmaf(fmaf(x, scale[h], offset[h]), gain[i], shift[i]);
        }
        Activate<kOutput>(y);
        if (first + 8 * h < a.rows) Store(out[h] + 32 * g, y);
      }
    }
  }

  // d[4 i + 2 h + e], of row `first` + 8 h and bin 8 i + 2 q + e: the bias.
  __device__ void BeginLogits(const Place& at, float (&d)[64]) const {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float2 bias = *reinterpret_cast<const float2*>(shared.gain + 8 * i + 2 * at.q);
      d[4 * i] = d[4 * i + 2] = bias.x;
      d[4 * i + 1] = d[4 * i + 3] = bias.y;
    }
  }

  // The values that both rows' logits mean.
  __device__ float2 Decode(const Place& at, const float (&d)[64]) const {
    const float width =
        (a.decode.bin_max - a.decode.bin_min) / static_cast<float>(a.decode.bins - 1);
    const float first_bin = a.decode.bin_min + width * static_cast<float>(2 * at.q);
    float value[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = -INFINITY, total = 0, numbers = 0;  // Of bins, behind this lane's first.
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        largest = fmaxf(largest, fmaxf(d[4 * i + 2 * h], d[4 * i + 2 * h + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(kFull, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFull, largest, 2));
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const float x = __expf(d[4 * (i / 2) + 2 * h + i % 2] - largest);
        total += x;
        numbers += x * static_cast<float>(8 * (i / 2) + i % 2);
      }
      const float symlog = RowSum(first_bin * total + width * numbers) / RowSum(total);
      value[h] = copysignf(expf(fabsf(symlog)) - 1.0f, symlog);
    }
    return make_float2(value[0], value[1]);
  }

  // A warpgroup's part of the work.
  __device__ void Consume(const Place& at) const {
    int turn = 0;  // Of this warpgroup.
    float decoded[2] = {}, weight = 0;
    // A barrier tells phases apart by one bit: who waits for one must be there before the next but
    // one. So a warpgroup waits for its first stage only when the last one of the product before,
    // `previous`'s, is here; and since all four of its warps say so, none of them can be late for
    // that barrier's next phase but one either. Bit w of `parities`: whether warpgroup w has an odd
    // number of products before this.
    int previous = kConsumers - 1, parities = 0;
    for (Jobs<kBlocks, kOutput> job(a); job.Next(); previous = job.member()) {
      parities ^= 1 << job.member();
      if (job.member() != at.group) continue;
      const int first = job.tile() * kTileRows + at.quarter * 16 + at.quad;  // Of the head's rows.
      float d[64];
      if constexpr (kOutput == Output::kDecoded) {
        BeginLogits(at, d);
      } else {
        if (threadIdx.x % 128 == 0) {
          Expect(&shared.has_moments[at.group][turn % 2], kBlocks * kTileRows * 2 * sizeof(float));
        }
        Begin(at, first, d);
      }
      if (previous != at.group) Wait(&shared.all_here[previous], (~parities >> previous) & 1);
      Multiply(at, job, d);
      if constexpr (kOutput != Output::kDecoded) {
        Normalise(at, first, turn, d);
        ++turn;
        continue;
      }
      if (job.term() == 0) decoded[0] = decoded[1] = 0, weight = a.decode.scale;
      const float2 value = Decode(at, d);
      decoded[0] += weight * value.x;
      decoded[1] += weight * value.y;
      weight *= a.decode.ratio;
      if (job.term() + 1 < a.decode.terms || at.q > 0) continue;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (first + 8 * h >= a.rows) continue;
        const int to = Map(a.decode.to, first + 8 * h);
        a.decode.out[to] = decoded[h] + (a.decode.base != nullptr ? a.decode.base[to] : 0.0f);
      }
    }
  }
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Blocks (rank in the cluster, cluster of the head; head).
template <int kBlocks, Output kOutput>
__global__ void __launch_bounds__(kLayerThreads, 1)
    LayerKernel(const Arguments a, const __grid_constant__ CUtensorMap x_map,
                const __grid_constant__ CUtensorMap weight_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t memory[];
  const Block<kBlocks, kOutput> block(a, memory);
  // The warp's number, known to be the same in all its lanes: what follows from it is then computed
  // once for all of them.
  const int thread = threadIdx.x, warp = __shfl_sync(kFull, thread / 32, 0), lane = thread % 32;
  // Of the last warpgroup's warps one fetches x, another the weights.
  constexpr int kFetcher = 4 * kConsumers;
  if (warp == kFetcher) {
    block.InitialiseBarriers(lane);
  } else if (thread < kTileColumns) {
    block.LoadVectors(thread);
  }
  __syncthreads();
  ClusterArrive();
  if (warp == kFetcher + 1 && lane == 0) block.StartWeights(weight_map);
  __syncwarp();
  ClusterWait();
  WaitForKernelBefore();

  if (warp >= kFetcher) {
    SetRegisters<kFetcherRegisters, false>();
    if (warp == kFetcher && lane == 0) block.FetchInputs(x_map);
  } else {
    SetRegisters<kConsumerRegisters, true>();
    block.Consume({warp / 4, warp % 4, lane / 4, lane % 4});
  }
  __syncwarp();
  // Nobody's memory goes while others of the cluster may write to it.
  ClusterArrive();
  ClusterWait();
#endif
}

// --- Starting it. ---

int SharedBytes(int blocks, int input_tiles, int stages) {
  const size_t rest = blocks == 1   ? sizeof(Shared<1>)
                      : blocks == 2 ? sizeof(Shared<2>)
                                    : sizeof(Shared<4>);
  return input_tiles * kWeightBytes + stages * kStageBytes + static_cast<int>(rest);
}

int InputTiles(int in) { return (in + kTileInputs - 1) / kTileInputs; }

// As many as fit.
int Stages(int blocks, int input_tiles) {
  const int room = kMaxShared - SharedBytes(blocks, input_tiles, 0);
  return std::min(kMaxStages, room / kStageBytes);
}

// The driver's function, without linking the driver.
PFN_cuTensorMapEncodeTiled_v12000 EncodeTiled() {
  static const auto function = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult result;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                               cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? f : nullptr;
  }();
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// A bfloat16 tensor; strides in numbers, of all dimensions but the first.
template <int kRank>
void Encode(CUtensorMap& map, const void* p, const uint64_t (&sizes)[kRank],
            const int64_t (&strides)[kRank - 1], const uint32_t (&box)[kRank]) {
  cuuint64_t bytes[kRank - 1];
  cuuint32_t ones[kRank];
  for (int i = 0; i < kRank; ++i) ones[i] = 1;
  for (int i = 0; i + 1 < kRank; ++i) bytes[i] = strides[i] * 2;
  const CUresult result =
      EncodeTiled()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kRank, const_cast<void*>(p), sizes,
                    bytes, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  POMPC_CHECK(result == CUDA_SUCCESS)
      << "a tensor of " << sizes[0] << " x " << sizes[1] << " at " << p << ": error " << result;
}

// How many clusters the device has room for at once: none where the kernel does not run, or where
// this process may not use enough of the device.
template <int kBlocks, Output kOutput>
int RoomForClusters(int shared_bytes) {
  const auto kernel = LayerKernel<kBlocks, kOutput>;
  cudaFuncAttributes built;
  if (cudaFuncGetAttributes(&built, kernel) == cudaSuccess &&
      // With fewer, warpgroups would wait for registers for ever. An empty kernel, of a build
      // without sm_90a, has fewer.
      built.numRegs == kStartRegisters &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxShared) ==
          cudaSuccess) {
    return MaxClusters(kernel, kBlocks, kLayerThreads, shared_bytes);
  }
  cudaGetLastError();  // Whoever asks next shall not find it.
  return 0;
}

template <int kBlocks, Output... kOutputs>
bool Supports(int in) {
  const int input_tiles = InputTiles(in);
  if (in < 8 || in % 8 != 0 || input_tiles > kMaxInputTiles) return false;
  const int stages = Stages(kBlocks, input_tiles);
  const int shared_bytes = SharedBytes(kBlocks, input_tiles, stages);
  return stages >= kMinStages && OnHopper() && EncodeTiled() != nullptr &&
         (... && (RoomForClusters<kBlocks, kOutputs>(shared_bytes) > 0));
}

// x [slices, a.rows, in] and weight [heads, width, in]; an x_slice_stride of 0 is one slice for
// all.
struct Operands {
  int in;
  const void* x;
  int64_t x_stride, x_slice_stride;
  int slices;
  const void* weight;
  int64_t weight_stride, weight_head_stride;
  int width, heads;
  bool leaves_room;
};

template <int kBlocks, Output kOutput>
cudaError_t StartLayer(Arguments a, const Operands& o, cudaStream_t stream) {
  a.tiles = (a.rows + kTileRows - 1) / kTileRows;
  a.input_tiles = InputTiles(o.in);
  a.stages = Stages(kBlocks, a.input_tiles);
  a.shared_input = o.x_slice_stride == 0;
  const int shared_bytes = SharedBytes(kBlocks, a.input_tiles, a.stages);

  const auto size = [](int64_t n) { return static_cast<uint64_t>(n); };
  CUtensorMap x_map, weight_map;
  const int64_t row = o.weight_stride;
  Encode<3>(x_map, o.x, {size(o.in), size(a.rows), size(a.shared_input ? 1 : o.slices)},
            {o.x_stride, a.shared_input ? o.x_stride : o.x_slice_stride},
            {kTileInputs, kTileRows / kBlocks, 1});
  // Dimensions of the weights: input, row of eight, eight of 32, 32 rows, head; of logits: input,
  // row of eight, eight, which end somewhere in the block's 128.
  constexpr bool kDecoded = kOutput == Output::kDecoded;
  Encode<5>(weight_map, o.weight,
            {size(o.in), 8, size(kDecoded ? o.width / 8 : 4), size(kDecoded ? 1 : o.width / 32),
             size(o.heads)},
            {row, 8 * row, 32 * row, o.heads == 1 ? 32 * row : o.weight_head_stride},
            {kTileInputs, kDecoded ? 8 : 2, kDecoded ? 16 : 4, kDecoded ? 1 : 4, 1});
  int room = RoomForClusters<kBlocks, kOutput>(shared_bytes);
  if (o.leaves_room) room = room * 2 / 3;
  // One for each head if fewer have room: they come one after the other then.
  const int clusters = std::min(a.tiles, std::max(1, room / o.heads));
  return StartClusters(LayerKernel<kBlocks, kOutput>, kBlocks, dim3(kBlocks * clusters, o.heads),
                       kLayerThreads, shared_bytes, stream, a, x_map, weight_map);
}

}  // namespace

bool SupportsFusedLayer(int width, int in) {
  if (width == 256) return Supports<2, Output::kSimNorm, Output::kMish>(in);
  return width == 512 && Supports<4, Output::kSimNorm, Output::kMish>(in);
}

bool SupportsFusedDecode(int in) { return Supports<1, Output::kDecoded>(in); }

cudaError_t FusedLayer(const FusedLayerArgs& args, cudaStream_t stream) {
  Arguments a = {};
  a.norm = args.norm;
  a.rows = args.norm.rows / args.heads;
  const Operands o = {args.in,         args.x,      args.x_stride,      args.x_head_stride,
                      args.heads,      args.weight, args.weight_stride, args.weight_head_stride,
                      args.norm.width, args.heads,  args.leaves_room};
  if (args.norm.width == 256) {
    return args.norm.simnorm ? StartLayer<2, Output::kSimNorm>(a, o, stream)
                             : StartLayer<2, Output::kMish>(a, o, stream);
  } else {
    return args.norm.simnorm ? StartLayer<4, Output::kSimNorm>(a, o, stream)
                             : StartLayer<4, Output::kMish>(a, o, stream);
  }
}

cudaError_t FusedDecode(const FusedDecodeArgs& args, cudaStream_t stream) {
  Arguments a = {};
  a.decode = args.decode;
  a.rows = args.decode.rows;
  return StartLayer<1, Output::kDecoded>(
      a,
      {args.in, args.x, args.x_stride, args.x_term_stride, args.decode.terms, args.weight,
       args.weight_stride, 0, args.weight_rows, 1, args.leaves_room},
      stream);
}

}  // namespace pompc
