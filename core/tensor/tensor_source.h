#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace qshard {

/// Named tensors in files: one safetensors file, or a whole checkpoint.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  /// Valid as long as this object. Throws Error(bad_input), naming file and tensor, for a name that is not there and
  /// for a dtype that DType lacks.
  [[nodiscard]] virtual TensorView tensor(std::string_view name) const = 0;
  [[nodiscard]] virtual bool contains(std::string_view name) const = 0;

  /// In the order of their bytes in the file, and of the files' names.
  [[nodiscard]] virtual const std::vector<std::string>& names() const = 0;

  /// The file (or, for a name that is nowhere, the directory) to name in messages about the tensor.
  [[nodiscard]] virtual const std::filesystem::path& file_of(std::string_view name) const = 0;

 protected:
  TensorSource() = default;
  TensorSource(const TensorSource&) = default;
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(const TensorSource&) = default;
  TensorSource& operator=(TensorSource&&) = default;
};

}  // namespace qshard
