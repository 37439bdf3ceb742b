"""Comments and function heads of C++ texts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cpp_text import code_of, functions

HEADER = """
// void commented(int a);
#include "a.h"
namespace q {
[[nodiscard]] bool supports(const Problem& problem);
void run(const Problem& problem,
         int (*call)(int), int last = 3);
inline int twice(int a) {
  return plain(a);
}
template <typename T>
void launch(T value) noexcept;
struct Task {
  int member(int a);
};
constexpr int kValue = make(3);
}  // namespace q
"""


def test_functions_at_a_namespaces_level():
    declared, defined = functions(HEADER)
    assert declared == {"supports", "run", "launch"}
    assert defined == {"twice"}


def test_code_is_what_a_compiler_reads():
    assert code_of("int a;  // one\n\n/* two\n lines */ int b;\n") == "int a; int b;"
    assert code_of('print("// no comment");') == 'print("// no comment");'
    assert code_of(r"char c = '\"'; // one") == r"char c = '\"';"
    assert code_of("n = 1'000'000; // one") == "n = 1'000'000;"
