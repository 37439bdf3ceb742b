#pragma once

#include <cstddef>
#include <span>

namespace qshard {

/// Brings mapped bytes of a file into memory, so that whoever reads them next waits for no disk and for no page. Hides
/// errors, which the reader will meet; does nothing on Linux before 5.14.
void read_ahead(std::span<const std::byte> mapped);

}  // namespace qshard
