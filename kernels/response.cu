// Local response normalisation: every number divided by a power of the energy in the channels around it.
//
// x, y, g, grad_x: M rows of C channels, contiguous; the channels around c are c - half .. c + half, as far
// as they exist. One thread computes one element; a block (width, lanes) has `width` neighbouring channels of
// `lanes` neighbouring rows.
//
// Neighbours are added afresh for every channel, never by a running sum, which would lose the small ones
// beside a large one, and always in the order of the channels.
//
// Bound by: memory, if `half` is small; the neighbours come from the caches, or from the block's tile.

constexpr int kThreads = 256;

// base ** beta; the usual betas go by square roots.
__device__ __forceinline__ float power(float base, float beta) {
  if (beta == 0.75f) {
    float root = sqrtf(base);
    return root * sqrtf(root);
  }
  return beta == 0.5f ? sqrtf(base) : powf(base, beta);
}

// k + a * the sum of squares around a channel of a row.
__device__ __forceinline__ float energy(const float *row, int channel, int c, int half, float a, float k) {
  float total = 0;
  for (int j = max(channel - half, 0); j <= min(channel + half, c - 1); j++) total += row[j] * row[j];
  return k + a * total;
}

// y = x / energy ** beta
__global__ void __launch_bounds__(256)
response(const float *__restrict__ x, float *__restrict__ y, int m, int c, int half, float a, float beta,
         float k) {
  int row = blockIdx.x * blockDim.y + threadIdx.y, channel = blockIdx.y * blockDim.x + threadIdx.x;
  if (row >= m || channel >= c) return;
  const float *from = x + row * c;
  y[row * c + channel] = from[channel] / power(energy(from, channel, c, half, a, k), beta);
}

// g * x / energy ** (beta + 1), what a channel passes on to those around it; and g / energy ** beta.
__device__ __forceinline__ float passed_on(const float *g, const float *x, int channel, int c, int half,
                                           float a, float beta, float k, float &own) {
  float scale = energy(x, channel, c, half, a, k);
  own = g[channel] / power(scale, beta);
  return own * x[channel] / scale;
}

// grad_x = g / energy ** beta - slope * x * (the sum around of what is passed on)
//
// A block's tile of a row begins `halo` channels ahead of the first of the `step` channels it is for. What
// lies beyond the tile, where the neighbourhood is wider than the halo, is computed again.
__global__ void __launch_bounds__(256)
response_grad(const float *__restrict__ g, const float *__restrict__ x, float *__restrict__ grad_x, int m,
              int c, int half, float a, float beta, float k, float slope, int step, int halo) {
  __shared__ float tiles[kThreads];
  float *tile = tiles + threadIdx.y * blockDim.x, own = 0, unused;
  int row = blockIdx.x * blockDim.y + threadIdx.y, width = blockDim.x;
  int first = int(blockIdx.y) * step - halo, channel = first + int(threadIdx.x);
  bool inside = row < m && channel >= 0 && channel < c;
  const float *arriving = g + row * c, *from = x + row * c;
  if (inside) tile[threadIdx.x] = passed_on(arriving, from, channel, c, half, a, beta, k, own);
  __syncthreads();
  int place = int(threadIdx.x) - halo;
  if (!inside || place < 0 || place >= step) return;
  float total = 0;
  for (int j = max(channel - half, 0); j <= min(channel + half, c - 1); j++) {
    bool near = j >= first && j < first + width;
    total += near ? tile[j - first] : passed_on(arriving, from, j, c, half, a, beta, k, unused);
  }
  grad_x[row * c + channel] = own - slope * from[channel] * total;
}
