// Neighbouring elements of an array, read and written at once.
#pragma once

template <class T, int Wide>
struct alignas(sizeof(T) * Wide) Pack {
  T at[Wide];
};

template <int Wide, class T>
__device__ __forceinline__ Pack<T, Wide> load(const T *from) {
  return *reinterpret_cast<const Pack<T, Wide> *>(from);
}

template <class T, int Wide>
__device__ __forceinline__ void store(T *to, const Pack<T, Wide> &values) {
  *reinterpret_cast<Pack<T, Wide> *>(to) = values;
}
