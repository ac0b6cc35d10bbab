// y = A B for matrices of any layout, in float32 or on TF32 tensor cores: fully connected layers, 1x1
// convolutions (a batch of images is a matrix of pixels by channels), and the second half of im2col.
//
// A block computes one tile of Rows x Columns elements of y, the one that blockIdx.x counts (tile_place);
// blockIdx.z counts products of a batch, or the parts into which a long depth is split: few tiles over many
// pixels, as for the gradient of weights, would leave most of a GPU idle. Parts are written apart and added by
// sum_parts in their order, so the sum is the same in every run.
//
// a: element (m, k) at m * a_row + k * a_depth; b: element (k, n) at n * b_row + k * b_depth; y: row m at
// m * y_row. One of the two steps is 1: the depth's if the operand is Deep. Vec = 4 asks that addresses and
// all other steps are multiples of four.
//
// Registers are limited so that two blocks fit on a multiprocessor: one computes while the other waits.
//
// Bound by: see multiply_simt.cuh and multiply_tf32.cuh.
#include <multiply_simt.cuh>
#include <multiply_tf32.cuh>

struct Product {
  int m, n, k;
  int a_row, a_depth, b_row, b_depth, y_row;
  int a_batch, b_batch, y_batch;  // from one product of the batch to the next; of y, from one blockIdx.z
  int parts, part_depth;          // per product; the depth of each but the last
  int relu, adding;
};

// y = act(A B + bias), or y += A B when adding; bias may be null.
template <class Math, int Rows, int Columns, int Vec, bool DeepA, bool DeepB>
__global__ void __launch_bounds__(256, 2)
product(const float *a, const float *b, const float *bias, float *y, const Product shape) {
  DYN_SHARED(float, shared);
  const TilePlace tile = tile_place<Rows, Columns>(shape.m, shape.n);
  const int z = blockIdx.z, batch = z / shape.parts, k0 = (z - batch * shape.parts) * shape.part_depth;
  const Matrix left{a + size_t(batch) * shape.a_batch, shape.m, shape.k, shape.a_row, shape.a_depth};
  const Matrix right{b + size_t(batch) * shape.b_batch, shape.n, shape.k, shape.b_row, shape.b_depth};
  float *result = y + size_t(z) * shape.y_batch;
  auto line = [&](int m) { return m < shape.m ? m * shape.y_row : kOutside; };
  auto store = [&](int line, int n, float value) {
    if (line == kOutside || n >= shape.n) return;
    float *to = result + line + n;
    if (bias) value += bias[n];
    if (shape.adding) value += *to;
    *to = shape.relu && value < 0 ? 0.0f : value;
  };
  Math::template multiply<Rows, Columns, Vec, Vec, DeepA, DeepB>(
      left, right, tile.row * Rows, tile.column * Columns, k0, min(shape.k, k0 + shape.part_depth), shared, line,
      store);
}

// y[i] = sum over parts p of part[p * n + i], in their order
__global__ void __launch_bounds__(256) sum_parts(const float *part, float *y, int parts, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float total = 0;
#pragma unroll 8  // so many loads are under way at once
  for (int p = 0; p < parts; p++) total += part[size_t(p) * n + i];
  y[i] = total;
}
