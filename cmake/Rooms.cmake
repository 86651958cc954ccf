# The three kinds of target in this repository. Include paths start at the repository root.
#
#   pompc_library(model SOURCES a.cc DEPS base TORCH)   -> target pompc_model
#   pompc_test(model_test SOURCES a_test.cc DEPS model)  -> ctest "model_test"
#   pompc_binary(pompc-actor SOURCES main.cc DEPS actor_loop)
#   pompc_cuda_sources(model kernels.cu)                 adds CUDA kernels to a library (cuda preset)
#
# DEPS without a target of that name but with pompc_<name> mean the latter. TORCH: compiles with the
# precompiled LibTorch header (common/model/tensor.h).

function(pompc_setup_target target)
  cmake_parse_arguments(arg "TORCH" "" "DEPS" ${ARGN})
  get_target_property(type ${target} TYPE)
  foreach(dep IN LISTS arg_DEPS)
    if(TARGET pompc_${dep})
      target_link_libraries(${target} PUBLIC pompc_${dep})
    else()
      target_link_libraries(${target} PUBLIC ${dep})
    endif()
  endforeach()
  target_include_directories(${target} PUBLIC "${CMAKE_SOURCE_DIR}")
  if(arg_TORCH)
    target_link_libraries(${target} PUBLIC pompc_torch)
    if(type STREQUAL "EXECUTABLE")
      target_precompile_headers(${target} REUSE_FROM pompc_torch_pch_exe)
    else()
      target_precompile_headers(${target} REUSE_FROM pompc_torch_pch)
    endif()
  endif()
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES BUILD_RPATH "${POMPC_RUNTIME_PATHS}")
    if(POMPC_SANITIZE MATCHES thread)
      target_link_libraries(${target} PRIVATE pompc_tsan_mutex)
    endif()
  endif()
endfunction()

function(pompc_library name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;DEPS" ${ARGN})
  if(arg_TORCH)
    set(torch TORCH)
  endif()
  add_library(pompc_${name} STATIC ${arg_SOURCES})
  pompc_setup_target(pompc_${name} DEPS ${arg_DEPS} ${torch})
endfunction()

# nvcc by a rule of our own: CMake's CUDA language would look for a whole toolkit. Machine code for
# Hopper; PTX, compiled when first loaded, for other GPUs from Ampere on. No LibTorch headers in .cu.
function(pompc_cuda_sources name)
  foreach(source IN LISTS ARGN)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${source}.o")
    set(input "${CMAKE_CURRENT_SOURCE_DIR}/${source}")
    add_custom_command(OUTPUT "${object}" DEPENDS "${input}" DEPFILE "${object}.d" VERBATIM
      COMMAND "${POMPC_NVCC}" -c "${input}" -o "${object}" -MD -MF "${object}.d" -MT "${object}"
        -std=c++20 -O3 -lineinfo -Xcompiler=-fPIC,-Wall "-I${CMAKE_SOURCE_DIR}"
        -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_80,code=compute_80
      COMMENT "Building CUDA object ${source}.o")
    target_sources(pompc_${name} PRIVATE "${object}")
  endforeach()
endfunction()

function(pompc_binary name)
  cmake_parse_arguments(arg "TORCH" "" "SOURCES;DEPS" ${ARGN})
  if(arg_TORCH)
    set(torch TORCH)
  endif()
  add_executable(${name} ${arg_SOURCES})
  pompc_setup_target(${name} DEPS ${arg_DEPS} CLI11::CLI11 ${torch})
  target_compile_definitions(${name} PRIVATE POMPC_VERSION="${PROJECT_VERSION}")
  # All in one folder, as in the installed tree: programs start each other as neighbours.
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  set_property(GLOBAL APPEND PROPERTY POMPC_BINARIES ${name})
endfunction()

set(POMPC_RUN_TEST "${CMAKE_SOURCE_DIR}/tests/in_own_folder.sh")
set(POMPC_LSAN "LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0")

function(pompc_test name)
  cmake_parse_arguments(arg "TORCH" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(arg_TORCH)
    set(torch TORCH)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  pompc_setup_target(${name} DEPS ${arg_DEPS} GTest::gtest GTest::gmock GTest::gtest_main ${torch})
  add_test(NAME ${name} COMMAND ${POMPC_RUN_TEST} $<TARGET_FILE:${name}> WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "OMP_NUM_THREADS=1;${POMPC_LSAN}")
endfunction()

# Runs a script as a test; the script sees POMPC_BUILD, the build folder.
function(pompc_script_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${POMPC_RUN_TEST} ${arg_COMMAND} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "POMPC_BUILD=${CMAKE_BINARY_DIR};${POMPC_LSAN}")
endfunction()
