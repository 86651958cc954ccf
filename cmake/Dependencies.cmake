# Every third-party library as one target. Versions: deploy/setup/{packages,requirements}.txt.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl REQUIRED)
find_package(prometheus-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(GTest REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(gRPC REQUIRED)
find_package(RocksDB REQUIRED)
find_program(POMPC_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
# gRPC's RE2 would add -pthread to whoever links it, and so make the precompiled header, which is
# built without, unusable there. With this glibc the flag does nothing else.
if(TARGET re2::re2)
  set_target_properties(re2::re2 PROPERTIES INTERFACE_COMPILE_OPTIONS "")
endif()

set(wheels "${POMPC_DEPS}/wheels")
if(NOT EXISTS "${wheels}/.installed")
  message(FATAL_ERROR "No wheels in ${wheels}. Run: deploy/setup/setup.sh (or: make setup)")
endif()

# Third-party include folders are SYSTEM, so that their warnings are not ours.
function(pompc_imported_library name location)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${location}")
endfunction()

# LibTorch by targets of our own: find_package(Torch) of the CUDA wheel would ask for a whole toolkit.
set(torch_lib "${wheels}/torch/lib")
set(cuda_lib "${wheels}/nvidia/cu13/lib")
set(POMPC_RUNTIME_PATHS "${torch_lib};${cuda_lib};${wheels}/mujoco")
pompc_imported_library(torch_c10 "${torch_lib}/libc10.so")
pompc_imported_library(torch_cpu "${torch_lib}/libtorch_cpu.so")
add_library(pompc_torch INTERFACE)
# The wheel carries headers of an older protobuf: Debian's must be found first.
list(GET Protobuf_INCLUDE_DIRS 0 protobuf_include)
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/before_torch")
file(CREATE_LINK "${protobuf_include}/google" "${CMAKE_BINARY_DIR}/before_torch/google" SYMBOLIC)
target_include_directories(pompc_torch SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/before_torch"
  "${wheels}/torch/include" "${wheels}/torch/include/torch/csrc/api/include")
target_link_libraries(pompc_torch INTERFACE torch_cpu torch_c10 Threads::Threads)
# libtorch_cpu needs libcudart and libcupti at link time of an executable, through -rpath-link only.
target_link_options(pompc_torch INTERFACE "-Wl,--allow-shlib-undefined"
  "-Wl,-rpath-link,${torch_lib}:${cuda_lib}")
if(POMPC_CUDA)
  pompc_imported_library(torch_c10_cuda "${torch_lib}/libc10_cuda.so")
  pompc_imported_library(torch_cuda "${torch_lib}/libtorch_cuda.so")
  pompc_imported_library(cudart "${cuda_lib}/libcudart.so.13")
  set(POMPC_NVCC "${wheels}/nvidia/cu13/bin/nvcc")
  set(nccl "${wheels}/nvidia/nccl")
  if(NOT EXISTS "${POMPC_NVCC}" OR NOT EXISTS "${nccl}/include/nccl.h")
    message(FATAL_ERROR "No CUDA compiler or no NCCL in ${wheels}. Run: deploy/setup/setup.sh --cuda-build")
  endif()
  pompc_imported_library(nccl "${nccl}/lib/libnccl.so.2")
  target_include_directories(nccl SYSTEM INTERFACE "${nccl}/include")
  list(APPEND POMPC_RUNTIME_PATHS "${nccl}/lib")
  target_include_directories(pompc_torch SYSTEM INTERFACE "${wheels}/nvidia/cu13/include")
  target_compile_definitions(pompc_torch INTERFACE POMPC_CUDA=1)
  # Nothing refers to libtorch_cuda by symbol alone: loading it is what registers the CUDA kernels.
  target_link_libraries(pompc_torch INTERFACE
    "-Wl,--no-as-needed" torch_cuda torch_c10_cuda "-Wl,--as-needed" cudart)
endif()

pompc_imported_library(mujoco_library "${wheels}/mujoco/libmujoco.so")
set_target_properties(mujoco_library PROPERTIES IMPORTED_SONAME libmujoco.so.4.0.0)
add_library(pompc_mujoco INTERFACE)
target_include_directories(pompc_mujoco SYSTEM INTERFACE "${wheels}/mujoco/include")
target_link_libraries(pompc_mujoco INTERFACE mujoco_library)
# dm_control's MJCF files, read at run time (see actor/env).
set(POMPC_DM_CONTROL "${wheels}/dm_control")
