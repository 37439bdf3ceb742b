// A whole safetensors file with bitsandbytes 4-bit weights: either refused, or each weight's parts fit each other.
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "core/formats/bnb_checkpoint.h"
#include "core/formats/safetensors.h"
#include "correctness/fuzz/fuzzing.h"

namespace {

/// The input as a file in memory with a path.
class MemoryFile {
 public:
  MemoryFile(const std::uint8_t* data, std::size_t size) : descriptor_(::memfd_create("input", MFD_CLOEXEC)) {
    qshard::fuzz::require(descriptor_ >= 0 && ::write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(descriptor_); }
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qshard;
  const MemoryFile input(data, size);
  fuzz::expect_handled([&] {
    const SafetensorsFile file = SafetensorsFile::open(input.path());
    for (const std::string& name : file.names()) {
      if (!has_weight4bit(file, name)) continue;
      fuzz::expect_handled([&] { check_consistent(read_weight4bit(file, name).view(), name); });
    }
  });
  return 0;
}
