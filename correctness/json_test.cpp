#include "core/base/json.h"

#include "correctness/expect_error.h"

namespace qshard {
namespace {

TEST(Json, TextThatIsNotOneJsonDocumentIsRefused) {
  for (const char* text : {"", "{", "{\"a\":}", "{} {}", "nan", "{\"a\": 01}", "\"\xFF\"", "{\"a\": \"\xC3\"}"}) {
    expect_bad_input({"file.json", "not valid JSON"}, [&] { parse_json(text, "file.json"); });
  }
}

TEST(Json, RepeatedKeysAreRefusedInEveryObject) {
  expect_bad_input({"f", "\"a\" appears twice"}, [] { parse_json(R"({"a": 1, "b": 2, "a": 1})", "f"); });
  expect_bad_input({"f", "\"a\" appears twice"}, [] { parse_json(R"([{"x": {"a": 1, "a": {}}}])", "f"); });
  EXPECT_EQ(parse_json(R"({"a": {"a": [{"a": 1}, {"a": 1}]}})", "f").size(), 1U);
}

TEST(Json, DeepNestingIsRefused) {
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "f"));
  expect_bad_input({"f", "64 levels"}, [] { parse_json(std::string(65, '[') + std::string(65, ']'), "f"); });
  expect_bad_input({"f", "64 levels"}, [] { parse_json(std::string(1'000'000, '['), "f"); });
}

// Expected texts: what CPython's json.dumps and repr print.
TEST(Json, PythonText) {
  const Json value = parse_json(R"({"b": [1, 2.0, null], "a": {"x": true}, "c": [], "d": {}, "e": "é\u0001\"/"})", "f");
  EXPECT_EQ(python_json(value), R"({"a": {"x": true}, "b": [1, 2.0, null], "c": [], "d": {}, "e": "\u00e9\u0001\"/"})");
  EXPECT_EQ(python_json(value, 2),
            "{\n  \"a\": {\n    \"x\": true\n  },\n  \"b\": [\n    1,\n    2.0,\n    null\n  ],\n  \"c\": [],\n"
            "  \"d\": {},\n  \"e\": \"\\u00e9\\u0001\\\"/\"\n}");
}

TEST(Json, BytesThatAreNotUtf8AreReplaced) {
  EXPECT_EQ(python_json({"a\xFFz"}), R"(["a\ufffdz"])");
  EXPECT_EQ(python_string("\xC3"), R"("\ufffd")");
}

TEST(Json, PythonFloats) {
  EXPECT_EQ(python_float(0.20803938806056976), "0.20803938806056976");
  EXPECT_EQ(python_float(static_cast<double>(0.1F)), "0.10000000149011612");
  EXPECT_EQ(python_float(0.0), "0.0");
  EXPECT_EQ(python_float(-0.0), "-0.0");
  EXPECT_EQ(python_float(10000.0), "10000.0");
  EXPECT_EQ(python_float(1e-4), "0.0001");
  EXPECT_EQ(python_float(1e-5), "1e-05");
  EXPECT_EQ(python_float(1.5e-10), "1.5e-10");
  EXPECT_EQ(python_float(9007199254740993.0), "9007199254740992.0");
  EXPECT_EQ(python_float(1e16), "1e+16");
  EXPECT_EQ(python_float(1e22), "1e+22");
  EXPECT_EQ(python_float(1.7976931348623157e308), "1.7976931348623157e+308");
  EXPECT_EQ(python_float(5e-324), "5e-324");
  EXPECT_EQ(python_float(1.0 / 0.0), "Infinity");
}

TEST(Json, FieldsOfAnotherTypeAreNamed) {
  const Json value = parse_json(
      R"({"i": 3, "big": 18446744073709551615, "f": 2.5, "s": "x", "n": null, "l": [1, "a"], "o": {"k": -1}})", "f");
  const JsonObject object(value, "f.json");
  EXPECT_EQ(object.integer("i"), 3);
  EXPECT_EQ(object.number("i"), 3.0);
  EXPECT_EQ(object.number("f"), 2.5);
  EXPECT_FALSE(object.has("n"));
  EXPECT_FALSE(object.has("none"));
  EXPECT_TRUE(object.has("i"));
  expect_bad_input({"f.json: none", "missing"}, [&] { (void)object.integer("none"); });
  expect_bad_input({"f.json: big", "integer"}, [&] { (void)object.integer("big"); });
  expect_bad_input({"f.json: f", "integer", "2.5"}, [&] { (void)object.integer("f"); });
  expect_bad_input({"f.json: i", "at least 4"}, [&] { (void)object.integer_at_least("i", 4); });
  expect_bad_input({"f.json: n", "number"}, [&] { (void)object.number("n"); });
  expect_bad_input({"f.json: s", "true or false"}, [&] { (void)object.boolean("s"); });
  expect_bad_input({"f.json: i", "string"}, [&] { (void)object.string("i"); });
  expect_bad_input({"f.json: l", "integers"}, [&] { (void)object.integers("l"); });
  expect_bad_input({"f.json: l", "strings"}, [&] { (void)object.strings("l"); });
  expect_bad_input({"f.json: o: k", "at least 0"}, [&] { (void)object.object("o").integer_at_least("k", 0); });
  expect_bad_input({"f.json: s", "object"}, [&] { (void)object.object("s"); });
  expect_bad_input({"f.json: o: k", "unknown"}, [&] { object.object("o").allow_only({"j"}); });
}

}  // namespace
}  // namespace qshard
