#define POMPC_KERNEL_NAMESPACE kernels_avx2
#define POMPC_KERNEL_NAME "AVX2"
#define POMPC_VECTOR 8
#include "common/model/kernels_impl.inc"
