# Sets QSHARD_HAS_CUDNN and where cuDNN's header, its header-only frontend and its library are. The library is opened when it
# is first used. Without them attention has its own kernels only.
set(QSHARD_HAS_CUDNN OFF)
if(QSHARD_HAS_CUDA)
  file(GLOB QSHARD_PYTHON_PACKAGES ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages)
  find_path(QSHARD_CUDNN_INCLUDE_DIR cudnn_version.h
    HINTS ${CUDAToolkit_INCLUDE_DIRS} ${QSHARD_PYTHON_PACKAGES} PATH_SUFFIXES nvidia/cudnn/include)
  find_path(QSHARD_CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${QSHARD_PYTHON_PACKAGES} PATH_SUFFIXES include)
  find_library(QSHARD_CUDNN_LIBRARY NAMES libcudnn.so.9 cudnn
    HINTS ${CUDAToolkit_LIBRARY_DIR} ${QSHARD_PYTHON_PACKAGES} PATH_SUFFIXES nvidia/cudnn/lib)
  if(QSHARD_CUDNN_INCLUDE_DIR AND QSHARD_CUDNN_FRONTEND_INCLUDE_DIR AND QSHARD_CUDNN_LIBRARY)
    set(QSHARD_HAS_CUDNN ON)
  endif()
endif()
message(STATUS "attention by cuDNN: ${QSHARD_HAS_CUDNN}")
