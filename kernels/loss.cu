// Softmax cross-entropy: losses and gradient from one launch over the logits.
//
// One row of logits is taken by `width` lanes, which read it three times, from the caches after the first;
// they add up what they have in a tree, so the sums are the same in every run.
//
// Bound by: memory, where there are rows enough; by the exponentials of its warps where not.
#include <rows.cuh>

// logits (rows, k), labels (rows,): -1 where the row does not count; class_weight (k,), null: ones
// -> losses (rows,), grad (rows, k)
//
// losses = -sum_i q_i log p_i with p = softmax(logits) and q_i = w_i (own [i = label] + share); grad = p *
// sum_i q_i - q. Where q_i is 0, log p_i may be infinite: nothing is added. All is 0 in rows that do not
// count, whatever their logits hold.
__global__ void __launch_bounds__(256)
cross_entropy(const float *__restrict__ logits, const int *__restrict__ labels,
              const float *__restrict__ class_weight, float own, float share, float *__restrict__ losses,
              float *__restrict__ grad, int rows, int k, int width) {
  int row = row_of(width), lane = threadIdx.x % width;
  bool inside = row < rows;
  int label = inside ? labels[row] : -1, start = inside ? row * k : 0;
  int count = label < 0 ? 0 : k;
  const float *x = logits + start;

  Exponentials found = exponentials(x, count, lane, width);
  float log_sum = logf(found.sum), whole = 0, loss = 0;
  auto asked = [&](int i) {
    float w = class_weight ? class_weight[i] : 1.0f;
    return i == label ? w * share + w * own : w * share;
  };
  for (int i = lane; i < count; i += width) whole += asked(i);
  whole = sum_of_lanes(whole, width);
  for (int i = lane; i < count; i += width) {
    float q = asked(i), log_p = x[i] - found.largest - log_sum;
    if (q != 0) loss -= q * log_p;
    grad[start + i] = expf(log_p) * whole - q;
  }
  loss = sum_of_lanes(loss, width);
  if (!inside) return;
  if (lane == 0) losses[row] = loss;
  if (label < 0)
    for (int i = lane; i < k; i += width) grad[start + i] = 0;
}
