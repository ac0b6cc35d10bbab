// Where the elements of arrays lie that are walked together: NumPy's shapes, strides and broadcasting.
//
// Axes along which all arrays go on evenly are merged before a launch (backend/cuda/places.py), so contiguous
// arrays have one axis, and finding an element then takes no division.
#pragma once

constexpr int kAxes = 8;

// `axes` axes of `size` elements, outermost first, and how far apart neighbours lie in each array, in
// elements: 0 where it is repeated. The outermost size is not used.
struct Places {
  int axes;
  int size[kAxes];
  int step[3][kAxes];
};

// Where element i, counted in row-major order, lies in array `which`.
__device__ __forceinline__ int place(const Places &places, int which, int i) {
  int at = 0;
  for (int axis = places.axes - 1; axis > 0; axis--) {
    int whole = i / places.size[axis];
    at += (i - whole * places.size[axis]) * places.step[which][axis];
    i = whole;
  }
  return at + i * places.step[which][0];
}
