#include "core/launch/rank_link.h"

#include <chrono>
#include <mutex>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/launch/socket.h"
#include "correctness/forked_ranks.h"
#include "correctness/ranks_as_threads.h"

namespace qshard {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

std::vector<std::byte> random_bytes(unsigned seed, std::size_t size) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator());
  return bytes;
}

void expect(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

void expect_no_errors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST(RankLink, OneRankNeedsNobody) {
  RankLink link = RankLink::connect({}, {});
  link.barrier();
  const auto bytes = random_bytes(1, 10);
  EXPECT_EQ(link.all_gather(bytes), (std::vector<std::vector<std::byte>>{bytes}));
  EXPECT_EQ(link.broadcast(bytes, 0), bytes);
  EXPECT_FALSE(link.any(false));
  EXPECT_TRUE(link.any(true));
  EXPECT_FALSE(link.failure().has_value());
  EXPECT_EQ(link.ranks().size(), 1U);
}

TEST(RankLink, GathersBytesOfAnyLengthInRankOrder) {
  expect_no_errors(run_ranks_as_threads(5, [](RankLink& link) {
    for (const std::size_t unit : {0UL, 1UL, 300'000UL}) {
      const auto rank = static_cast<unsigned>(link.rank());
      const auto all = link.all_gather(random_bytes(rank, unit * rank));
      for (unsigned from = 0; from < 5; ++from) expect(all[from] == random_bytes(from, unit * from), "all_gather");
    }
  }));
}

TEST(RankLink, BroadcastsFromAnyRank) {
  expect_no_errors(run_ranks_as_threads(3, [](RankLink& link) {
    for (int root = 0; root < 3; ++root) {
      const auto mine = random_bytes(static_cast<unsigned>(link.rank()), 1000);
      expect(link.broadcast(mine, root) == random_bytes(static_cast<unsigned>(root), 1000), "broadcast");
    }
  }));
}

// 4 MiB each way at once: more than any socket holds, so that ranks which sent before they received would never end.
TEST(RankLink, ExchangesLargeBuffersBothWays) {
  expect_no_errors(run_ranks_as_threads(3, [](RankLink& link) {
    constexpr std::size_t kSize = 4 << 20;
    const auto seed = [](int from, int to) { return static_cast<unsigned>(from * 10 + to); };
    std::vector<std::vector<std::byte>> sent(3);
    std::vector<std::vector<std::byte>> received(3, std::vector<std::byte>(kSize, std::byte{0xAA}));
    std::vector<Outgoing> outgoing;
    std::vector<Incoming> incoming;
    for (int peer = 0; peer < 3; ++peer) {
      if (peer == link.rank()) continue;
      const auto at = static_cast<std::size_t>(peer);
      sent[at] = random_bytes(seed(link.rank(), peer), kSize);
      outgoing.push_back({peer, sent[at]});
      incoming.push_back({peer, received[at]});
    }
    link.exchange(outgoing, incoming);
    for (int peer = 0; peer < 3; ++peer) {
      if (peer == link.rank()) continue;
      expect(received[static_cast<std::size_t>(peer)] == random_bytes(seed(peer, link.rank()), kSize), "exchange");
    }
  }));
}

TEST(RankLink, AFlagOfOneRankIsSeenByAll) {
  expect_no_errors(run_ranks_as_threads(3, [](RankLink& link) {
    expect(!link.any(false), "none");
    expect(link.any(link.rank() == 2), "one");
  }));
}

TEST(RankLink, CountsTheRanksOfAHost) {
  expect_no_errors(run_ranks_as_threads(3, [](RankLink& link) {
    expect(link.local_rank() == link.rank() && link.local_world_size() == 3, "local");
    expect(link.ranks()[2].pid == ::getpid(), "pid");
  }));
}

TEST(RankLink, MeetsOverTcp) {
  const int port = listening_port(listen_at({"127.0.0.1", 0, ""}));  // free just now
  std::vector<std::string> errors(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        RankInfo info = local_rank_info(rank, 3, "job");
        info.rendezvous = Rendezvous::tcp;
        info.address = "127.0.0.1";
        info.port = port;
        RankLink link = RankLink::connect(info, thread_options());
        const auto all = link.all_gather(random_bytes(static_cast<unsigned>(rank), 5));
        for (unsigned from = 0; from < 3; ++from) expect(all[from] == random_bytes(from, 5), "all_gather");
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
    if (rank > 0) continue;
    // Something else that connects and talks nonsense is not counted.
    const auto soon = steady_clock::now() + milliseconds(10'000);
    const Socket stranger = connect_to({"127.0.0.1", port, ""}, soon);
    send_all(stranger, random_bytes(9, 100), soon);
  }
  for (std::thread& thread : threads) thread.join();
  expect_no_errors(errors);
}

TEST(RankLink, AnErrorOfOneRankEndsAllWithItsMessage) {
  const auto errors = run_ranks_as_threads(3, [](RankLink& link) {
    if (link.rank() == 1) fail_input("the third row is bad");
    link.barrier();
  });
  EXPECT_EQ(errors[1], "the third row is bad");
  for (const int rank : {0, 2}) {
    EXPECT_THAT(errors[static_cast<std::size_t>(rank)], HasSubstr("rank 1 (process "));
    EXPECT_THAT(errors[static_cast<std::size_t>(rank)], HasSubstr("the third row is bad"));
  }
}

TEST(RankLink, TheCodeOfAnErrorTravelsToo) {
  run_ranks_as_threads(2, [](RankLink& link) {
    if (link.rank() == 1) fail(ExitCode::out_of_resources, "full");
    try {
      link.barrier();
      ADD_FAILURE() << "the barrier ended";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::out_of_resources);
    }
  });
}

TEST(RankLink, RanksOutOfStepAreTold) {
  const auto errors = run_ranks_as_threads(2, [](RankLink& link) {
    if (link.rank() == 0) link.barrier();
    if (link.rank() == 1) link.all_gather({});
  });
  EXPECT_THAT(errors[0] + errors[1], HasSubstr("out of step"));
}

TEST(RankLink, AnExchangeOfOtherSizesIsRefused) {
  const auto errors = run_ranks_as_threads(2, [](RankLink& link) {
    std::vector<std::byte> buffer(link.rank() == 0 ? 4 : 5);
    const Outgoing out{1 - link.rank(), buffer};
    std::vector<std::byte> room(buffer.size());
    const Incoming in{1 - link.rank(), room};
    link.exchange(std::span(&out, 1), std::span(&in, 1));
  });
  EXPECT_THAT(errors[0] + errors[1], HasSubstr("out of step"));
}

TEST(RankLink, ARankThatLeavesWhileOthersWaitIsAnError) {
  const auto errors = run_ranks_as_threads(2, [](RankLink& link) {
    if (link.rank() == 0) link.barrier();
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 1 ended its work while rank 0 still waits for it"));
}

TEST(RankLink, NamesTheRanksThatDoNotCome) {
  RankLinkOptions options = thread_options();
  options.connect_timeout = milliseconds(300);
  const std::string job = unique_job();
  try {
    RankLink::connect(local_rank_info(0, 3, job), options);
    FAIL() << "it connected to nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::rank_failed);
    EXPECT_THAT(error.what(), HasSubstr("waited in vain for ranks 1, 2"));
  }
  try {
    RankLink::connect(local_rank_info(1, 3, job), options);
    FAIL() << "it connected to nobody";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot connect to the local socket"));
  }
}

/// Connects three processes of which the last is as given; returns what each threw.
std::vector<std::string> connect_with(const std::function<void(RankInfo&, RankLinkOptions&)>& change_last) {
  const std::string job = unique_job();
  std::vector<std::string> errors(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      RankInfo info = local_rank_info(rank, 3, job);
      RankLinkOptions options = thread_options();
      options.connect_timeout = milliseconds(5000);
      if (rank == 2) change_last(info, options);
      try {
        RankLink::connect(info, options);
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

TEST(RankLink, OtherVersionsAreRefusedOnAllRanks) {
  for (const std::string& error : connect_with([](auto&, auto& options) { options.version = "other"; })) {
    EXPECT_THAT(error, HasSubstr("runs version other, but rank 0 runs test"));
  }
}

TEST(RankLink, OtherWorldSizesAreRefusedOnAllRanks) {
  for (const std::string& error : connect_with([](RankInfo&info, auto&) { info.world_size = 4; })) {
    EXPECT_THAT(error, HasSubstr("counts 4 ranks, but rank 0 counts 3"));
  }
}

TEST(RankLink, TwoClaimsOfOneRankAreRefused) {
  for (const std::string& error : connect_with([](RankInfo&info, auto&) { info.rank = 1; })) {
    EXPECT_THAT(error, HasSubstr("two processes claim rank 1"));
  }
}

TEST(RankLink, TwoClaimsOfRankZeroAreRefused) {
  const auto errors = connect_with([](RankInfo& info, auto&) { info.rank = 0; });
  EXPECT_TRUE((errors[0] + errors[2]).find("cannot listen at") != std::string::npos) << errors[0] << errors[2];
}

TEST(RankLink, TwoJobsSideBySideDoNotMix) {
  std::vector<std::string> first;
  std::thread other([&] { first = run_ranks_as_threads(3, [](RankLink& link) { link.barrier(); }); });
  expect_no_errors(run_ranks_as_threads(3, [](RankLink& link) { link.barrier(); }));
  other.join();
  expect_no_errors(first);
}

RankLinkOptions process_options() {
  RankLinkOptions options = thread_options();
  options.end_process = true;
  return options;
}

TEST(RankLink, AKilledRankEndsTheOthersWithNumberAndReason) {
  ForkedRanks ranks(3, process_options(), [](RankLink& link) {
    link.set_activity("step 7");
    link.barrier();
    if (link.rank() == 1) ::usleep(300'000);
    if (link.rank() == 1) ::raise(SIGKILL);
    link.barrier();
  });
  const auto begin = steady_clock::now();
  EXPECT_EQ(ranks.wait(1), 128 + SIGKILL);
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ranks.wait(rank), 4);
    const std::string error = ranks.error(rank);
    EXPECT_THAT(error, HasSubstr("rank 1 (process "));
    EXPECT_THAT(error, HasSubstr("ended during step 7"));
  }
  EXPECT_LT(steady_clock::now() - begin, milliseconds(5000));
}

// The main thread of the survivors hangs where no exception reaches it, as in a call of a GPU's driver.
TEST(RankLink, AHangingMainThreadIsEnded) {
  ForkedRanks ranks(2, process_options(), [](RankLink& link) {
    link.barrier();
    if (link.rank() == 1) ::raise(SIGKILL);
    while (true) ::pause();
  });
  const auto begin = steady_clock::now();
  EXPECT_EQ(ranks.wait(0), 4);
  EXPECT_THAT(ranks.error(0), HasSubstr("rank 1 (process "));
  EXPECT_LT(steady_clock::now() - begin, milliseconds(6000));
}

TEST(RankLink, ASilentRankCountsAsDead) {
  RankLinkOptions options = process_options();
  options.silence_limit = milliseconds(2000);
  options.heartbeat_interval = milliseconds(200);
  ForkedRanks ranks(2, options, [](RankLink& link) {
    link.barrier();
    if (link.rank() == 1) ::raise(SIGSTOP);
    link.barrier();
  });
  EXPECT_EQ(ranks.wait(0), 4);
  EXPECT_THAT(ranks.error(0), HasSubstr("has given no sign of life for 2 s"));
  ranks.kill(1, SIGCONT);
  EXPECT_EQ(ranks.wait(1), 4);
}

// All ranks are stopped for longer than the silence limit and go on: nobody is taken for dead.
TEST(RankLink, AJobThatIsStoppedAndContinuedGoesOn) {
  RankLinkOptions options = process_options();
  options.silence_limit = milliseconds(2000);
  options.heartbeat_interval = milliseconds(200);
  ForkedRanks ranks(2, options, [](RankLink& link) {
    for (int i = 0; i < 30; ++i) {
      link.barrier();
      ::usleep(50'000);
    }
  });
  ::usleep(600'000);
  for (const int rank : {0, 1}) ranks.kill(rank, SIGSTOP);
  ::usleep(3'000'000);
  for (const int rank : {0, 1}) ranks.kill(rank, SIGCONT);
  for (const int rank : {0, 1}) EXPECT_EQ(ranks.wait(rank), 0) << ranks.error(rank);
}

}  // namespace
}  // namespace qshard
