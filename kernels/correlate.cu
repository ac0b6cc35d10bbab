// Convolution and its gradients as matrix products whose left operand is never written down: the columns that
// im2col would make are read from the image in place (an implicit GEMM).
//
//   forward    y = columns(x) weight        rows: output pixels, depth: (tap, channel)
//   grad_x     the same of g, with the weights turned round and their channels exchanged; with a stride s, s * s
//              times, for the pixels of each remainder modulo s and the taps that meet them: nothing is scattered
//   grad_weight  columns(x)^T g             rows: (tap, channel), depth: output pixels
//
// The struct Correlation (operands.cuh) holds the geometry and where everything lies. A block computes one tile
// of Rows x Columns elements for one group; groups are counted in blockIdx.z, together with the parts into
// which correlate_weight splits the pixels.
//
// VecX and VecW are the lengths of the chunks that are read: 4 where channels (of a group) and filters are
// multiples of four and addresses are aligned, else 1. An image of three channels has VecX = 1.
//
// Bound by: see multiply_simt.cuh and multiply_tf32.cuh; images are read once for each tap and tile of
// filters, mostly from the caches.
#include <multiply_simt.cuh>
#include <multiply_tf32.cuh>

// y = act(correlation of x with weight + bias), or y += it when adding; bias may be null. The weights of a
// filter lie channel by channel when Turned (w_channel is 1), else filters are neighbours (w_filter is 1).
template <class Math, int Rows, int Columns, int VecX, int VecW, bool Turned>
__global__ void __launch_bounds__(256, 2)
correlate(const float *x, const float *weight, const float *bias, float *y, const Correlation shape, int relu, int adding) {
  DYN_SHARED(float, shared);
  const TilePlace tile = tile_place<Rows, Columns>(shape.pixels(), shape.filters);
  const int group = blockIdx.z;
  const ImageColumns columns{shape, x + group * shape.x_group};
  const Weights<Turned> weights{shape, weight + group * shape.w_group};
  const float *offset = bias ? bias + group * shape.filters : nullptr;
  float *result = y + group * shape.y_group;
  auto line = [&](int m) {
    Pixel at = pixel(shape, m);
    return m < shape.pixels() ? at.image * shape.y_image + at.i * shape.y_row + at.j * shape.y_column : kOutside;
  };
  auto store = [&](int line, int n, float value) {
    if (line == kOutside || n >= shape.filters) return;
    float *to = result + line + n;
    if (offset) value += offset[n];
    if (adding) value += *to;
    *to = relu && value < 0 ? 0.0f : value;
  };
  Math::template multiply<Rows, Columns, VecX, VecW, true, Turned>(
      columns, weights, tile.row * Rows, tile.column * Columns, 0, shape.taps() * shape.channels, shared, line,
      store);
}

// part[p] = the gradient of the weights, (taps, channels, groups * filters), from the pixels of part p: g has
// the steps of y, and its pixels lie y_column apart throughout.
template <class Math, int Rows, int Columns, int VecX, int VecG>
__global__ void __launch_bounds__(256, 2)
correlate_weight(const float *x, const float *g, float *part, const Correlation shape, int groups, int parts, int part_pixels) {
  DYN_SHARED(float, shared);
  const int group = blockIdx.z / parts, p = blockIdx.z - group * parts, k0 = p * part_pixels;
  const int rows = shape.taps() * shape.channels, across = groups * shape.filters;
  const TilePlace tile = tile_place<Rows, Columns>(rows, shape.filters);
  const ImageColumnsTransposed columns{shape, x + group * shape.x_group};
  const Matrix arriving{g + group * shape.y_group, shape.filters, shape.pixels(), 1, shape.y_column};
  float *result = part + size_t(p) * rows * across + group * shape.filters;
  auto line = [&](int m) { return m < rows ? m * across : kOutside; };
  auto store = [&](int line, int n, float value) {
    if (line != kOutside && n < shape.filters) result[line + n] = value;
  };
  Math::template multiply<Rows, Columns, VecX, VecG, false, false>(
      columns, arriving, tile.row * Rows, tile.column * Columns, k0, min(shape.pixels(), k0 + part_pixels), shared,
      line, store);
}

// columns[p][k] = element k of the window of output pixel p, the matrix of im2col: n elements in all. For the
// plain version, to read and to compare with.
__global__ void __launch_bounds__(256) im2col(const float *x, float *columns, const Correlation shape, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int depth = shape.taps() * shape.channels, p = i / depth;
  bool valid;
  const float *from = read(shape, x, corner(shape, p), shift(shape, i - p * depth), valid);
  columns[i] = valid ? *from : 0.0f;
}
