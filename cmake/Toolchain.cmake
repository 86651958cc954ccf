# Language level, warnings, compiler cache, sanitizers and run paths, for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")

# Every floating-point expression is rounded as written: environments are bit-exact against their
# oracle only so (no FMA contraction). Kernels that want FMA ask for it with intrinsics.
# Designated initialisers leave fields at their declared defaults on purpose.
add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -Werror -ffp-contract=off -fno-omit-frame-pointer)

find_program(POMPC_CCACHE ccache)
if(POMPC_CCACHE)
  # pch_defines and time_macros: without them ccache refuses every unit that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${POMPC_CCACHE})
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
else()
  # A clang build checks the locking annotations, which g++ ignores.
  add_compile_options(-Wthread-safety -Wno-unused-command-line-argument)
endif()
add_link_options(-fuse-ld=lld)

if(POMPC_SANITIZE)
  # -O1: more optimisation takes g++ much longer here and makes reports harder to read. g++ sees
  # uninitialised variables that are none once it has added its checks.
  add_compile_options(-O1 -fsanitize=${POMPC_SANITIZE} -fno-sanitize-recover=all
    -Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${POMPC_SANITIZE})
endif()

# DT_RPATH rather than DT_RUNPATH, because libtorch_cpu finds its own libraries through it too.
add_link_options(-Wl,--disable-new-dtags -Wl,--as-needed)
