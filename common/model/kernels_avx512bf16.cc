#define POMPC_KERNEL_NAMESPACE kernels_avx512bf16
#define POMPC_KERNEL_NAME "AVX-512 BF16"
#define POMPC_VECTOR 16
#include "common/model/kernels_impl.inc"
