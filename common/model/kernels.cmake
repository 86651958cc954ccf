# Hand-written CPU kernels: plain C++, no LibTorch. Compiled once for each instruction set and chosen
# at run time. FMA contraction is wanted here; -fopenmp-simd vectorises the marked reductions.
set(kernel_flags -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 takes the undefined operands of its own AVX-512 intrinsics for mistakes.
  list(APPEND kernel_flags -Wno-maybe-uninitialized)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Programs are built with g++, which vectorises them all; clang says where it does not.
  list(APPEND kernel_flags -Wno-pass-failed)
endif()
set(avx512_flags ${kernel_flags} -mavx2 -mfma -mavx512f -mavx512dq -mavx512vl -mavx512bw -mprefer-vector-width=512)
set_source_files_properties(kernels_amx.cc PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512bf16;-mamx-tile;-mamx-bf16")
set_source_files_properties(kernels_avx512bf16.cc PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512bf16")
set_source_files_properties(kernels_avx512.cc PROPERTIES COMPILE_OPTIONS "${avx512_flags}")
set_source_files_properties(kernels_avx2.cc PROPERTIES COMPILE_OPTIONS "${kernel_flags};-mavx2;-mfma")
set_source_files_properties(kernels_base.cc PROPERTIES COMPILE_OPTIONS "${kernel_flags}")
pompc_library(kernels SOURCES kernels.cc kernels_amx.cc kernels_avx512bf16.cc kernels_avx512.cc kernels_avx2.cc kernels_base.cc)
pompc_test(kernels_test SOURCES kernels_test.cc DEPS base kernels TORCH)

# Differentiable layers on those kernels.
if(POMPC_CUDA)
  set(gpu_layers gpu_layers_cuda.cc gpu_layers_linear.cc gpu_layers_policy.cc gpu_layers_two_hot.cc)
else()
  set(gpu_layers gpu_layers_none.cc)
endif()
pompc_library(fused_layers SOURCES branch.cc fused_layers.cc packed_mlp.cc ${gpu_layers} DEPS kernels TORCH)
if(POMPC_CUDA)
  pompc_cuda_sources(fused_layers gpu_kernels_buffers.cu gpu_kernels_layers.cu gpu_kernels_policy.cu
    gpu_kernels_reductions.cu gpu_kernels_two_hot.cu)
endif()
pompc_test(fused_layers_test SOURCES branch_test.cc fused_layers_test.cc DEPS fused_layers TORCH)
