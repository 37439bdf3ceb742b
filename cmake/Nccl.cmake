# Sets QSHARD_NCCL_INCLUDE_DIR and QSHARD_NCCL_LIBRARY. Only the header is needed to compile; the library is opened when it
# is first used, so that a program runs on one GPU where there is none.
if(QSHARD_HAS_CUDA)
  file(GLOB QSHARD_PYTHON_PACKAGES ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages)
  find_path(QSHARD_NCCL_INCLUDE_DIR nccl.h
    HINTS ${CUDAToolkit_INCLUDE_DIRS} ${QSHARD_PYTHON_PACKAGES} PATH_SUFFIXES nvidia/nccl/include REQUIRED)
  find_library(QSHARD_NCCL_LIBRARY NAMES libnccl.so.2 nccl
    HINTS ${CUDAToolkit_LIBRARY_DIR} ${QSHARD_PYTHON_PACKAGES} PATH_SUFFIXES nvidia/nccl/lib REQUIRED)
endif()
