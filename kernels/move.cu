// Moving elements without computing: copies between arrays of any strides, frames, gathered elements.
//
// Words stand for elements of as many bytes, whatever they mean. One thread moves one element; every element
// of the result is written by one thread.
//
// Bound by: memory. Where neighbours in y are far apart in x (a transposed copy), each line of x is read
// several times, mostly from the caches.
#include <places.cuh>

// y = x, both of any strides: n elements
template <class Word>
__global__ void __launch_bounds__(256) copy(const Word *x, Word *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[place(places, 1, i)] = x[place(places, 0, i)];
}

// y = value: n elements in a row
template <class Word>
__global__ void __launch_bounds__(256) fill(Word *y, Word value, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = value;
}

// y[i] = x[index[i]], x being contiguous
template <class Word>
__global__ void __launch_bounds__(256) gather(const Word *x, const int *index, Word *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[index[i]];
}

// y[index[i]] = x[i], the indices being all different and y contiguous
template <class Word>
__global__ void __launch_bounds__(256) scatter(const Word *x, const int *index, Word *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[index[i]] = x[i];
}

// y[target[i]] += the sum of g[source[j]] for start[i] <= j < start[i + 1], in this order: n targets, all
// different.
template <class T>
__global__ void __launch_bounds__(256)
add_at(const T *g, const int *source, const int *start, const int *target, T *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T total = y[target[i]];
  for (int j = start[i]; j < start[i + 1]; j++) total += g[source[j]];
  y[target[i]] = total;
}
