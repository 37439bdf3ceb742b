#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/atomic_file.h"
#include "core/base/file.h"
#include "core/tensor/tensor_source.h"

namespace qshard {

/// The header of a safetensors file: 8 bytes of little-endian length, then that many bytes of JSON, then the data.
struct SafetensorsHeader {
  struct Entry {
    std::string dtype;  // as the file names it; any of the format, also those that DType lacks
    Shape shape;
    std::size_t begin = 0;  // in the whole file
    std::size_t end = 0;
  };
  std::vector<std::string> names;  // in the order of their bytes in the file
  std::map<std::string, Entry, std::less<>> entries;
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

/// Reads and checks the header of a whole file's bytes: lengths, JSON, repeated names, dtypes, shapes, and that the
/// tensors fill the data without gap, overlap or rest. `where` names the file. Throws Error(bad_input) that names file
/// and tensor.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view where);

/// A safetensors file, mapped: a tensor's pages are read when they are touched.
class SafetensorsFile : public TensorSource {
 public:
  /// Throws Error(bad_input) for a file that cannot be read or is not valid.
  static SafetensorsFile open(const std::filesystem::path& path);

  [[nodiscard]] TensorView tensor(std::string_view name) const override;
  [[nodiscard]] bool contains(std::string_view name) const override { return header_.entries.contains(name); }
  [[nodiscard]] const std::vector<std::string>& names() const override { return header_.names; }
  [[nodiscard]] std::vector<std::string> names_with_prefix(std::string_view prefix) const override {
    return keys_with_prefix(header_.entries, prefix);
  }
  [[nodiscard]] const std::filesystem::path& file_of(std::string_view /*name*/) const override { return path_; }

  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// The whole file, header included.
  [[nodiscard]] std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  SafetensorsFile(std::filesystem::path path, MappedFile file, SafetensorsHeader header)
      : path_(std::move(path)), file_(std::move(file)), header_(std::move(header)) {}

  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsHeader header_;
};

/// Writes a safetensors file through AtomicFile, with the bytes that the safetensors library gives for the same
/// content: tensors by descending dtype, then by name; the header padded with spaces to a multiple of 8. (The library
/// leaves the order of metadata open; here it is ascending.) Streams: no copy of the data is made. Throws
/// Error(bad_input) for a repeated name, and the errors of AtomicFile.
void write_safetensors(const std::filesystem::path& path, std::vector<std::pair<std::string, TensorView>> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}},
                       Existing existing = Existing::replaced);

}  // namespace qshard
