#define POMPC_KERNEL_NAMESPACE kernels_base
#define POMPC_KERNEL_NAME "baseline"
#define POMPC_VECTOR 4
#include "common/model/kernels_impl.inc"
