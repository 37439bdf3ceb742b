# One interface target, qshard_options, carries the flags that every room compiles with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

find_program(QSHARD_CCACHE ccache)
if(QSHARD_CCACHE)
  foreach(language CXX CUDA)
    if(NOT CMAKE_${language}_COMPILER_LAUNCHER)
      set(CMAKE_${language}_COMPILER_LAUNCHER ${QSHARD_CCACHE})
    endif()
  endforeach()
endif()

# A fixed instruction set, not "native": results and instruction counts are then the same on every machine that runs it.
set(QSHARD_MARCH "" CACHE STRING "Value of -march; empty: x86-64-v3 on x86-64, the compiler's default elsewhere")
if(NOT QSHARD_MARCH AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(QSHARD_MARCH x86-64-v3)
endif()

add_library(qshard_options INTERFACE)
target_include_directories(qshard_options INTERFACE ${PROJECT_SOURCE_DIR})
# -ffp-contract=off: a product and a sum are two roundings unless the source says fma; the bitwise contract depends on it.
target_compile_options(qshard_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror -ffp-contract=off>)
if(QSHARD_MARCH)
  target_compile_options(qshard_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=${QSHARD_MARCH}>)
endif()
if(QSHARD_SANITIZE)
  target_compile_options(qshard_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${QSHARD_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(qshard_options INTERFACE -fsanitize=${QSHARD_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # with a sanitizer GCC 12 warns of uninitialized values inside <regex>
    target_compile_options(qshard_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>)
  endif()
endif()
