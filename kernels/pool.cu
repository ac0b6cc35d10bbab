// Pooling over channels-last images: maxima and means of windows, and their gradients.
//
// x, grad_x (N, H, W, C); y, g and taps (N, OH, OW, C); all contiguous. Of each axis of the image a struct
// says which positions a window reads, and which windows read a position: `Sliding` windows of one size, or
// the `Bins` of adaptive pooling.
//
// A thread computes Wide neighbouring channels of one pixel of the result, 1 or 4, which it reads and writes
// at once: 4 where they divide C and the arrays are aligned to 16 bytes. A block (width, height) has `width`
// neighbouring packs of channels of `height` neighbouring pixels, all in one row of the result: what concerns
// rows is the same for all its threads, and finding an element hardly takes a division.
//
// Gradients gather: the thread of a pixel of grad_x visits the windows that read this pixel, in row-major
// order. So every element is written once, nothing has to be cleared, and each sum has one order, the CPU's.
//
// Bound by: memory. Where windows overlap, their pixels come from the caches.
#include <pack.cuh>

// Windows of `kernel` positions every `stride` along one axis of the image, the first of them starting
// `before` positions ahead of it.
struct Sliding {
  int length, windows;         // positions; windows
  int kernel, stride, before;
  int reach;                   // how many windows may read one position: kernel / stride, rounded up
  int low, high;               // a mean counts the positions low .. high - 1, some of them padding

  __device__ int start(int window) const { return window * stride - before; }
  __device__ int begin(int window) const { return max(start(window), 0); }
  __device__ int end(int window) const { return min(start(window) + kernel, length); }
  // How many positions a mean divides by. A window wholly in the padding averages nothing: 0 / 1.
  __device__ int covered(int window) const {
    return max(min(start(window) + kernel, high) - max(start(window), low), 1);
  }
  // The windows first .. last - 1 read a position; `newest` is the last that starts there or before.
  __device__ int newest(int position) const { return (position + before) / stride; }
  __device__ int first(int position) const {
    int oldest = newest(position) + 1 - reach;
    return max(start(oldest) + kernel > position ? oldest : oldest + 1, 0);
  }
  __device__ int last(int position) const { return min(newest(position) + 1, windows); }
};

// Bin i reads floor(i * length / windows) up to ceil((i + 1) * length / windows): together they cover the
// axis, and may overlap.
struct Bins {
  int length, windows;

  __device__ int begin(int window) const { return window * length / windows; }
  __device__ int end(int window) const { return ((window + 1) * length + windows - 1) / windows; }
  __device__ int covered(int window) const { return end(window) - begin(window); }
  __device__ int first(int position) const { return position * windows / length; }
  __device__ int last(int position) const { return ((position + 1) * windows + length - 1) / length; }
};

// What a thread computes, in an array of `rows` times `columns` pixels of `packs` packs.
struct Place {
  int image, row, column, pack;
  bool inside;  // or nothing is left for it

  __device__ Place(int rows, int columns, int packs) {
    image = int(blockIdx.x) / rows, row = int(blockIdx.x) - image * rows;
    column = blockIdx.y * blockDim.y + threadIdx.y, pack = blockIdx.z * blockDim.x + threadIdx.x;
    inside = column < columns && pack < packs;
  }
};

// y = the largest element of each window, taps = its row-major number in it, the first one's of equals.
//
// Padding never wins. A NaN does, the first one.
template <class Tap, int Wide>
__global__ void __launch_bounds__(256)
max_pool(const float *__restrict__ x, float *__restrict__ y, Tap *__restrict__ taps, Sliding rows,
         Sliding columns, int packs) {
  Place place(rows.windows, columns.windows, packs);
  if (!place.inside) return;
  int i = place.row, j = place.column, c = packs * Wide;
  int a0 = rows.begin(i), a1 = rows.end(i), b0 = columns.begin(j), b1 = columns.end(j);
  int tap = (a0 - rows.start(i)) * columns.kernel + b0 - columns.start(j);
  const float *from = x + ((place.image * rows.length + a0) * columns.length + b0) * c + place.pack * Wide;
  Pack<float, Wide> best = load<Wide>(from);
  Pack<Tap, Wide> where;
  for (int k = 0; k < Wide; k++) where.at[k] = Tap(tap);
  for (int a = a0; a < a1; a++, tap += columns.kernel, from += columns.length * c)
    for (int b = b0; b < b1; b++) {
      Pack<float, Wide> values = load<Wide>(from + (b - b0) * c);
      for (int k = 0; k < Wide; k++) {
        if (values.at[k] <= best.at[k] || best.at[k] != best.at[k]) continue;
        best.at[k] = values.at[k];
        where.at[k] = Tap(tap + b - b0);
      }
    }
  int to = ((place.image * rows.windows + i) * columns.windows + j) * c + place.pack * Wide;
  store(y + to, best);
  store(taps + to, where);
}

// grad_x = the sum of g over the windows that this pixel won.
template <class Tap, int Wide>
__global__ void __launch_bounds__(256)
max_pool_grad(const float *__restrict__ g, const Tap *__restrict__ taps, float *__restrict__ grad_x,
              Sliding rows, Sliding columns, int packs) {
  Place place(rows.length, columns.length, packs);
  if (!place.inside) return;
  int c = packs * Wide, j0 = columns.first(place.column), j1 = columns.last(place.column);
  Pack<float, Wide> total{};
  for (int i = rows.first(place.row); i < rows.last(place.row); i++) {
    int from = ((place.image * rows.windows + i) * columns.windows + j0) * c + place.pack * Wide;
    int tap = (place.row - rows.start(i)) * columns.kernel + place.column - columns.start(j0);
    for (int j = j0; j < j1; j++, tap -= columns.stride, from += c) {
      Pack<float, Wide> arriving = load<Wide>(g + from);
      Pack<Tap, Wide> where = load<Wide>(taps + from);
      for (int k = 0; k < Wide; k++)
        if (where.at[k] == tap) total.at[k] += arriving.at[k];
    }
  }
  int to = ((place.image * rows.length + place.row) * columns.length + place.column) * c + place.pack * Wide;
  store(grad_x + to, total);
}

// y = the mean of each window.
template <class Axis, int Wide>
__global__ void __launch_bounds__(256)
avg_pool(const float *__restrict__ x, float *__restrict__ y, Axis rows, Axis columns, int packs) {
  Place place(rows.windows, columns.windows, packs);
  if (!place.inside) return;
  int i = place.row, j = place.column, c = packs * Wide;
  int a0 = rows.begin(i), a1 = rows.end(i), b0 = columns.begin(j), b1 = columns.end(j);
  const float *from = x + ((place.image * rows.length + a0) * columns.length + b0) * c + place.pack * Wide;
  Pack<float, Wide> total{};
  for (int a = a0; a < a1; a++, from += columns.length * c)
    for (int b = b0; b < b1; b++) {
      Pack<float, Wide> values = load<Wide>(from + (b - b0) * c);
      for (int k = 0; k < Wide; k++) total.at[k] += values.at[k];
    }
  float count = float(rows.covered(i) * columns.covered(j));
  for (int k = 0; k < Wide; k++) total.at[k] /= count;
  store(y + ((place.image * rows.windows + i) * columns.windows + j) * c + place.pack * Wide, total);
}

// grad_x = the sum of g / (what the window covers) over the windows that read this pixel.
template <class Axis, int Wide>
__global__ void __launch_bounds__(256)
avg_pool_grad(const float *__restrict__ g, float *__restrict__ grad_x, Axis rows, Axis columns, int packs) {
  Place place(rows.length, columns.length, packs);
  if (!place.inside) return;
  int c = packs * Wide, j0 = columns.first(place.column), j1 = columns.last(place.column);
  Pack<float, Wide> total{};
  for (int i = rows.first(place.row); i < rows.last(place.row); i++) {
    int from = ((place.image * rows.windows + i) * columns.windows + j0) * c + place.pack * Wide;
    int height = rows.covered(i);
#pragma unroll 2  // four would spill registers
    for (int j = j0; j < j1; j++, from += c) {
      Pack<float, Wide> arriving = load<Wide>(g + from);
      float share = 1.0f / float(height * columns.covered(j));
      for (int k = 0; k < Wide; k++) total.at[k] += arriving.at[k] * share;
    }
  }
  int to = ((place.image * rows.length + place.row) * columns.length + place.column) * c + place.pack * Wide;
  store(grad_x + to, total);
}

// y (N, C) = the mean over the `pixels` of an image.
//
// A block of (width, lanes) threads, width a power of two, takes width packs of one image. Lane l adds up the
// pixels l, l + lanes, ...; then the lanes' sums are added in halves.
template <int Wide>
__global__ void __launch_bounds__(256)
global_avg_pool(const float *__restrict__ x, float *__restrict__ y, int pixels, int packs) {
  __shared__ Pack<float, Wide> sums[256];
  int width = blockDim.x, lanes = blockDim.y, c = packs * Wide, t = threadIdx.y * width + threadIdx.x;
  int image = blockIdx.x, pack = blockIdx.y * width + threadIdx.x;
  Pack<float, Wide> total{};
  if (pack < packs) {
    const float *from = x + image * pixels * c + pack * Wide;
#pragma unroll 4
    for (int pixel = threadIdx.y; pixel < pixels; pixel += lanes) {
      Pack<float, Wide> values = load<Wide>(from + pixel * c);
      for (int k = 0; k < Wide; k++) total.at[k] += values.at[k];
    }
  }
  sums[t] = total;
  for (int half = width * lanes / 2; half >= width; half /= 2) {
    __syncthreads();
    if (t < half)
      for (int k = 0; k < Wide; k++) sums[t].at[k] += sums[t + half].at[k];
  }
  if (t >= width || pack >= packs) return;
  for (int k = 0; k < Wide; k++) total.at[k] = sums[t].at[k] / float(pixels);
  store(y + image * c + pack * Wide, total);
}
