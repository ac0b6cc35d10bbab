// The GPU primitives that plain CUDA C++ has no word for, under names of our own.
//
// A kernel reaches dynamic shared memory, TF32 tensor cores and asynchronous copies through this header and
// in no other way. The one decision behind it: whatever has to be written differently to run a kernel
// anywhere else stands in this file, and the kernels themselves stay free of #ifdef and of inline assembly.
// Therefore they include <port.cuh>, and where the CPU runs them the path leads to emulator/port.cuh, which
// has the same names.
//
// Needs compute capability 8.0 for to_tf32, mma_tf32 and cp_async. Includes nothing, so that NVRTC takes it
// as nvcc does.
#pragma once

// DYN_SHARED(float, tile): `float *tile` at the start of the block's dynamic shared memory, whose size the
// launch gives.
//
// Aligned to 128 bytes, one row of the 32 banks, hence to all that a 16-byte copy asks for. Used once in a
// kernel: a second use would name the same memory again.
#define DYN_SHARED(T, name)                                        \
  extern __shared__ __align__(128) unsigned char name##_bytes[];   \
  T *name = reinterpret_cast<T *>(name##_bytes)

// x rounded to TF32 (8 bits of exponent, 10 of mantissa), to nearest with ties away from zero, as the bits
// mma_tf32 takes.
//
// A float passed without this is cut off instead of rounded: its mean error doubles and leans towards zero.
__device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// d += a @ b by the 32 lanes of a warp together.  a (16, 8) and b (8, 8) in TF32, d (16, 8) in float.
//
// All 32 lanes call it at once. Each holds a part of every matrix; with g = lane / 4 and t = lane % 4:
//
//     a[0] = A[g][t]      a[1] = A[g + 8][t]      a[2] = A[g][t + 4]      a[3] = A[g + 8][t + 4]
//     b[0] = B[t][g]      b[1] = B[t + 4][g]
//     d[0] = D[g][2t]     d[1] = D[g][2t + 1]     d[2] = D[g + 8][2t]     d[3] = D[g + 8][2t + 1]
//
// (PTX ISA, "Matrix Fragments for mma.m16n8k8", type .tf32.) The hardware adds the eight products in an order
// of its own, the same in every run.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Starts copying 4 or 16 Bytes from global to shared memory, or as many zeros when !valid; then `global` is
// not read.
//
// Both addresses are aligned to Bytes, and `global` points into its array even when !valid. Zeros instead of
// a branch are how padding and ragged edges are loaded. A copy of 16 bytes bypasses L1, all bypass the
// registers. It belongs to the lane that started it: after cp_wait that lane sees the bytes, and the others
// do after a __syncthreads() that follows.
template <int Bytes>
__device__ __forceinline__ void cp_async(void *shared, const void *global, bool valid) {
  static_assert(Bytes == 4 || Bytes == 16, "copies are of 4 or 16 bytes");
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  int bytes = valid ? Bytes : 0;
  if (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(address), "l"(global), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :: "r"(address), "l"(global), "r"(bytes)
                 : "memory");
}

// Closes a group: the copies this lane has started since the last cp_commit. An empty group counts as one.
__device__ __forceinline__ void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most Pending of this lane's groups are unfinished; the oldest finish first. cp_wait<0>()
// waits for all.
template <int Pending>
__device__ __forceinline__ void cp_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(Pending) : "memory");
}
