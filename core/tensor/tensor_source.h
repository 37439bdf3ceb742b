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

  /// Those that begin with `prefix`, in ascending order; takes time by their number, not by that of all names.
  [[nodiscard]] virtual std::vector<std::string> names_with_prefix(std::string_view prefix) const = 0;

  /// The file (or, for a name that is nowhere, the directory) to name in messages about the tensor.
  [[nodiscard]] virtual const std::filesystem::path& file_of(std::string_view name) const = 0;

 protected:
  TensorSource() = default;
  TensorSource(const TensorSource&) = default;
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(const TensorSource&) = default;
  TensorSource& operator=(TensorSource&&) = default;
};

/// The keys of a map that begin with `prefix`, for names_with_prefix().
template <typename Map>
std::vector<std::string> keys_with_prefix(const Map& map, std::string_view prefix) {
  std::vector<std::string> keys;
  for (auto item = map.lower_bound(prefix); item != map.end() && item->first.starts_with(prefix); ++item) {
    keys.push_back(item->first);
  }
  return keys;
}

}  // namespace qshard
