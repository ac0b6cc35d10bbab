// Kernels that are right, and the same with a mistake planted, for test_emulator.py: the argument of a
// template says which, 0 is none.
#include <port.cuh>

// y = a @ b, tile by tile.  (n, n), (n, n) -> (n, n), n a multiple of 16.  Missing: which barrier, if any.
template <int Missing>
__global__ void __launch_bounds__(256) tiled(const float *a, const float *b, float *y, int n) {
  __shared__ float left[16][16], right[16][16];
  int row = threadIdx.y, column = threadIdx.x, top = 16 * blockIdx.y, start = 16 * blockIdx.x;
  float total = 0;
  for (int k = 0; k < n; k += 16) {
    left[row][column] = a[(top + row) * n + k + column];
    right[row][column] = b[(k + row) * n + start + column];
    if (Missing != 1) __syncthreads();
    for (int i = 0; i < 16; i++) total += left[row][i] * right[i][column];
    if (Missing != 2) __syncthreads();
  }
  y[(top + row) * n + start + column] = total;
}

// The same of (16, n) and (n, 16), by asynchronous copies into two buffers.  Missing: 1 the wait, 2 the
// barrier behind it, 3 the barrier before a buffer is filled again, 4 the last wait.
template <int Missing>
__global__ void __launch_bounds__(256) pipelined(const float *a, const float *b, float *y, int n) {
  DYN_SHARED(float, tiles);  // [2][2][16][16]: buffer, of a or b
  int row = threadIdx.y, column = threadIdx.x;
  float total = 0;
  auto fill = [&](int k) {
    float *to = tiles + k / 16 % 2 * 512 + row * 16 + column;
    cp_async<4>(to, a + row * n + min(k + column, n - 1), k < n);
    cp_async<4>(to + 256, b + min(k + row, n - 1) * 16 + column, k < n);
    cp_commit();
  };
  fill(0);
  for (int k = 0; k < n; k += 16) {
    if (Missing == 3) fill(k + 16);
    if (Missing != 1) cp_wait<Missing == 3>();
    if (Missing != 2) __syncthreads();
    if (Missing != 3) fill(k + 16);
    for (int i = 0; i < 16; i++)
      total += tiles[k / 16 % 2 * 512 + row * 16 + i] * tiles[k / 16 % 2 * 512 + 256 + i * 16 + column];
  }
  if (Missing != 4) cp_wait<0>();
  y[row * 16 + column] = total;
}

// y[i] = i + Step, i around the 256, as the thread there has written it: but there is no barrier.
template <int Step>
__global__ void __launch_bounds__(256) neighbour(float *y) {
  __shared__ float tile[256];
  tile[threadIdx.x] = threadIdx.x;
  y[threadIdx.x] = tile[(threadIdx.x + 256 + Step) % 256];
}

// y[i] = how many threads came before thread i, which no kernel may ask.
__global__ void __launch_bounds__(256) turns(int *y, int *count) {
  y[blockIdx.x * blockDim.x + threadIdx.x] = count[0]++;
}

template <int Beside>
__global__ void __launch_bounds__(256) store(float *y, float value) {
  y[int(threadIdx.x) + Beside] = value;
}

// How 64 threads, two warps, go wrong together.
template <int Mistake>
__global__ void __launch_bounds__(64) apart(float *y) {
  __shared__ float tile[64];
  int i = threadIdx.x;
  float value = i;
  if (Mistake == 1 && i < 32) __syncthreads();
  if (Mistake == 2 && i == 0) return;
  if (Mistake == 2) __syncthreads();
  if (Mistake == 3 && i < 32) __syncthreads();
  if (Mistake == 3 && i >= 32) __syncthreads();
  if (Mistake == 4 && i < 16) value = __shfl_sync(0x0000ffffu, value, 20);
  if (Mistake == 5) value = __shfl_sync(0x0000ffffu, value, 0);
  if (Mistake == 6 && i != 5) value = __shfl_sync(0xffffffffu, value, 0);
  if (Mistake == 7 && i % 2) value = __shfl_sync(0xffffffffu, value, 0);
  if (Mistake == 7 && i % 2 == 0) __syncwarp();
  if (Mistake == 8 && i % 32 == 0) __syncthreads();
  if (Mistake == 8 && i % 32 != 0) __syncwarp();
  if (Mistake == 9) cp_async<4>(tile + i, y + i, true);
  if (Mistake == 10) cp_async<4>(tile + i, y + i, true), cp_commit();
  if (Mistake == 11) cp_async<16>(tile + i, y, true), cp_commit(), cp_wait<0>();
  if (Mistake == 12) cp_async<16>(tile, y + i, true), cp_commit(), cp_wait<0>();
  y[i] = value;
}

// y[0], y[1] = what a block finds in shared memory that it has not written, though the block before it has.
__global__ void __launch_bounds__(1) unwritten(float *y) {
  __shared__ float here;
  DYN_SHARED(float, there);
  y[2 * blockIdx.x] = here, y[2 * blockIdx.x + 1] = there[0];
  here = there[0] = 1;
}

struct Pair {
  int first;
  float second;
};

// y[i] = the sum of what thread i was given, i being counted over all blocks
__global__ void __launch_bounds__(256)
given(int *y, Pair pair, const float *null, bool flag, long long wide) {
  int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int threads = blockDim.x * blockDim.y * blockDim.z;
  int sum = pair.first + int(pair.second) + (null ? 100 : 0) + (flag ? 10 : 0) + int(wide >> 40);
  y[block * threads + thread] = sum;
}

// Lane i gets, in turn, the number of lane 5, of i ^ 3, of i + 4.
__global__ void __launch_bounds__(64) shuffled(const float *x, float *y) {
  int i = threadIdx.x;
  y[i] = __shfl_sync(0xffffffffu, x[i], 5);
  y[64 + i] = __shfl_xor_sync(0xffffffffu, x[i], 3);
  y[128 + i] = __shfl_down_sync(0xffffffffu, x[i], 4);
}

// y = a @ b  (16, 8) @ (8, 8) by a warp; rounded = a in TF32
__global__ void __launch_bounds__(32)
warp_product(const float *a, const float *b, float *y, unsigned *rounded) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned left[4], right[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
  for (int i = 0; i < 4; i++) {
    int at = (g + 8 * (i % 2)) * 8 + t + 4 * (i / 2);
    rounded[at] = left[i] = to_tf32(a[at]);
  }
  float sum[4] = {0, 0, 0, 0};
  mma_tf32(sum, left, right);
  for (int i = 0; i < 4; i++) y[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = sum[i];
}
