// Elementwise arithmetic with broadcasting: one thread computes one element of the result.
//
// Operands may be arrays of any strides or numbers (then their pointer is null); the result y is contiguous, n
// elements. Every thread reads and writes once, so the result does not depend on their order.
//
// Bound by: memory. Neighbouring threads take neighbouring elements of y; operands that lie likewise are read
// in full lines.
#include <places.cuh>

struct Add {
  template <class T> static __device__ T of(T a, T b) { return a + b; }
};
struct Sub {
  template <class T> static __device__ T of(T a, T b) { return a - b; }
};
struct Mul {
  template <class T> static __device__ T of(T a, T b) { return a * b; }
};
struct Div {
  template <class T> static __device__ T of(T a, T b) { return a / b; }
};
struct Pow {
  static __device__ float of(float a, float b) { return powf(a, b); }
};
// A NaN on either side is the result, as in NumPy.
struct Maximum {
  template <class T> static __device__ T of(T a, T b) { return a > b || a != a ? a : b; }
};
struct Minimum {
  template <class T> static __device__ T of(T a, T b) { return a < b || a != a ? a : b; }
};
// relu's gradient: a where its result b is positive.
struct Gate {
  template <class T> static __device__ T of(T a, T b) { return b > 0 ? a : T(0); }
};

struct Less {
  template <class T> static __device__ bool of(T a, T b) { return a < b; }
};
struct LessEqual {
  template <class T> static __device__ bool of(T a, T b) { return a <= b; }
};
struct Greater {
  template <class T> static __device__ bool of(T a, T b) { return a > b; }
};
struct Equal {
  template <class T> static __device__ bool of(T a, T b) { return a == b; }
};

struct Neg {
  template <class T> static __device__ T of(T x) { return -x; }
};
struct Abs {
  template <class T> static __device__ T of(T x) { return x < 0 ? -x : x == 0 ? T(0) : x; }
};
struct Sign {
  template <class T> static __device__ T of(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }
};
struct Exp {
  static __device__ float of(float x) { return expf(x); }
};
struct Log {
  static __device__ float of(float x) { return logf(x); }
};
struct Sqrt {
  static __device__ float of(float x) { return sqrtf(x); }
};
struct Tanh {
  static __device__ float of(float x) { return tanhf(x); }
};
// For x < 0 as e / (1 + e) with e = exp(x): nothing overflows, no digit is lost.
struct Sigmoid {
  static __device__ float of(float x) {
    float e = expf(-fabsf(x));
    return (x >= 0 ? 1.0f : e) / (1.0f + e);
  }
};
// NaN stays NaN.
struct Relu {
  template <class T> static __device__ T of(T x) { return x < 0 ? T(0) : x; }
};

template <class Op, class T>
__global__ void __launch_bounds__(256) unary(const T *x, T *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = Op::of(x[place(places, 0, i)]);
}

template <class Op, class T>
__global__ void __launch_bounds__(256)
binary(const T *a, T number_a, const T *b, T number_b, T *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T left = a ? a[place(places, 0, i)] : number_a, right = b ? b[place(places, 1, i)] : number_b;
  y[i] = Op::of(left, right);
}

template <class Op, class T>
__global__ void __launch_bounds__(256)
compare(const T *a, T number_a, const T *b, T number_b, bool *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T left = a ? a[place(places, 0, i)] : number_a, right = b ? b[place(places, 1, i)] : number_b;
  y[i] = Op::of(left, right);
}

// y = condition ? a : b
template <class T>
__global__ void __launch_bounds__(256)
where(const bool *condition, const T *a, T number_a, const T *b, T number_b, T *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  bool first = condition[place(places, 2, i)];
  y[i] = first ? (a ? a[place(places, 0, i)] : number_a) : (b ? b[place(places, 1, i)] : number_b);
}

// x kept within low .. high; a NaN stays
template <class T>
__global__ void __launch_bounds__(256) clip(const T *x, T low, T high, T *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  T value = x[place(places, 0, i)];
  y[i] = value < low ? low : value > high ? high : value;
}

// y = x in another type
template <class From, class To>
__global__ void __launch_bounds__(256) cast(const From *x, To *y, Places places, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = To(x[place(places, 0, i)]);
}
