// Sums, maxima and softmax along an axis.
//
// Arrays are seen as groups of rows of columns: a sum runs over the rows of each group, so one axis, or
// several that follow one another, are summed where they lie, and with one column it is the last axis. Maxima
// and softmax run along the rows of a contiguous matrix.
//
// Bound by: memory. Neighbouring threads read neighbouring numbers. A long sum or maximum is made of parts,
// so that there are blocks enough, and launched again over these parts until one is left. Which part takes
// which numbers depends on the shape alone, and within a block they are joined in a tree: the same bits in
// every run.
#include <rows.cuh>

// The sum of `count` numbers, `step` apart.
//
// Eight chains: so many loads are under way at once, and rounding grows with an eighth of the count.
template <class T>
__device__ __forceinline__ T sum_apart(const T *x, int step, int count) {
  T chain[8] = {}, next[8];
  for (int i = 0; i < count; i += 8) {
#pragma unroll
    for (int j = 0; j < 8; j++) next[j] = i + j < count ? x[(i + j) * step] : T(0);
#pragma unroll
    for (int j = 0; j < 8; j++) chain[j] += next[j];
  }
#pragma unroll
  for (int half = 4; half > 0; half /= 2)
#pragma unroll
    for (int j = 0; j < half; j++) chain[j] += chain[j + half];
  return chain[0];
}

// x (groups, rows, columns), all rows `pitch` apart -> y (groups, parts, columns), where part p of a group is
// the sum of its rows p * chunk ... (p + 1) * chunk - 1.
//
// A block is (columns, rows, groups) of threads, powers of two and 256 at most: it takes one part of as many
// groups as it is deep. A thread adds every blockDim.y-th row of one column; y has what its column adds up
// to. Of booleans it is whether one of them is true.
template <class T>
__global__ void __launch_bounds__(256) sums(
    const T *__restrict__ x, T *__restrict__ y, int groups, int rows, int columns, int pitch, int chunk) {
  __shared__ T part[256];
  int across = (columns + int(blockDim.x) - 1) / int(blockDim.x), parts = (rows + chunk - 1) / chunk;
  int at = int(blockIdx.x) / across, depth = at / parts;
  int column = (int(blockIdx.x) - at * across) * int(blockDim.x) + int(threadIdx.x);
  int p = at - depth * parts, group = depth * int(blockDim.z) + int(threadIdx.z);
  bool inside = column < columns && group < groups;

  T total = T(0);
  int first = p * chunk + int(threadIdx.y), end = min(rows, (p + 1) * chunk);
  if (inside && first < end) {
    int count = (end - first - 1) / int(blockDim.y) + 1;
    total = sum_apart(x + (group * rows + first) * pitch + column, pitch * int(blockDim.y), count);
  }
  int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  part[thread] = total;
  for (int half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.y) < half) part[thread] += part[thread + half * blockDim.x];
  }
  if (inside && threadIdx.y == 0) y[(group * parts + p) * columns + column] = part[thread];
}

// Whether a takes the place of b as the maximum: a NaN is above every number, as in NumPy.
template <class T>
__device__ __forceinline__ bool above(T a, T b) {
  return a > b || (a != a && b == b);
}

// x (rows, k) -> y, place (rows, parts): the largest of part p, which is p * chunk ... (p + 1) * chunk - 1,
// and where in its row the first of these stands. Where x are themselves maxima of parts, `places` (rows, k)
// has their places, otherwise it is null.
//
// `width` lanes take one part.
template <class T>
__global__ void __launch_bounds__(256) max_first(const T *__restrict__ x, const int *__restrict__ places,
                                                 T *__restrict__ y, int *__restrict__ place, int rows, int k,
                                                 int chunk, int width) {
  int parts = (k + chunk - 1) / chunk, item = row_of(width), lane = threadIdx.x % width;
  int row = item / parts, first = (item - row * parts) * chunk;
  bool inside = row < rows;
  int end = inside ? min(k, first + chunk) : 0, start = inside ? row * k : 0;

  T best = T(0);
  int at = -1;  // nothing yet
  for (int i = first + lane; i < end; i += width) {
    T value = x[start + i];
    if (at < 0 || above(value, best)) best = value, at = i;
  }
  for (int apart = width / 2; apart > 0; apart /= 2) {
    T other = __shfl_xor_sync(kAllLanes, best, apart);
    int other_at = __shfl_xor_sync(kAllLanes, at, apart);
    bool equal = !above(best, other) && !above(other, best);
    bool better = at < 0 || above(other, best) || (equal && other_at < at);
    if (other_at >= 0 && better) best = other, at = other_at;
  }
  if (!inside || lane != 0) return;
  y[item] = best;
  place[item] = places ? places[start + at] : at;
}

// y (rows, k) = g (rows,) at the place of each row, zeros elsewhere: n elements, one by each thread
__global__ void __launch_bounds__(256) max_first_grad(
    const float *__restrict__ g, const int *__restrict__ place, float *__restrict__ y, int k, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int row = i / k;
  y[i] = i - row * k == place[row] ? g[row] : 0.0f;
}

// y = exp(x - largest) / sum of these, along rows of k numbers; `width` lanes take one row
__global__ void __launch_bounds__(256)
softmax(const float *__restrict__ x, float *__restrict__ y, int rows, int k, int width) {
  int row = row_of(width), lane = threadIdx.x % width;
  int count = row < rows ? k : 0, start = row < rows ? row * k : 0;
  Exponentials found = exponentials(x + start, count, lane, width);
  for (int i = lane; i < count; i += width) y[start + i] = expf(x[start + i] - found.largest) / found.sum;
}

// y = x - largest - log of the sum of exp(x - largest), likewise
__global__ void __launch_bounds__(256)
log_softmax(const float *__restrict__ x, float *__restrict__ y, int rows, int k, int width) {
  int row = row_of(width), lane = threadIdx.x % width;
  int count = row < rows ? k : 0, start = row < rows ? row * k : 0;
  Exponentials found = exponentials(x + start, count, lane, width);
  float log_sum = logf(found.sum);
  for (int i = lane; i < count; i += width) y[start + i] = x[start + i] - found.largest - log_sum;
}
