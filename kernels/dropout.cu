// Dropout, its mask from the counter-based generator Philox4x32-10: backend/cpu/dropout.py says which bits.
//
// One thread computes four elements, which are what one counter gives. None depends on another, so the mask
// is the same in every run, on every device.
//
// Bound by: memory and arithmetic about evenly: ten rounds of two 32-bit products for four elements of 8
// bytes.

// Four words from the counter (block, 0, call) under the key.
__device__ __forceinline__ void philox(unsigned block, unsigned call_low, unsigned call_high,
                                       unsigned key0, unsigned key1, unsigned (&word)[4]) {
  unsigned c0 = block, c1 = 0, c2 = call_low, c3 = call_high;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    unsigned low0 = 0xD2511F53u * c0, high0 = __umulhi(0xD2511F53u, c0);  // the paper's multipliers
    unsigned low1 = 0xCD9E8D57u * c2, high1 = __umulhi(0xCD9E8D57u, c2);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9E3779B9u;  // and the steps of its key: golden ratio, sqrt(3) - 1
    key1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// y = x * scale where the word of an element is at least `threshold`, else 0: n elements, both contiguous, y
// on 16 bytes.
//
// x may be a part of an array and start anywhere: then its numbers are read one by one.
__global__ void __launch_bounds__(256)
dropout(const float *__restrict__ x, float *__restrict__ y, unsigned threshold, float scale, unsigned key0,
        unsigned key1, unsigned call_low, unsigned call_high, int n) {
  int block = blockIdx.x * blockDim.x + threadIdx.x;
  if (block > (n - 1) / 4) return;
  int first = 4 * block;
  unsigned word[4];
  philox(block, call_low, call_high, key0, key1, word);
  if (n - first >= 4 && reinterpret_cast<unsigned long long>(x) % 16 == 0) {
    float4 in = *reinterpret_cast<const float4 *>(x + first), out;
    out.x = word[0] >= threshold ? in.x * scale : 0.0f;
    out.y = word[1] >= threshold ? in.y * scale : 0.0f;
    out.z = word[2] >= threshold ? in.z * scale : 0.0f;
    out.w = word[3] >= threshold ? in.w * scale : 0.0f;
    *reinterpret_cast<float4 *>(y + first) = out;
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (first + i < n) y[first + i] = word[i] >= threshold ? x[first + i] * scale : 0.0f;
  }
}
