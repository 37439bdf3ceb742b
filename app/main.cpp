#include <fmt/core.h>

int main() {
  fmt::print("qshard {}\n", QSHARD_VERSION);
  return 0;
}
