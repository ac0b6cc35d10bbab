// The operands of a matrix product y = A B, wherever their elements lie: matrices, and images read as one.
//
// A has rows m and B has rows n (it stands transposed here, so that both are alike); both have the depth k
// that is summed over. An operand says where element (row, k) lies, in two steps, because a thread asks for
// one row at many depths, or for many rows at one depth: row(r) and depth(k) do what takes divisions, and
// at(row, depth, valid) puts them together. Where an element is padding, or beyond the end, `valid` is false
// and the address is one that may be formed but is not read.
//
// A chunk of Vec neighbours is asked for by its first element. An operand is Deep if neighbours are those of
// one row at depths k, k + 1, ..., and wide if they are rows r, r + 1, ... at one depth. A chunk never lies
// across the end: with Vec = 4 rows, depths and channels are multiples of four.
#pragma once

constexpr int kNowhere = -(1 << 30);  // far outside every image
constexpr int kOutside = -(1 << 30) * 2;  // where no line of y can lie
constexpr int kBand = 16;

// Which tile of y a block computes, in tiles.
struct TilePlace {
  int row, column;
};

// Tiles are counted along the rows of a band of kBand columns, then in the next band. So blocks that run at
// once share the rows of A, often an image too large for the L2 cache, and the columns of one band of B.
__device__ __forceinline__ TilePlace tile_place(int block, int down, int across) {
  int band = block / (down * kBand), width = min(kBand, across - band * kBand);
  block -= band * down * kBand;
  int row = block / width;
  return {row, band * kBand + block - row * width};
}
template <int Rows, int Columns>
__device__ __forceinline__ TilePlace tile_place(int m, int n) {
  return tile_place(blockIdx.x, (m + Rows - 1) / Rows, (n + Columns - 1) / Columns);
}

// A matrix by its steps, in elements: one of the two is 1.
struct Matrix {
  const float *start;
  int rows, depths, row_step, depth_step;

  struct Row {
    int offset;
    bool inside;
  };
  struct Depth {
    int offset;
    bool inside;
  };
  __device__ Row row(int r) const { return {r * row_step, r < rows}; }
  __device__ Depth depth(int k) const { return {k * depth_step, k < depths}; }
  __device__ const float *at(const Row &row, const Depth &depth, bool &valid) const {
    valid = row.inside && depth.inside;
    return start + (valid ? row.offset + depth.offset : 0);
  }
};

// A correlation: output pixel (i, j) is a sum over taps (a, b) of the pixel of x in row
// i * stride_h + first_h + a * step_h (columns likewise), its channels weighted by tap and filter. All steps
// and offsets are in elements; channels and filters are those of one group, and groups lie *_group apart.
struct Correlation {
  int images, out_h, out_w, filters;
  int in_h, in_w, channels;
  int taps_h, taps_w;
  int stride_h, stride_w, first_h, first_w, step_h, step_w;
  int x_image, x_row, x_column, x_group;
  int y_image, y_row, y_column, y_group;
  int w_tap_h, w_tap_w, w_channel, w_filter, w_group;

  __device__ int pixels() const { return images * out_h * out_w; }
  __device__ int taps() const { return taps_h * taps_w; }
};

// Output pixel number p, as where its window starts.
struct Pixel {
  int image, i, j;
};
__device__ __forceinline__ Pixel pixel(const Correlation &shape, int p) {
  int line = p / shape.out_w, image = line / shape.out_h;
  return {image, line - image * shape.out_h, p - line * shape.out_w};
}

// Element k of a window: tap (a, b), channel c.
struct Element {
  int a, b, c;
};
__device__ __forceinline__ Element element(const Correlation &shape, int k) {
  int tap = k / shape.channels, a = tap / shape.taps_w;
  return {a, tap - a * shape.taps_w, k - tap * shape.channels};
}

// Where a window starts in x: offset of its image, row and column of its corner.
struct Corner {
  int image, i, j;
};
__device__ __forceinline__ Corner corner(const Correlation &shape, int p) {
  if (p >= shape.pixels()) return {0, kNowhere, 0};
  Pixel at = pixel(shape, p);
  return {at.image * shape.x_image, at.i * shape.stride_h + shape.first_h, at.j * shape.stride_w + shape.first_w};
}

// What an element of a window adds to that: rows, columns, and the channel.
struct Shift {
  int i, j, c;
};
__device__ __forceinline__ Shift shift(const Correlation &shape, int k) {
  if (k >= shape.taps() * shape.channels) return {kNowhere, 0, 0};
  Element at = element(shape, k);
  return {at.a * shape.step_h, at.b * shape.step_w, at.c};
}
__device__ __forceinline__ const float *read(
    const Correlation &shape, const float *x, const Corner &corner, const Shift &shift, bool &valid) {
  int i = corner.i + shift.i, j = corner.j + shift.j;
  valid = unsigned(i) < unsigned(shape.in_h) && unsigned(j) < unsigned(shape.in_w);
  return x + (valid ? corner.image + i * shape.x_row + j * shape.x_column + shift.c : 0);
}

// The matrix of columns that im2col would write, read from x in place: rows are output pixels, the depth is
// (tap, channel).
struct ImageColumns {
  const Correlation &shape;
  const float *x;

  using Row = Corner;
  using Depth = Shift;
  __device__ Row row(int r) const { return corner(shape, r); }
  __device__ Depth depth(int k) const { return shift(shape, k); }
  __device__ const float *at(const Row &row, const Depth &depth, bool &valid) const {
    return read(shape, x, row, depth, valid);
  }
};

// The same, transposed: rows are (tap, channel), the depth is output pixels.
struct ImageColumnsTransposed {
  const Correlation &shape;
  const float *x;

  using Row = Shift;
  using Depth = Corner;
  __device__ Row row(int r) const { return shift(shape, r); }
  __device__ Depth depth(int k) const { return corner(shape, k); }
  __device__ const float *at(const Row &row, const Depth &depth, bool &valid) const {
    return read(shape, x, depth, row, valid);
  }
};

// The weights of a correlation by their steps: rows are filters, the depth is (tap, channel). Only Turned ones
// may be a part of the taps; the others follow one another evenly, which spares two divisions for each.
template <bool Turned>
struct Weights {
  const Correlation &shape;
  const float *weight;

  using Row = Matrix::Row;
  using Depth = Matrix::Depth;
  __device__ Row row(int r) const { return {r * shape.w_filter, r < shape.filters}; }
  __device__ Depth depth(int k) const {
    if (!Turned) return {k * shape.w_channel, k < shape.taps() * shape.channels};
    Element at = element(shape, k);
    return {at.a * shape.w_tap_h + at.b * shape.w_tap_w + at.c * shape.w_channel,
            k < shape.taps() * shape.channels};
  }
  __device__ const float *at(const Row &row, const Depth &depth, bool &valid) const {
    valid = row.inside && depth.inside;
    return weight + (valid ? row.offset + depth.offset : 0);
  }
};

// What one thread of a block fetches of an operand's tile: Rows rows, Depths depths, in chunks of Vec. Threads
// that follow one another take neighbouring chunks.
template <int Threads, int Rows, int Depths, int Vec, bool Deep, class Operand>
struct Fetch {
  static constexpr int kAcross = (Deep ? Depths : Rows) / Vec;  // chunks side by side in memory
  static constexpr int kApart = Threads / kAcross;              // from one chunk of a thread to its next
  static constexpr int kChunks = (Deep ? Rows : Depths) / kApart;
  static_assert(Threads % kAcross == 0 && (Deep ? Rows : Depths) % kApart == 0, "the tile does not divide");

  const Operand &operand;
  int along, first;  // this thread's place in its line of chunks; its first line
  typename Operand::Row row[Deep ? kChunks : 1];

  __device__ Fetch(const Operand &operand, int first_row)
      : operand(operand), along(threadIdx.x % kAcross * Vec), first(threadIdx.x / kAcross) {
    if (Deep) {
#pragma unroll
      for (int i = 0; i < kChunks; i++) row[i] = operand.row(first_row + first + i * kApart);
    } else {
      row[0] = operand.row(first_row + along);
    }
  }

  // use(i, row in the tile, depth in the tile) for every chunk of this thread.
  template <class Use>
  __device__ __forceinline__ void place(Use use) const {
#pragma unroll
    for (int i = 0; i < kChunks; i++) {
      int line = first + i * kApart;
      use(i, Deep ? line : along, Deep ? along : line);
    }
  }

  // use(i, row, depth, address, valid) for every chunk, with its address when the tile starts at depth k.
  template <class Use>
  __device__ __forceinline__ void each(int k, Use use) const {
    bool valid;
    if (Deep) {
      typename Operand::Depth depth = operand.depth(k + along);
#pragma unroll
      for (int i = 0; i < kChunks; i++) {
        const float *address = operand.at(row[i], depth, valid);
        use(i, first + i * kApart, along, address, valid);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kChunks; i++) {
        typename Operand::Depth depth = operand.depth(k + first + i * kApart);
        const float *address = operand.at(row[0], depth, valid);
        use(i, along, first + i * kApart, address, valid);
      }
    }
  }
};
