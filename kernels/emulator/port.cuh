// The names of ../port.cuh for the emulator, with the same meaning: read that file for what each does.
//
// This one says how the emulator checks their use. The include path decides which of the two a kernel gets.
#pragma once

#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(emulator::launch_->dynamic)

static inline unsigned to_tf32(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

// The products are added one after the other, which is one of the orders the hardware may take.
static inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Part {
    float *d;
    const unsigned *a, *b;
  } part{d, a, b};
  emulator::together(emulator::kWholeWarp, &part, [](emulator::Warp &warp) {
    auto number = [](unsigned bits) {
      float x;
      bits &= 0xffffe000u;  // the hardware does not look at the rest
      memcpy(&x, &bits, 4);
      return x;
    };
    float a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
      const Part *mine = static_cast<const Part *>(warp.brought[lane]);
      int g = lane / 4, t = lane % 4;
      a[g][t] = number(mine->a[0]), a[g + 8][t] = number(mine->a[1]);
      a[g][t + 4] = number(mine->a[2]), a[g + 8][t + 4] = number(mine->a[3]);
      b[t][g] = number(mine->b[0]), b[t + 4][g] = number(mine->b[1]);
    }
    for (int lane = 0; lane < 32; lane++) {
      const Part *mine = static_cast<const Part *>(warp.brought[lane]);
      int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++) mine->d[i] += a[g + 8 * (i / 2)][k] * b[k][2 * t + i % 2];
    }
  });
}

namespace emulator {
static inline void land(const Copy &copy) {
  memcpy(copy.to, copy.from, copy.bytes);
  memset(static_cast<char *>(copy.to) + copy.bytes, 0, copy.room - copy.bytes);
}
}  // namespace emulator

// Copies land as late as the rules allow, at the wait that asks for them, or as early.
template <int Bytes>
static inline void cp_async(void *shared, const void *global, bool valid) {
  static_assert(Bytes == 4 || Bytes == 16, "copies are of 4 or 16 bytes");
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % Bytes)
    emulator::fail("an asynchronous copy of " + std::to_string(Bytes) + " bytes is not aligned to as many");
  emulator::Copy copy{shared, global, valid ? Bytes : 0, Bytes};
  if (emulator::launch_->early_copies) emulator::land(copy), copy.bytes = copy.room = 0;
  emulator::self().copies.push_back(copy);
  emulator::self().open++;
}

static inline void cp_commit() {
  emulator::Fiber &fiber = emulator::self();
  fiber.groups.push_back(fiber.open);
  fiber.open = 0;
}

template <int Pending>
static inline void cp_wait() {
  emulator::Fiber &fiber = emulator::self();
  if (fiber.groups.size() <= size_t(Pending)) return;
  auto last_group = fiber.groups.end() - Pending;
  auto last = fiber.copies.begin() + std::accumulate(fiber.groups.begin(), last_group, size_t(0));
  std::for_each(fiber.copies.begin(), last, emulator::land);
  fiber.copies.erase(fiber.copies.begin(), last);
  fiber.groups.erase(fiber.groups.begin(), last_group);
}
