#include "core/base/progress.h"

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/file.h"

namespace qshard {
namespace {

constexpr std::size_t kDefaultColumns = 80;

std::size_t terminal_columns(std::FILE* out) {
  winsize size{};
  const bool known = ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col : kDefaultColumns;
}

}  // namespace

Progress::Progress(std::FILE* out) : out_(out), live_(out != nullptr && isatty(fileno(out)) == 1) {}

Progress::~Progress() {
  clear();
}

void Progress::show(std::string_view text) {
  constexpr auto kInterval = std::chrono::milliseconds(100);
  const auto now = std::chrono::steady_clock::now();
  if (!live_ || (shown_ && now - last_ < kInterval)) return;
  // Cut to the width: a line that wraps could not be replaced.
  const std::string_view cut = text.substr(0, terminal_columns(out_) - 1);
  std::fputs("\r\x1b[K", out_);
  std::fwrite(cut.data(), 1, cut.size(), out_);
  std::fflush(out_);
  shown_ = true;
  last_ = now;
}

void Progress::print(std::string_view text) {
  if (out_ == nullptr) return;
  clear();
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), out_) == text.size() && std::fputc('\n', out_) != EOF;
  if (!written || std::fflush(out_) != 0) {
    const int error = errno;
    std::clearerr(out_);
    fail_to_write("standard output", error);
  }
}

void Progress::clear() {
  if (shown_) std::fputs("\r\x1b[K", out_);
  shown_ = false;
}

std::string format_duration(double seconds) {
  constexpr std::int64_t kMinutes = 60;
  if (!(seconds >= 0)) return "unknown";
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < kMinutes) return fmt::format("{} s", whole);
  const std::int64_t minutes = whole / kMinutes;
  if (minutes < kMinutes) return fmt::format("{} min {:02} s", minutes, whole % kMinutes);
  return fmt::format("{} h {:02} min", minutes / kMinutes, minutes % kMinutes);
}

std::string format_bytes(double bytes) {
  constexpr double kStep = 1024;
  constexpr std::array<std::string_view, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= kStep && unit + 1 < kUnits.size()) {
    bytes /= kStep;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

double process_peak_bytes() {
  rusage usage{};
  constexpr double kKibibyte = 1024;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<double>(usage.ru_maxrss) * kKibibyte : 0.0;
}

double process_own_bytes() {
  std::ifstream status("/proc/self/status");
  constexpr std::string_view kKey = "RssAnon:";
  constexpr double kKibibyte = 1024;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kKey)) return std::strtod(line.c_str() + kKey.size(), nullptr) * kKibibyte;
  }
  return 0;
}

}  // namespace qshard
