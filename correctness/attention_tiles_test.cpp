#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "optimized/attention/decode_parts.h"
#include "optimized/attention/key_gradient_splits.h"
#include "optimized/attention/row_tiles.h"

// The arithmetic of attention's kernels that needs no GPU.
namespace qshard::optimized {
namespace {

// Every token belongs to exactly one tile of one slot, whatever the lengths, empty rows at both ends included.
TEST(AttentionTiles, CoverEveryTokenOnce) {
  std::mt19937_64 generator(1);
  for (int trial = 0; trial < 300; ++trial) {
    const int tile = 16 << generator() % 4;
    std::vector<std::int32_t> offsets{0};
    const int rows = 1 + static_cast<int>(generator() % 12);
    for (int row = 0; row < rows; ++row) {
      const int choice = static_cast<int>(generator() % 4);
      const int length = choice == 0   ? 0
                         : choice == 1 ? tile * static_cast<int>(generator() % 4)
                                       : static_cast<int>(generator() % (4 * tile));
      offsets.push_back(offsets.back() + length);
    }
    const int tokens = offsets.back();
    std::vector<int> covered(tokens, 0);
    for (int slot = 0; slot < tile_slots(tokens, rows, tile); ++slot) {
      const RowTile found = tile_of_slot(offsets.data(), rows, tile, slot);
      EXPECT_GE(found.first, 0);
      EXPECT_EQ(found.first % tile, 0);
      for (int i = found.first; i < std::min(found.first + tile, found.length); ++i) ++covered[found.begin + i];
    }
    for (const int count : covered) ASSERT_EQ(count, 1);
  }
}

TEST(AttentionTiles, RangesHoldWhatIsSeenAndNoMore) {
  for (const int length : {1, 15, 16, 17, 50}) {
    for (const int window : {0, 1, 5, 16, 40, 1000}) {
      for (int first = 0; first < length; first += 16) {
        const RowTile tile{0, length, first};
        const PositionRange keys = keys_of_queries(tile, 16, window);
        const PositionRange queries = queries_of_keys(tile, 16, window);
        const int end = std::min(first + 16, length);
        for (int other = 0; other < length; ++other) {
          bool seen = false;
          bool sees_one = false;
          for (int own = first; own < end; ++own) {
            seen = seen || sees(own, other, window);
            sees_one = sees_one || sees(other, own, window);
          }
          EXPECT_EQ(other >= keys.begin && other < keys.end, seen) << length << " " << window << " " << other;
          // A last tile that is not full may be walked as if it were.
          EXPECT_TRUE(!sees_one || (other >= queries.begin && other < queries.end));
          EXPECT_TRUE(sees_one || end < first + 16 || other < queries.begin || other >= queries.end);
        }
      }
    }
  }
}

TEST(AttentionTiles, AnyAndAllAreWhatSeesSays) {
  for (const int window : {0, 1, 3, 8, 20}) {
    for (int query = 0; query < 24; ++query) {
      for (int key = 0; key < 24; ++key) {
        bool any = false;
        bool all = true;
        for (int i = query; i < query + 4; ++i) {
          for (int j = key; j < key + 6; ++j) {
            any = any || sees(i, j, window);
            all = all && sees(i, j, window);
          }
        }
        EXPECT_EQ(any_sees(query, 4, key, 6, window), any) << query << " " << key << " " << window;
        EXPECT_EQ(all_see(query, 4, key, 6, window), all) << query << " " << key << " " << window;
      }
    }
  }
}

TEST(KeyGradientSplits, DivideTheGroupAndGiveEnoughBlocks) {
  EXPECT_EQ(key_gradient_splits(64, 8, 2048, 1, 128), 2);
  EXPECT_EQ(key_gradient_splits(64, 8, 8192, 1, 128), 1);
  EXPECT_EQ(key_gradient_splits(32, 32, 512, 1, 128), 1);
  EXPECT_EQ(key_gradient_splits(12, 2, 128, 1, 128), 6);
  for (const int heads : {1, 6, 8, 12, 64}) {
    for (int kv_heads = 1; kv_heads <= heads; ++kv_heads) {
      if (heads % kv_heads != 0) continue;
      for (const int tokens : {1, 100, 2000, 50000}) {
        const int splits = key_gradient_splits(heads, kv_heads, tokens, 1, 128);
        EXPECT_EQ(heads / kv_heads % splits, 0);
        EXPECT_TRUE(splits == heads / kv_heads || kv_heads * tile_slots(tokens, 1, 128) * splits >= 256);
      }
    }
  }
}

TEST(DecodeParts, CoverTheCache) {
  for (const std::int64_t capacity : {1, 63, 64, 65, 4096, 4097, 5000, 131072, 1000000}) {
    const std::int64_t part = decode_part_tokens(capacity);
    EXPECT_EQ(part % 64, 0);
    EXPECT_LE(decode_parts(capacity), kMostDecodeParts);
    EXPECT_GE(decode_parts(capacity) * part, capacity);
    EXPECT_LT((decode_parts(capacity) - 1) * part, capacity);
  }
}

}  // namespace
}  // namespace qshard::optimized
