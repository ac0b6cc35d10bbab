// A tile of a matrix product in float32, on any GPU.
//
// A block of 256 threads, 16 by 16, computes Rows x Columns elements of y, each thread a part of Rows / 16 by
// Columns / 16 of them in its registers: for every depth it reads as many elements of A and of B from shared
// memory and makes an outer product of them, so that with 8 by 8 elements one number read serves four
// multiply-adds. Two tiles of each operand lie in shared memory, [depth][row]; while one is computed with, the
// next comes from global memory by way of registers, which turn it round where needed.
//
// Bound by: arithmetic, at 128 x 128; with smaller tiles by reading shared memory. An element of y is one sum
// over k in rising order: the same in every run.
#pragma once
#include <operands.cuh>

constexpr int kSimtThreads = 256;
constexpr int kSimtDepth = 16;

// Elements of one tile with a margin: a line is not a multiple of the 32 banks, so that chunks which are
// turned round do not all fall into one.
__device__ constexpr int simt_line(int rows) { return rows + 4; }

// A chunk from global memory, zeros where it is not valid.
template <int Vec>
__device__ __forceinline__ void load_chunk(float (&chunk)[Vec], const float *address, bool valid) {
  if (Vec == 4) {
    float4 four = valid ? *reinterpret_cast<const float4 *>(address) : make_float4(0, 0, 0, 0);
    chunk[0] = four.x, chunk[1 % Vec] = four.y, chunk[2 % Vec] = four.z, chunk[3 % Vec] = four.w;
  } else {
    chunk[0] = valid ? *address : 0.0f;
  }
}

struct Simt {
  // store(line(m), n, value) for the elements of this thread in the tile at (m0, n0), summed over k0 <= k < k1:
  // line(m) is asked for once in a row, as it may take divisions.
  // Shared memory: 2 * kSimtDepth * (simt_line(Rows) + simt_line(Columns)) floats.
  template <int Rows, int Columns, int VecA, int VecB, bool DeepA, bool DeepB, class A, class B, class Line, class Store>
  static __device__ __forceinline__ void multiply(
      const A &a, const B &b, int m0, int n0, int k0, int k1, float *shared, Line line, Store store) {
    constexpr int kLineA = simt_line(Rows), kLineB = simt_line(Columns);
    constexpr int kPartRows = Rows / 16, kPartColumns = Columns / 16;
    using FetchA = Fetch<kSimtThreads, Rows, kSimtDepth, VecA, DeepA, A>;
    using FetchB = Fetch<kSimtThreads, Columns, kSimtDepth, VecB, DeepB, B>;
    const FetchA fetch_a(a, m0);
    const FetchB fetch_b(b, n0);
    float next_a[FetchA::kChunks][VecA], next_b[FetchB::kChunks][VecB];
    float *tile_a = shared, *tile_b = shared + 2 * kSimtDepth * kLineA;

    auto load = [&](int k) {
      fetch_a.each(k, [&](int i, int, int, const float *from, bool valid) { load_chunk(next_a[i], from, valid); });
      fetch_b.each(k, [&](int i, int, int, const float *from, bool valid) { load_chunk(next_b[i], from, valid); });
    };
    auto keep = [&](int half) {
      fetch_a.place([&](int i, int row, int k) {
        float *to = tile_a + (half * kSimtDepth + k) * kLineA + row;
#pragma unroll
        for (int v = 0; v < VecA; v++) to[DeepA ? v * kLineA : v] = next_a[i][v];
      });
      fetch_b.place([&](int i, int row, int k) {
        float *to = tile_b + (half * kSimtDepth + k) * kLineB + row;
#pragma unroll
        for (int v = 0; v < VecB; v++) to[DeepB ? v * kLineB : v] = next_b[i][v];
      });
    };

    // This thread's elements: runs of four rows and four columns, the runs 64 apart.
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[kPartRows][kPartColumns] = {};
    load(k0);
    keep(0);
    __syncthreads();
    for (int k = k0, half = 0; k < k1; k += kSimtDepth, half ^= 1) {
      if (k + kSimtDepth < k1) load(k + kSimtDepth);
#pragma unroll
      for (int depth = 0; depth < kSimtDepth; depth++) {
        const float *line_a = tile_a + (half * kSimtDepth + depth) * kLineA + row;
        const float *line_b = tile_b + (half * kSimtDepth + depth) * kLineB + column;
        float part_a[kPartRows], part_b[kPartColumns];
#pragma unroll
        for (int i = 0; i < kPartRows; i++) part_a[i] = line_a[i / 4 * 64 + i % 4];
#pragma unroll
        for (int j = 0; j < kPartColumns; j++) part_b[j] = line_b[j / 4 * 64 + j % 4];
#pragma unroll
        for (int i = 0; i < kPartRows; i++)
#pragma unroll
          for (int j = 0; j < kPartColumns; j++) sums[i][j] += part_a[i] * part_b[j];
      }
      if (k + kSimtDepth < k1) keep(half ^ 1);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kPartRows; i++) {
      const int to = line(m0 + row + i / 4 * 64 + i % 4);
#pragma unroll
      for (int j = 0; j < kPartColumns; j++) store(to, n0 + column + j / 4 * 64 + j % 4, sums[i][j]);
    }
  }
};
