// Images as a model takes them.
//
// One thread computes one element of the result, by itself.
//
// Bound by: memory, mostly the result's, which is four times as large as images of bytes.
#include <places.cuh>

// y = x * scale + shift, per channel.  images x of any strides (a reversed order of channels is a stride), y
// (N, H, W, C), n elements; scale and shift (C,)
template <class T>
__global__ void __launch_bounds__(256)
standardise(const T *x, const float *scale, const float *shift, float *y, Places places, int c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int channel = i % c;
  y[i] = float(x[place(places, 0, i)]) * scale[channel] + shift[channel];
}
