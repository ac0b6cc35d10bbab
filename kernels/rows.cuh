// Rows of a matrix, each taken by a part of a warp: `width` lanes, a power of two up to 32.
//
// A lane takes every width-th number of its row, so neighbouring lanes read neighbouring numbers, and the
// lanes then join theirs in a tree: the same order in every run. All 32 lanes of a warp call these functions
// at once, also those whose row has nothing to give.
#pragma once

constexpr unsigned kAllLanes = 0xffffffffu;

// The row of this thread, where every block has blockDim.x / width of them.
__device__ __forceinline__ int row_of(int width) {
  return blockIdx.x * (blockDim.x / width) + threadIdx.x / width;
}

// The sum over the lanes of a row, for each of them.
__device__ __forceinline__ float sum_of_lanes(float value, int width) {
  for (int apart = width / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(kAllLanes, value, apart);
  return value;
}

// The largest number of a row, and the sum of exp(x - largest): what a softmax is made of.
struct Exponentials {
  float largest, sum;
};

// Those of k numbers. A NaN is not the largest but makes the sum NaN; so does an infinite largest.
__device__ __forceinline__ Exponentials exponentials(const float *x, int k, int lane, int width) {
  float largest = k > 0 ? x[0] : 0.0f, sum = 0;
  for (int i = lane; i < k; i += width) largest = fmaxf(largest, x[i]);
  for (int apart = width / 2; apart > 0; apart /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, apart));
  for (int i = lane; i < k; i += width) sum += expf(x[i] - largest);
  return {largest, sum_of_lanes(sum, width)};
}
