#define POMPC_KERNEL_NAMESPACE kernels_amx
#define POMPC_KERNEL_NAME "AMX"
#define POMPC_VECTOR 16
#include "common/model/kernels_impl.inc"
