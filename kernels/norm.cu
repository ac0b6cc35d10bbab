// Normalisation over the batch: statistics and one pass forward, sums and one pass backward.
//
// x, y, residual and grad_x are M = N*H*W rows of C numbers, contiguous; the rows of g lie `pitch` numbers
// apart, so the gradient of a part of a concatenation is read where it lies. mean, inv_std, gamma, beta and
// their gradients are (C,); parts is space for what each chunk of rows gives.
//
// Threads of a block of (width, lanes), 256 in all and width a power of two: one thread has Wide neighbouring
// channels, 1 or 4, which it reads and writes at once (4 where they divide C and the arrays are aligned to 16
// bytes), and of the `rows` rows of its block every lanes-th. So what belongs to a channel is read once for
// several rows, and finding an element takes no division. Where C is small, width is too: neighbouring lanes
// read neighbouring rows, which follow one another in memory.
//
// Sums over the rows: a thread's rows in their order, the lanes of a block in halves, the chunks in a second
// kernel, there by 32 lanes in double. Chunks depend on the shape alone, so every run gives the same bits.
// Variances are sums of squares about each chunk's own mean, merged as in Chan et al. 1979, so a large offset
// costs no digits.
//
// Bound by: memory. Where a ReLU follows, what passes it is computed again from x, which is read in any case.

#include <pack.cuh>

constexpr int kThreads = 256;

// sums[t] of the first `width` threads becomes the sum over the lanes, each column's in one order.
template <int Wide>
__device__ __forceinline__ void add_lanes(Pack<float, Wide> *sums, int t) {
  for (int half = kThreads / 2; half >= int(blockDim.x); half /= 2) {
    __syncthreads();
    if (t < half)
      for (int k = 0; k < Wide; k++) sums[t].at[k] += sums[t + half].at[k];
  }
}

// parts[chunk] = (level, mean - level, sum of squares about the mean) of the `rows` rows of each chunk,
// blockIdx.x: (chunks, 3, C).
//
// level is the mean of the chunk's first rows, `sample` for each lane. All is computed with d = x - level, so
// that an offset of x does not round: the sum of (x - mean)^2 is (sum of d^2) - (sum of d)^2 / count. The
// sample being a good part of the chunk, the second term is never many times the result.
template <int Wide>
__global__ void __launch_bounds__(256)
moments(const float *__restrict__ x, float *__restrict__ parts, int m, int c, int rows, int sample) {
  __shared__ Pack<float, Wide> sums[kThreads], squares[kThreads];
  int width = blockDim.x, lanes = blockDim.y, t = threadIdx.y * width + threadIdx.x;
  int column = (blockIdx.y * width + threadIdx.x) * Wide;
  int start = blockIdx.x * rows, end = min(m, start + rows), sampled = min(end, start + sample * lanes);
  int begin = column < c ? start + int(threadIdx.y) : end;  // beyond the last channel there are no rows
  Pack<float, Wide> level, first{}, second{};
#pragma unroll 4
  for (int row = begin; row < sampled; row += lanes) {
    Pack<float, Wide> values = load<Wide>(x + row * c + column);
    for (int k = 0; k < Wide; k++) first.at[k] += values.at[k];
  }
  sums[t] = first;
  add_lanes(sums, t);
  __syncthreads();
  for (int k = 0; k < Wide; k++) {
    level.at[k] = sums[threadIdx.x].at[k] / float(sampled - start);
    first.at[k] = 0;
  }
#pragma unroll 4
  for (int row = begin; row < end; row += lanes) {
    Pack<float, Wide> values = load<Wide>(x + row * c + column);
    for (int k = 0; k < Wide; k++) {
      float d = values.at[k] - level.at[k];
      first.at[k] += d;
      second.at[k] += d * d;
    }
  }
  __syncthreads();  // the levels have been read
  sums[t] = first, squares[t] = second;
  add_lanes(sums, t);
  add_lanes(squares, t);
  if (t >= width || column >= c) return;
  for (int k = 0; k < Wide; k++) {
    first.at[k] = sums[t].at[k] / float(end - start);
    second.at[k] = squares[t].at[k] - sums[t].at[k] * first.at[k];
    if (second.at[k] < 0) second.at[k] = 0;  // by rounding, where all rows are equal
  }
  float *to = parts + blockIdx.x * 3 * c + column;
  store(to, level);
  store(to + c, first);
  store(to + 2 * c, second);
}

// The sum of the lanes' values in each column of a block; all lanes get it. `shared` is a number per thread.
__device__ __forceinline__ double sum_of_lanes(double value, double *shared) {
  int width = blockDim.x, t = threadIdx.y * width + threadIdx.x;
  __syncthreads();  // an earlier result may still be read
  shared[t] = value;
  for (int half = kThreads / 2; half >= width; half /= 2) {
    __syncthreads();
    if (t < half) shared[t] += shared[t + half];
  }
  __syncthreads();
  return shared[threadIdx.x];
}

// mean and inv_std = 1 / sqrt(var + eps) from the chunks' moments; running = keep * running + momentum * the
// batch's, whose variance is divided by M - 1 there.
//
// squares = sum_k (squares_k + count_k (mean_k - mean)^2). One thread takes a channel and every lanes-th
// chunk.
__global__ void __launch_bounds__(256)
merge_moments(const float *__restrict__ parts, float *__restrict__ running_mean,
              float *__restrict__ running_var, float *__restrict__ mean, float *__restrict__ inv_std, int m,
              int c, int rows, int chunks, float keep, float momentum, float eps) {
  __shared__ double shared[kThreads];
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int first = column < c ? threadIdx.y : chunks;  // beyond the last channel there are no chunks
  double total = 0, squares = 0;
  for (int chunk = first; chunk < chunks; chunk += blockDim.y) {
    const float *from = parts + chunk * 3 * c + column;
    total += double(min(rows, m - chunk * rows)) * (double(from[0]) + from[c]);
  }
  double centre = sum_of_lanes(total, shared) / m;
  for (int chunk = first; chunk < chunks; chunk += blockDim.y) {
    const float *from = parts + chunk * 3 * c + column;
    double d = double(from[0]) + from[c] - centre;
    squares += from[2 * c] + double(min(rows, m - chunk * rows)) * d * d;
  }
  squares = sum_of_lanes(squares, shared);
  if (threadIdx.y > 0 || column >= c) return;
  mean[column] = float(centre);
  inv_std[column] = 1.0f / sqrtf(float(squares / m + eps));
  running_mean[column] = float(keep * running_mean[column] + momentum * centre);
  running_var[column] = float(keep * running_var[column] + momentum * (squares / (m - 1)));
}

// What belongs to Wide channels: y = (x - centre) * scale + shift.
template <int Wide>
struct Channels {
  float centre[Wide], scale[Wide], shift[Wide];

  // One by one: parameters may lie anywhere.
  __device__ Channels(const float *mean, const float *inv_std, const float *gamma, const float *beta,
                      int column) {
    for (int k = 0; k < Wide; k++) {
      centre[k] = mean[column + k];
      scale[k] = inv_std[column + k] * gamma[column + k];
      shift[k] = beta[column + k];
    }
  }

  // Rounded in one way wherever it is computed, so that a gradient passes just where y is positive.
  __device__ float of(float centred, int k) const { return fmaf(centred, scale[k], shift[k]); }
};

// y = act(gamma * (x - mean) * inv_std + beta + residual); residual may be null, act is ReLU or nothing.
template <int Wide>
__global__ void __launch_bounds__(256)
normalize(const float *__restrict__ x, const float *__restrict__ mean, const float *__restrict__ inv_std,
          const float *__restrict__ gamma, const float *__restrict__ beta, const float *__restrict__ residual,
          float *__restrict__ y, int m, int c, int rows, bool relu) {
  int column = (blockIdx.y * blockDim.x + threadIdx.x) * Wide;
  int start = blockIdx.x * rows, end = min(m, start + rows);
  if (column >= c) return;
  Channels<Wide> channels(mean, inv_std, gamma, beta, column);
#pragma unroll 4
  for (int row = start + threadIdx.y; row < end; row += blockDim.y) {
    int at = row * c + column;
    Pack<float, Wide> values = load<Wide>(x + at), other{};
    if (residual) other = load<Wide>(residual + at);
    for (int k = 0; k < Wide; k++) {
      float value = channels.of(values.at[k] - channels.centre[k], k);
      if (residual) value += other.at[k];
      values.at[k] = relu && value < 0 ? 0.0f : value;
    }
    store(y + at, values);
  }
}

// parts[chunk] = (sum of g, sum of g * (x - mean)) over the `rows` rows of each chunk, blockIdx.x:
// (chunks, 2, C); with `relu` where normalize's result was positive.
template <int Wide>
__global__ void __launch_bounds__(256)
gradient_sums(const float *__restrict__ g, int pitch, const float *__restrict__ x,
              const float *__restrict__ mean, const float *__restrict__ inv_std,
              const float *__restrict__ gamma, const float *__restrict__ beta, float *__restrict__ parts,
              int m, int c, int rows, bool relu) {
  __shared__ Pack<float, Wide> plain[kThreads], centred[kThreads];
  int width = blockDim.x, t = threadIdx.y * width + threadIdx.x;
  int column = (blockIdx.y * width + threadIdx.x) * Wide;
  int start = blockIdx.x * rows, end = min(m, start + rows);
  Pack<float, Wide> first{}, second{};
  if (column < c) {
    Channels<Wide> channels(mean, inv_std, gamma, beta, column);
#pragma unroll 4
    for (int row = start + threadIdx.y; row < end; row += blockDim.y) {
      Pack<float, Wide> arriving = load<Wide>(g + row * pitch + column), values = load<Wide>(x + row * c + column);
      for (int k = 0; k < Wide; k++) {
        float d = values.at[k] - channels.centre[k];
        float passed = relu && !(channels.of(d, k) > 0) ? 0.0f : arriving.at[k];
        first.at[k] += passed;
        second.at[k] += passed * d;
      }
    }
  }
  plain[t] = first, centred[t] = second;
  add_lanes(plain, t);
  add_lanes(centred, t);
  if (t >= width || column >= c) return;
  store(parts + blockIdx.x * 2 * c + column, plain[t]);
  store(parts + (blockIdx.x * 2 + 1) * c + column, centred[t]);
}

// grad_beta = sum of g, grad_gamma = inv_std * sum of g * (x - mean), from the sums of the chunks. One thread
// takes a channel and every lanes-th chunk.
__global__ void __launch_bounds__(256)
total_sums(const float *__restrict__ parts, const float *__restrict__ inv_std, float *__restrict__ grad_gamma,
           float *__restrict__ grad_beta, int c, int chunks) {
  __shared__ double shared[kThreads];
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int first = column < c ? threadIdx.y : chunks;  // beyond the last channel there are no chunks
  double plain = 0, centred = 0;
#pragma unroll 4
  for (int chunk = first; chunk < chunks; chunk += blockDim.y) {
    plain += parts[chunk * 2 * c + column];
    centred += parts[(chunk * 2 + 1) * c + column];
  }
  plain = sum_of_lanes(plain, shared);
  centred = sum_of_lanes(centred, shared);
  if (threadIdx.y > 0 || column >= c) return;
  grad_beta[column] = float(plain);
  grad_gamma[column] = float(centred) * inv_std[column];
}

// grad_x = gamma * inv_std * (g - grad_beta / M - (x - mean) * inv_std * grad_gamma / M) in training, gamma *
// inv_std * g otherwise; of g what passes the ReLU.
template <int Wide>
__global__ void __launch_bounds__(256)
normalize_grad(const float *__restrict__ g, int pitch, const float *__restrict__ x,
               const float *__restrict__ mean, const float *__restrict__ inv_std,
               const float *__restrict__ gamma, const float *__restrict__ beta,
               const float *__restrict__ grad_gamma, const float *__restrict__ grad_beta,
               float *__restrict__ grad_x, int m, int c, int rows, bool relu, bool training) {
  int column = (blockIdx.y * blockDim.x + threadIdx.x) * Wide;
  int start = blockIdx.x * rows, end = min(m, start + rows);
  if (column >= c) return;
  Channels<Wide> channels(mean, inv_std, gamma, beta, column);
  float level[Wide], slope[Wide];
  for (int k = 0; k < Wide; k++) {
    level[k] = training ? grad_beta[column + k] / float(m) : 0.0f;
    slope[k] = training ? grad_gamma[column + k] * inv_std[column + k] / float(m) : 0.0f;
  }
#pragma unroll 4
  for (int row = start + threadIdx.y; row < end; row += blockDim.y) {
    Pack<float, Wide> arriving = load<Wide>(g + row * pitch + column), values = load<Wide>(x + row * c + column);
    for (int k = 0; k < Wide; k++) {
      float d = values.at[k] - channels.centre[k];
      float passed = relu && !(channels.of(d, k) > 0) ? 0.0f : arriving.at[k];
      if (training) passed -= level[k] + d * slope[k];
      values.at[k] = channels.scale[k] * passed;
    }
    store(grad_x + row * c + column, values);
  }
}
