// Checks the exercise pack_codes: fails while its gap is open. EXERCISE is the file with the gap, or the solution.
#include EXERCISE
#include "reference/exercises/checking.h"

int main() {
  using namespace qshard;
  const std::vector<std::uint8_t> codes = {1, 15, 0, 7, 9};
  const std::vector<std::uint8_t> expected = {0x1F, 0x07, 0x90};
  return compare("packed bytes of the codes 1 15 0 7 9", pack_codes(codes), expected);
}
