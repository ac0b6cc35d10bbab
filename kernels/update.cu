// Optimiser updates: everything one step does to one parameter, in one pass over memory.
//
// All arrays of an update have n elements and are contiguous; one thread does all for one element, so the
// result does not depend on their order. The formulas are those of backend/cpu/update.py.
//
// Bound by: memory. Every array is read once and written once, neighbouring threads taking neighbours.

// p -= lr * slope, slope = g + weight_decay * p
__global__ void __launch_bounds__(256)
sgd(float *__restrict__ p, const float *__restrict__ g, float lr, float weight_decay, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) p[i] -= lr * (g[i] + weight_decay * p[i]);
}

// The same with velocity = momentum * velocity + slope instead of slope; nesterov: one step of it ahead
__global__ void __launch_bounds__(256)
sgd_momentum(float *__restrict__ p, float *__restrict__ velocity, const float *__restrict__ g, float lr,
             float momentum, float weight_decay, bool nesterov, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float slope = g[i] + weight_decay * p[i];
  float v = momentum * velocity[i] + slope;
  velocity[i] = v;
  p[i] -= lr * (nesterov ? slope + momentum * v : v);
}

// Running means of slope and slope^2 at rates 1 and 2; p = keep * p - step_size * mean / (root * inv_root +
// eps)
__global__ void __launch_bounds__(256)
adam(float *__restrict__ p, float *__restrict__ mean, float *__restrict__ mean_square,
     const float *__restrict__ g, float rate1, float rate2, float step_size, float inv_root, float eps,
     float weight_decay, float keep, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float slope = g[i] + weight_decay * p[i];
  float m = mean[i] + rate1 * (slope - mean[i]);
  float s = mean_square[i] + rate2 * (slope * slope - mean_square[i]);
  mean[i] = m;
  mean_square[i] = s;
  p[i] = keep * p[i] - step_size * m / (sqrtf(s) * inv_root + eps);
}

// A running mean of slope^2; p -= lr * slope / its root, eps within
__global__ void __launch_bounds__(256)
rmsprop(float *__restrict__ p, float *__restrict__ mean_square, const float *__restrict__ g, float lr,
        float rate, float eps, float weight_decay, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float slope = g[i] + weight_decay * p[i];
  float s = mean_square[i] + rate * (slope * slope - mean_square[i]);
  mean_square[i] = s;
  p[i] -= lr * slope / sqrtf(s + eps);
}

// The same with velocity = momentum * velocity + what p would lose; p -= velocity
__global__ void __launch_bounds__(256)
rmsprop_momentum(float *__restrict__ p, float *__restrict__ mean_square, float *__restrict__ velocity,
                 const float *__restrict__ g, float lr, float rate, float momentum, float eps,
                 float weight_decay, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float slope = g[i] + weight_decay * p[i];
  float s = mean_square[i] + rate * (slope * slope - mean_square[i]);
  float v = momentum * velocity[i] + lr * slope / sqrtf(s + eps);
  mean_square[i] = s;
  velocity[i] = v;
  p[i] -= v;
}

// average += rate * (p - average)
__global__ void __launch_bounds__(256)
ema(float *__restrict__ average, const float *__restrict__ p, float rate, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) average[i] += rate * (p[i] - average[i]);
}

// x *= factor
__global__ void __launch_bounds__(256) scale(float *x, float factor, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= factor;
}

// x moved into low .. high; a NaN stays
__global__ void __launch_bounds__(256) limit(float *x, float low, float high, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

// y[part] = the sum of x^2 over its `chunk` of the n elements, one part by each block.
//
// In double, for squares leave the range of float long before gradients do. A thread adds every 256th number
// of the chunk, in four chains so that as many loads are under way; the threads are joined in a tree.
__global__ void __launch_bounds__(256)
sum_of_squares(const float *__restrict__ x, double *__restrict__ y, int chunk, int n) {
  __shared__ double part[256];
  int first = blockIdx.x * chunk, count = min(chunk, n - first);
  double chain[4] = {};
  float next[4];
  for (int i = threadIdx.x; i < count; i += 1024) {
#pragma unroll
    for (int j = 0; j < 4; j++) next[j] = i + 256 * j < count ? x[first + i + 256 * j] : 0.0f;
#pragma unroll
    for (int j = 0; j < 4; j++) chain[j] += double(next[j]) * next[j];
  }
  part[threadIdx.x] = (chain[0] + chain[1]) + (chain[2] + chain[3]);
  for (int half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) part[threadIdx.x] += part[threadIdx.x + half];
  }
  if (threadIdx.x == 0) y[blockIdx.x] = part[0];
}
