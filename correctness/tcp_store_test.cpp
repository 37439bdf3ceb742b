#include "core/launch/tcp_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "correctness/torch_store.h"

namespace qshard {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

SteadyTime in(int time) {
  return std::chrono::steady_clock::now() + milliseconds(time);
}

TEST(TcpStore, GivesWhatAnotherClientSets) {
  TorchStore server;
  TcpStore writer = TcpStore::connect({"127.0.0.1", server.port(), ""}, in(5000));
  TcpStore reader = TcpStore::connect({"127.0.0.1", server.port(), ""}, in(5000));
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(100));
    writer.set("/qshard/key", std::string("va\0lue", 6));
  });
  EXPECT_EQ(reader.wait_and_get("/qshard/key", in(5000)), std::string("va\0lue", 6));
  later.join();
  EXPECT_EQ(writer.wait_and_get("/qshard/key", in(5000)).size(), 6U);
}

TEST(TcpStore, AKeyThatNeverComesIsAnError) {
  TorchStore server;
  TcpStore store = TcpStore::connect({"127.0.0.1", server.port(), ""}, in(5000));
  EXPECT_THAT([&] { store.wait_and_get("missing", in(100)); },
              testing::ThrowsMessage<Error>(HasSubstr("gives no answer")));
}

TEST(TcpStore, ASomethingElseIsNotTakenForAStore) {
  const Socket silent = listen_at({"127.0.0.1", 0, ""});
  EXPECT_THAT(
      [&] {
        TcpStore::connect({"127.0.0.1", listening_port(silent), ""}, in(300));
      },
      testing::ThrowsMessage<Error>(HasSubstr("does not answer as the store of torchrun does")));
}

}  // namespace
}  // namespace qshard
