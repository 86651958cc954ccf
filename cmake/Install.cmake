# `cmake --install` gives a relocatable tree: bin/ (programs), lib/ (the wheels' libraries),
# share/pompc/ (presets, task models, published returns, Slurm's scripts). Programs find lib/ and share/ relative to themselves; what
# deploy/setup/packages.txt installs (gRPC, protobuf, Abseil, ...) stays the system's.
get_property(binaries GLOBAL PROPERTY POMPC_BINARIES)
set_target_properties(${binaries} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
# `--component servers`: the programs that need nothing of lib/ and share/.
set(servers pompc-relay pompc-replay)
list(REMOVE_ITEM binaries ${servers})
install(TARGETS ${binaries} RUNTIME DESTINATION bin)
install(TARGETS ${servers} RUNTIME DESTINATION bin COMPONENT servers)

set(libraries ${torch_lib}/libc10.so ${torch_lib}/libtorch_cpu.so ${torch_lib}/libgomp.so.1
  ${cuda_lib}/libcudart.so.13 ${cuda_lib}/libcupti.so.13 ${wheels}/mujoco/libmujoco.so.4.0.0)
if(POMPC_CUDA)
  list(APPEND libraries ${torch_lib}/libc10_cuda.so ${torch_lib}/libtorch_cuda.so
    ${torch_lib}/libtorch_nvshmem.so
    # These two are opened when first needed: linear algebra, kernels compiled at run time.
    ${torch_lib}/libtorch_cuda_linalg.so ${torch_lib}/libcaffe2_nvrtc.so)
  # NVIDIA's libraries are 3 GB, and machines with a GPU often have them: then LD_LIBRARY_PATH says
  # where. `cmake --install ... --component cuda_libraries` puts those of setup.sh --cuda into lib/.
  foreach(part cu13 cudnn cusparselt nccl nvshmem)
    install(DIRECTORY ${wheels}/nvidia/${part}/lib/ DESTINATION lib COMPONENT cuda_libraries
      EXCLUDE_FROM_ALL FILES_MATCHING PATTERN "*.so.*")
  endforeach()
endif()
install(FILES ${libraries} DESTINATION lib)
install(DIRECTORY deploy/slurm/ DESTINATION share/pompc/slurm)
install(DIRECTORY configs/ DESTINATION share/pompc/configs FILES_MATCHING PATTERN "*.textproto")
install(FILES docs/results/published-returns.csv DESTINATION share/pompc)
install(DIRECTORY deploy/prometheus/ DESTINATION share/pompc/prometheus)
install(DIRECTORY ${POMPC_DM_CONTROL}/suite/ DESTINATION share/pompc/dm_control/suite
  FILES_MATCHING PATTERN "*.xml" PATTERN "*.stl" PATTERN "*.skn" PATTERN "*.png"
  PATTERN "demos" EXCLUDE PATTERN "__pycache__" EXCLUDE)
