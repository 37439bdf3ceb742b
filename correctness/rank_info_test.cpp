#include "core/launch/rank_info.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"

namespace qshard {
namespace {

using testing::HasSubstr;
using Environment = std::map<std::string, std::string, std::less<>>;

RankInfo read(const Environment& environment) {
  return read_rank_info([&](std::string_view name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    if (found == environment.end()) return std::nullopt;
    return found->second;
  });
}

std::string message(const Environment& environment) {
  try {
    read(environment);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_input);
    return error.what();
  }
  return "no error";
}

Environment with(Environment environment, const Environment& more) {
  for (const auto& [name, value] : more) environment[name] = value;
  return environment;
}

const Environment kTorchrun{{"RANK", "3"},
                            {"WORLD_SIZE", "4"},
                            {"LOCAL_RANK", "1"},
                            {"MASTER_ADDR", "gpu01"},
                            {"MASTER_PORT", "29500"},
                            {"TORCHELASTIC_RUN_ID", "run7"},
                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
const Environment kOpenMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                           {"OMPI_COMM_WORLD_SIZE", "3"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}};
const Environment kSlurm{{"SLURM_PROCID", "5"},  {"SLURM_NTASKS", "8"},      {"SLURM_LOCALID", "1"},
                         {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_ID", "123456"}, {"SLURM_NNODES", "2"}};

TEST(RankInfo, WithoutALauncherThereIsOneProcess) {
  const RankInfo info = read({{"WORLD_SIZE", "4"}, {"MASTER_ADDR", "gpu01"}});
  EXPECT_EQ(info.launcher, Launcher::none);
  EXPECT_EQ(info.world_size, 1);
  EXPECT_EQ(info.rendezvous, Rendezvous::none);
}

TEST(RankInfo, OwnLauncher) {
  const RankInfo info = read({{"QSHARD_RANK", "2"},
                              {"QSHARD_WORLD_SIZE", "3"},
                              {"QSHARD_LOCAL_RANK", "2"},
                              {"QSHARD_JOB", "77-abc"},
                              {"OMPI_COMM_WORLD_RANK", "0"},
                              {"OMPI_COMM_WORLD_SIZE", "1"}});
  EXPECT_EQ(info.launcher, Launcher::own);
  EXPECT_EQ(info.rank, 2);
  EXPECT_EQ(info.world_size, 3);
  EXPECT_EQ(info.local_rank, 2);
  EXPECT_EQ(info.rendezvous, Rendezvous::local_socket);
  EXPECT_EQ(info.job, "77-abc");
}

TEST(RankInfo, TorchrunWithTheAgentsStore) {
  const RankInfo info = read(kTorchrun);
  EXPECT_EQ(info.launcher, Launcher::torchrun);
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.world_size, 4);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.rendezvous, Rendezvous::tcp_store);
  EXPECT_EQ(info.address, "gpu01");
  EXPECT_EQ(info.port, 29500);
  EXPECT_EQ(info.job, "run7/2");
}

TEST(RankInfo, TorchrunWithoutTheAgentsStore) {
  EXPECT_EQ(read(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).rendezvous, Rendezvous::tcp);
}

TEST(RankInfo, TorchrunWithinSrunIsTheInnerOne) {
  EXPECT_EQ(read(with(kSlurm, kTorchrun)).launcher, Launcher::torchrun);
  EXPECT_EQ(read(with(kSlurm, kTorchrun)).rank, 3);
}

TEST(RankInfo, MpirunOnOneHostMeetsAtALocalSocket) {
  const RankInfo info = read(with(kOpenMpi, {{"PMIX_NAMESPACE", "prterun-x@1"}}));
  EXPECT_EQ(info.launcher, Launcher::open_mpi);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.world_size, 3);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.rendezvous, Rendezvous::local_socket);
  EXPECT_EQ(info.job, "prterun-x@1");
  EXPECT_THAT(read(kOpenMpi).job, HasSubstr("parent-"));
}

TEST(RankInfo, MpirunOnSeveralHostsNeedsAnAddress) {
  const Environment several = with(kOpenMpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_THAT(message(several), HasSubstr("MASTER_ADDR=<host of rank 0>"));
  const RankInfo info = read(with(several, {{"MASTER_ADDR", "a"}, {"MASTER_PORT", "5000"}}));
  EXPECT_EQ(info.rendezvous, Rendezvous::tcp);
  EXPECT_EQ(info.port, 5000);
}

TEST(RankInfo, Mpich) {
  const Environment mpich{{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
  const RankInfo info = read(mpich);
  EXPECT_EQ(info.launcher, Launcher::mpich);
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_THAT(message(with(mpich, {{"MPI_LOCALNRANKS", "1"}})), HasSubstr("-genv MASTER_ADDR"));
}

TEST(RankInfo, SrunOnSeveralHostsMeetsAtTheFirstHost) {
  const RankInfo info = read(with(kSlurm, {{"SLURM_STEP_NODELIST", "gpu[07-08,12],cpu1"}}));
  EXPECT_EQ(info.launcher, Launcher::slurm);
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.world_size, 8);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.rendezvous, Rendezvous::tcp);
  EXPECT_EQ(info.address, "gpu07");
  EXPECT_EQ(info.port, 20000 + 3456);
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_STEP_NODELIST", "one,two"}})).address, "one");
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_STEP_NODELIST", "n[3]"}})).address, "n3");
  EXPECT_THAT(message(kSlurm), HasSubstr("SLURM_STEP_NODELIST"));
}

TEST(RankInfo, SrunOnOneHostMeetsAtALocalSocket) {
  const RankInfo info = read(with(kSlurm, {{"SLURM_NNODES", "1"}}));
  EXPECT_EQ(info.rendezvous, Rendezvous::local_socket);
  EXPECT_EQ(info.job, "slurm-123456.0");
}

TEST(RankInfo, ABatchScriptOfSlurmIsNoStep) {
  EXPECT_EQ(read(with(kSlurm, {{"SLURM_STEP_ID", "4294967291"}})).launcher, Launcher::none);
  Environment batch = kSlurm;
  batch.erase("SLURM_STEP_ID");
  EXPECT_EQ(read(batch).launcher, Launcher::none);
}

TEST(RankInfo, OneRankNeedsNoMeeting) {
  EXPECT_EQ(read({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}}).rendezvous, Rendezvous::none);
}

TEST(RankInfo, WhatIsMissingOrWrongIsNamed) {
  EXPECT_THAT(message({{"RANK", "1"}}), HasSubstr("RANK is set, but WORLD_SIZE is not"));
  EXPECT_THAT(message({{"RANK", "1"}, {"WORLD_SIZE", "2"}}), HasSubstr("MASTER_ADDR"));
  EXPECT_THAT(message(with(kTorchrun, {{"RANK", "4"}})), HasSubstr("RANK is 4, but WORLD_SIZE is 4"));
  EXPECT_THAT(message(with(kTorchrun, {{"RANK", "-1"}})), HasSubstr("RANK is -1"));
  EXPECT_THAT(message(with(kTorchrun, {{"RANK", "one"}})), HasSubstr("\"one\", which is not a number"));
  EXPECT_THAT(message(with(kTorchrun, {{"LOCAL_RANK", "9"}})), HasSubstr("local rank is 9"));
  EXPECT_THAT(message(with(kTorchrun, {{"MASTER_PORT", "70000"}})), HasSubstr("which is no port"));
  EXPECT_THAT(message(with(kTorchrun, {{"MASTER_PORT", ""}})), HasSubstr("MASTER_ADDR is set, but MASTER_PORT is not"));
  EXPECT_THAT(message(with(kTorchrun, {{"WORLD_SIZE", "5000"}})), HasSubstr("from 1 to 256 processes"));
  EXPECT_THAT(message({{"QSHARD_RANK", "0"}, {"QSHARD_WORLD_SIZE", "2"}}), HasSubstr("QSHARD_JOB is not"));
}

TEST(RankInfo, VariablesThatContradictEachOtherAreRefused) {
  Environment by_hand = kTorchrun;
  for (const auto* name : {"TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"}) {
    by_hand.erase(name);
  }
  EXPECT_EQ(read(by_hand).launcher, Launcher::torchrun);
  EXPECT_THAT(message(with(by_hand, kOpenMpi)), HasSubstr("rank 3 of 4 by the variables of torchrun, rank 1 of 3 by"));
  const Environment agreeing = with(by_hand, {{"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_EQ(read(agreeing).rank, 3);
}

}  // namespace
}  // namespace qshard
