// A tile of a matrix product on TF32 tensor cores, for compute capability 8.0 and later.
//
// A block of eight warps computes Rows x Columns elements of y, each warp a part of it in steps of 16 x 8 x 8,
// the size of one mma_tf32. Tiles of the operands go from global to shared memory by asynchronous copies that
// pass through no register; kStages of them are under way or in use at a time, so that the tensor cores wait
// for none. A tile lies in shared memory as it comes: [row][depth] of a deep operand, [depth][row] of a wide
// one, with a margin chosen so that the 32 lanes that read a fragment fall into 32 different banks.
//
// Numbers are rounded to TF32, 10 bits of mantissa, when a fragment is read; sums are in float32.
//
// Bound by: reading fragments from shared memory. Of a tile of 128 x 128 a warp has 64 x 32 elements, for which
// it reads 24 numbers in each lane for 16 products. An element of y is a sum over k in rising order of steps of
// eight, which the hardware adds in an order of its own: the same in every run.
#pragma once
#include <operands.cuh>
#include <port.cuh>

constexpr int kTf32Threads = 256;
// Four tiles of 16 depths are at most 80 KB: two blocks on a multiprocessor of 164 KB or more, one where a block
// may have 99 KB (compute capability 8.6, 8.9, 12.0).
constexpr int kTf32Depth = 16;
constexpr int kStages = 4;

// Floats from one line of a tile to the next. Lanes g = 0..7 and t = 0..3 read element (g, t): lines of rows
// that lie 20 apart give banks 20 g + t, all different, lines of depths that lie 8 mod 32 apart give 8 t + g.
__device__ constexpr int tf32_line(int rows, bool deep) { return deep ? kTf32Depth + 4 : rows + 8; }
__device__ constexpr int tf32_tile(int rows, bool deep) {
  return tf32_line(rows, deep) * (deep ? rows : kTf32Depth);
}

// Element (row, depth) of a tile, for mma_tf32.
template <int Rows, bool Deep>
__device__ __forceinline__ unsigned fragment(const float *tile, int row, int depth) {
  return to_tf32(Deep ? tile[row * tf32_line(Rows, Deep) + depth] : tile[depth * tf32_line(Rows, Deep) + row]);
}

struct Tf32 {
  // store(line(m), n, value) for the elements of this thread in the tile at (m0, n0), summed over k0 <= k < k1:
  // line(m) is asked for once in a row, as it may take divisions.
  // Shared memory: kStages * (tf32_tile(Rows, DeepA) + tf32_tile(Columns, DeepB)) floats.
  template <int Rows, int Columns, int VecA, int VecB, bool DeepA, bool DeepB, class A, class B, class Line, class Store>
  static __device__ __forceinline__ void multiply(
      const A &a, const B &b, int m0, int n0, int k0, int k1, float *shared, Line line, Store store) {
    constexpr int kTileA = tf32_tile(Rows, DeepA), kTileB = tf32_tile(Columns, DeepB);
    // Two warps share the rows, four the columns; or as many as leave a warp 16 columns.
    constexpr int kAcross = Columns >= 128 ? 4 : 2, kDown = 8 / kAcross;
    constexpr int kWarpRows = Rows / kDown, kWarpColumns = Columns / kAcross;
    constexpr int kRowSteps = kWarpRows / 16, kColumnSteps = kWarpColumns / 8;
    static_assert(kRowSteps > 0 && kColumnSteps > 0, "the tile is too small for eight warps");
    const Fetch<kTf32Threads, Rows, kTf32Depth, VecA, DeepA, A> fetch_a(a, m0);
    const Fetch<kTf32Threads, Columns, kTf32Depth, VecB, DeepB, B> fetch_b(b, n0);
    float *tiles_a = shared, *tiles_b = shared + kStages * kTileA;

    auto start = [&](int k, int stage) {
      if (k < k1) {
        float *tile_a = tiles_a + stage * kTileA, *tile_b = tiles_b + stage * kTileB;
        fetch_a.each(k, [&](int, int row, int depth, const float *from, bool valid) {
          int apart = tf32_line(Rows, DeepA);
          cp_async<4 * VecA>(tile_a + (DeepA ? row * apart + depth : depth * apart + row), from, valid);
        });
        fetch_b.each(k, [&](int, int row, int depth, const float *from, bool valid) {
          int apart = tf32_line(Columns, DeepB);
          cp_async<4 * VecB>(tile_b + (DeepB ? row * apart + depth : depth * apart + row), from, valid);
        });
      }
      cp_commit();  // an empty group where there is no tile any more, so that counting groups counts tiles
    };

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int row = warp / kAcross * kWarpRows + g, column = warp % kAcross * kWarpColumns + g;
    float sums[kRowSteps][kColumnSteps][4] = {};
#pragma unroll
    for (int stage = 0; stage < kStages - 1; stage++) start(k0 + stage * kTf32Depth, stage);
    for (int k = k0, stage = 0; k < k1; k += kTf32Depth, stage = (stage + 1) % kStages) {
      cp_wait<kStages - 2>();
      __syncthreads();  // all copies of this tile are there, and nobody reads the one before it any more
      start(k + (kStages - 1) * kTf32Depth, (stage + kStages - 1) % kStages);
      const float *tile_a = tiles_a + stage * kTileA, *tile_b = tiles_b + stage * kTileB;
#pragma unroll
      for (int depth = 0; depth < kTf32Depth; depth += 8) {
        unsigned part_a[kRowSteps][4], part_b[kColumnSteps][2];
#pragma unroll
        for (int i = 0; i < kRowSteps; i++)
#pragma unroll
          for (int e = 0; e < 4; e++)
            part_a[i][e] = fragment<Rows, DeepA>(tile_a, row + i * 16 + e % 2 * 8, depth + t + e / 2 * 4);
#pragma unroll
        for (int j = 0; j < kColumnSteps; j++)
#pragma unroll
          for (int e = 0; e < 2; e++) part_b[j][e] = fragment<Columns, DeepB>(tile_b, column + j * 8, depth + t + e * 4);
#pragma unroll
        for (int i = 0; i < kRowSteps; i++)
#pragma unroll
          for (int j = 0; j < kColumnSteps; j++) mma_tf32(sums[i][j], part_a[i], part_b[j]);
      }
    }
    cp_wait<0>();
    const int first_column = n0 + warp % kAcross * kWarpColumns + 2 * t;
#pragma unroll
    for (int i = 0; i < kRowSteps; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int to = line(m0 + row + i * 16 + half * 8);
#pragma unroll
        for (int j = 0; j < kColumnSteps; j++)
#pragma unroll
          for (int e = 0; e < 2; e++) store(to, first_column + j * 8 + e, sums[i][j][2 * half + e]);
      }
  }
};
