// Runs CUDA kernels on the CPU: g++ compiles the very same .cu files with this header included before them.
//
// The threads of a block are fibers of one OS thread: each has a stack of its own and runs until it reaches a
// barrier, an operation of its whole warp, or its end; then the scheduler goes on with another. Blocks run
// one after the other. That is slow, some 10 ns for a thread and 40 ns for each of its barriers, but stricter
// than a GPU:
//
//   - shared memory reads as NaN at the start of every block, so what nobody has written is seen;
//   - an asynchronous copy lands only at the wait that needs it, so a missing wait is seen; in backward order
//     it lands at once, so a copy into memory that others still read is seen;
//   - threads run in one of three orders (forward, backward, shuffled anew at every turn), so that a missing
//     barrier gives other results in one of them;
//   - a barrier that some threads of the block do not reach, that they reach in different lines, or that
//     nobody can leave, ends the launch with a message; so do a shuffle from a lane that takes no part, lanes
//     of a warp that meet in different operations, and a thread that ends while its copies are under way.
//
// It knows nothing of speed: not of coalescing, bank conflicts, or caches. Stores beside an array are found
// by the caller, who puts a frame of known bytes around each (minidl/backend/cuda/emulator.py); what lies far
// from all memory ends the launch too.
#pragma once
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// Shared arrays make up the thread-local storage of the compiled library, whose place can be found.
#define __shared__ static thread_local

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct __align__(16) float4 { float x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {

// ---- The state of a launch ---------------------------------------------------------------------------------

constexpr size_t kStack = 64 << 10;   // bytes for one fiber
constexpr size_t kApart = kStack + 320;  // not a power of two: the stacks would meet in the same cache sets
constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

struct Copy {  // `bytes` from global memory, and zeros up to `room`
  void *to;
  const void *from;
  int bytes, room;
};

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Fiber {
  dim3 thread;
  int lane, warp;
  State state;
  char *stack;  // nullptr before it has started, and once it has ended
  int barrier;  // the line of the barrier it waits at
  std::vector<Copy> copies;    // under way, oldest first
  std::vector<size_t> groups;  // how many of them belong to each group that has been closed
  size_t open;                 // and how many to none so far
#ifdef __x86_64__
  void *stack_pointer;
#else
  ucontext_t context;
#endif
};

struct Warp {
  unsigned waiting;              // lanes that have arrived at an operation of the warp
  const void *brought[kWarp];    // what each of them brings
  const void *operation[kWarp];  // which one it is
  unsigned mask[kWarp];          // and who is to take part
};

struct Launch {
  dim3 grid, block, at;  // `at`: the block that runs
  char *dynamic;         // shared memory of the launch's size
  void (*body)(void **);
  void **arguments;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<size_t> order;  // in which the threads get their turns
  size_t turn;                // a place in it
  Fiber *running;
  pthread_t os_thread;  // that all this runs in
  bool early_copies;    // whether asynchronous copies land as early as they may, or as late
  std::string failure;  // why the launch cannot go on, or ""
#ifdef __x86_64__
  void *scheduler;
#else
  ucontext_t scheduler;
#endif
};

static Launch *launch_;                   // one at a time in each library: the caller holds a lock
static std::vector<char *> free_stacks_;  // kept between launches

static inline Fiber &self() { return *launch_->running; }

// ---- Fibers ------------------------------------------------------------------------------------------------

static inline void run_body();
[[noreturn]] static inline void fail(const std::string &why);

#ifdef __x86_64__
// Saves the registers that a function must keep on the stack, and the stack's place in *save; goes on at
// `to`.
extern "C" void emulator_switch(void **save, void *to);
asm(".text\n.weak emulator_switch\n.type emulator_switch, @function\nemulator_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");

static inline void to_scheduler() { emulator_switch(&self().stack_pointer, launch_->scheduler); }

static inline void go_on_with(Fiber &fiber) {
  launch_->running = &fiber;
  emulator_switch(&launch_->scheduler, fiber.stack_pointer);
}

static inline void prepare(Fiber &fiber) {
  void **top = reinterpret_cast<void **>(fiber.stack + kStack) - 1;
  *top = nullptr;  // a return address for run_body, which never returns; it keeps the stack aligned
  *--top = reinterpret_cast<void *>(run_body);
  for (int i = 0; i < 6; i++) *--top = nullptr;  // the registers
  fiber.stack_pointer = top;
}
#else
static inline void to_scheduler() { swapcontext(&self().context, &launch_->scheduler); }

static inline void go_on_with(Fiber &fiber) {
  launch_->running = &fiber;
  swapcontext(&launch_->scheduler, &fiber.context);
}

static inline void prepare(Fiber &fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_body, 0);
}
#endif

// Gives a fiber a stack to start on: the one that was left last, which is in the cache.  false: there is no
// memory.
static inline bool start(Fiber &fiber) {
  constexpr size_t kMore = 32;
  if (free_stacks_.empty()) {
    void *more = mmap(nullptr, kMore * kApart, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (more == MAP_FAILED) return false;
    for (size_t i = kMore; i > 0; i--) free_stacks_.push_back(static_cast<char *>(more) + (i - 1) * kApart);
  }
  fiber.stack = free_stacks_.back();
  free_stacks_.pop_back();
  prepare(fiber);
  return true;
}

static inline void leave_stack(Fiber &fiber) {
  if (fiber.stack) free_stacks_.push_back(fiber.stack);
  fiber.stack = nullptr;
}

static inline std::string text(const dim3 &at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
}

// Ends the launch. What the fibers have on their stacks is given up.
[[noreturn]] static inline void fail(const std::string &why) {
  launch_->failure = why + ": thread " + text(self().thread) + " of block " + text(launch_->at);
  for (;;) to_scheduler();
}

// The handler of SIGSEGV during a launch. Where a kernel is to blame it goes on with the scheduler and never
// returns; a fault of another thread strikes again without it.
static inline void on_fault(int signal, siginfo_t *, void *) {
  if (pthread_equal(pthread_self(), launch_->os_thread)) fail("it reads or writes far from any array");
  ::signal(signal, SIG_DFL);
}

// The thread whose turn is next, if it has yet to start.
static inline Fiber *next_to_start() {
  if (launch_->turn + 1 == launch_->order.size()) return nullptr;
  Fiber &next = launch_->fibers[launch_->order[launch_->turn + 1]];
  return next.state == State::kReady && !next.stack ? &next : nullptr;
}

// What a fiber does: a thread, and then the next one, as long as that can have this stack. So a kernel
// without barriers goes through a block with neither a switch nor a second stack.
static inline void run_body() {
  for (;;) {
    launch_->body(launch_->arguments);
    Fiber &ended = self();
    ended.state = State::kDone;
    if (!ended.copies.empty()) fail("a thread ended while copies it had started were under way");
    ended.groups.clear();  // empty ones need no wait
    Fiber *next = next_to_start();
    if (!next) {
      leave_stack(ended);
      to_scheduler();  // for good
    }
    launch_->turn++;
    launch_->running = next;
    std::swap(next->stack, ended.stack);
  }
}

// ---- The scheduler -----------------------------------------------------------------------------------------

struct Storage {
  const void *inside;  // an address within the library
  void *start;
  size_t bytes;
};

static inline int find_storage(dl_phdr_info *info, size_t, void *wanted) {
  Storage *storage = static_cast<Storage *>(wanted);
  bool here = false;
  size_t bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto &header = info->dlpi_phdr[i];
    uintptr_t offset = reinterpret_cast<uintptr_t>(storage->inside) - (info->dlpi_addr + header.p_vaddr);
    if (header.p_type == PT_LOAD && offset < header.p_memsz) here = true;
    if (header.p_type == PT_TLS) bytes = header.p_memsz;
  }
  if (here && info->dlpi_tls_data) storage->start = info->dlpi_tls_data, storage->bytes = bytes;
  return here;
}

static thread_local volatile char touched_;  // thread-local storage is there once something of it was used

// Where the __shared__ arrays of the library lie for this OS thread.
static inline Storage find_shared() {
  touched_ = 1;
  Storage storage{reinterpret_cast<const void *>(&find_storage), nullptr, 0};
  dl_iterate_phdr(find_storage, &storage);
  return storage;
}

enum Schedule { kForward, kBackward, kShuffled };

// "" when all threads of the block that have not ended wait in the same line, else what is wrong.
static inline std::string divergence() {
  const Fiber *first = nullptr;
  for (const auto &fiber : launch_->fibers) {
    if (fiber.state != State::kAtBarrier) continue;
    if (!first) first = &fiber;
    if (fiber.barrier != first->barrier)
      return "divergent barrier: some threads of a block wait in __syncthreads() in line " +
             std::to_string(first->barrier) + ", others in line " + std::to_string(fiber.barrier);
  }
  for (const auto &fiber : launch_->fibers)
    if (fiber.state == State::kDone)
      return "divergent barrier: __syncthreads() in line " + std::to_string(first->barrier) +
             " is not reached by all threads of a block";
  return "";
}

static inline void run_block(Schedule schedule, std::mt19937 &random) {
  auto &fibers = launch_->fibers;
  auto &order = launch_->order;
  auto &failure = launch_->failure;
  const size_t count = fibers.size();
  for (size_t i = 0; i < count; i++) {
    order[i] = schedule == kBackward ? count - 1 - i : i;
    fibers[i].state = State::kReady;
  }
  for (auto &warp : launch_->warps) warp.waiting = 0;
  for (;;) {
    if (schedule == kShuffled) std::shuffle(order.begin(), order.end(), random);
    bool moved = false;
    for (launch_->turn = 0; launch_->turn < count; launch_->turn++) {
      Fiber &fiber = fibers[order[launch_->turn]];
      if (fiber.state != State::kReady) continue;
      if (!fiber.stack && !start(fiber)) failure = "no memory for the stacks of a block";
      if (failure.empty()) go_on_with(fiber);
      if (!failure.empty()) return;
      moved = true;
    }
    size_t waiting = 0, ended = 0;
    for (const auto &fiber : fibers) {
      waiting += fiber.state == State::kAtBarrier;
      ended += fiber.state == State::kDone;
    }
    if (ended == count) return;
    if (waiting && waiting + ended == count) {
      failure = divergence();
      if (!failure.empty()) return;
      for (auto &fiber : fibers) fiber.state = State::kReady;
    } else if (!moved) {
      failure = "deadlock: threads of a block wait in a barrier or in an operation of their warp for others "
                "that will not come";
      return;
    }
  }
}

// Runs all blocks; "" or what went wrong.
static inline std::string run(void (*body)(void **), void **arguments, dim3 grid, dim3 block,
                              size_t shared_bytes, Schedule schedule) {
  const size_t count = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
  Launch launch{};
  launch.grid = grid, launch.block = block, launch.body = body, launch.arguments = arguments;
  launch.os_thread = pthread_self();
  launch.early_copies = schedule == kBackward;
  launch.fibers.resize(count);
  launch.warps.resize((count + kWarp - 1) / kWarp);
  for (size_t i = 0; i < count; i++) {
    Fiber &fiber = launch.fibers[i];
    fiber.thread = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    fiber.lane = i % kWarp, fiber.warp = i / kWarp;
  }
  std::vector<char> dynamic(shared_bytes + 128);
  launch.dynamic = dynamic.data() + (-reinterpret_cast<uintptr_t>(dynamic.data()) & 127);
  const Storage shared = find_shared();
  launch.order.resize(count);
  std::mt19937 random(0);
  launch_ = &launch;
  struct sigaction on_faults {}, before;
  on_faults.sa_sigaction = on_fault, on_faults.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &on_faults, &before);
  for (size_t i = 0; i < blocks && launch.failure.empty(); i++) {
    size_t k = schedule == kBackward ? blocks - 1 - i : i;
    launch.at = {unsigned(k % grid.x), unsigned(k / grid.x % grid.y), unsigned(k / grid.x / grid.y)};
    if (shared.start) memset(shared.start, 0xFF, shared.bytes);  // NaN
    memset(dynamic.data(), 0xFF, dynamic.size());
    run_block(schedule, random);
  }
  sigaction(SIGSEGV, &before, nullptr);
  for (auto &fiber : launch.fibers) leave_stack(fiber);  // where the launch has failed
  return launch.failure;
}

// ---- What the threads of a block do together ---------------------------------------------------------------

static inline void barrier(int line) {
  self().state = State::kAtBarrier;
  self().barrier = line;
  to_scheduler();
}

// Each lane of `mask` brings something; the last one to arrive does `exchange` for all, then all go on. An
// exchange is a lambda and has a type of its own, which tells one operation from another.
template <class Exchange>
inline void together(unsigned mask, const void *brought, Exchange exchange) {
  Fiber &fiber = self();
  Warp &warp = launch_->warps[fiber.warp];
  if (!(mask >> fiber.lane & 1)) fail("a lane takes part in an operation of its warp but is not in the mask");
  static const char operation = 0;
  warp.brought[fiber.lane] = brought;
  warp.operation[fiber.lane] = &operation;
  warp.mask[fiber.lane] = mask;
  warp.waiting |= 1u << fiber.lane;
  if ((warp.waiting & mask) != mask) {
    fiber.state = State::kInWarp;
    to_scheduler();
    return;
  }
  for (int lane = 0; lane < kWarp; lane++)
    if (mask >> lane & 1 && (warp.operation[lane] != &operation || warp.mask[lane] != mask))
      fail("lanes of a warp wait for each other in different operations, or with different masks");
  exchange(warp);
  warp.waiting &= ~mask;
  for (int lane = 0; lane < kWarp; lane++)
    if (mask >> lane & 1) launch_->fibers[fiber.warp * kWarp + lane].state = State::kReady;
}

template <class T>
inline T shuffle(unsigned mask, T value, int source) {
  struct Part {
    T value;
    int source;
    T result;
  } part{value, source, value};
  together(mask, &part, [mask](Warp &warp) {
    for (int lane = 0; lane < kWarp; lane++) {
      if (!(mask >> lane & 1)) continue;
      Part *mine = static_cast<Part *>(const_cast<void *>(warp.brought[lane]));
      int from = mine->source & (kWarp - 1);
      if (!(mask >> from & 1)) fail("a shuffle reads from a lane that takes no part in it");
      mine->result = static_cast<const Part *>(warp.brought[from])->value;
    }
  });
  return part.result;
}

// ---- How a library is called -------------------------------------------------------------------------------

template <class... Parameters, size_t... I>
inline void call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<Parameters> *>(arguments[I])...);
}

template <auto Kernel>
struct Entry;

template <class... Parameters, void (*Kernel)(Parameters...)>
struct Entry<Kernel> {
  static void body(void **arguments) { call(Kernel, arguments, std::index_sequence_for<Parameters...>()); }

  // `sizes`: how many bytes each argument has, which a struct of other fields would betray.
  static const char *launch(void **arguments, const unsigned *sizes, const unsigned *shape,
                            size_t shared_bytes, int schedule) {
    static std::string failure;
    const size_t wanted[] = {sizeof(Parameters)...};
    for (size_t i = 0; i < sizeof...(Parameters); i++) {
      if (sizes[i] == wanted[i]) continue;
      failure = "argument " + std::to_string(i) + " has " + std::to_string(sizes[i]) +
                " bytes, the kernel takes " + std::to_string(wanted[i]);
      return failure.c_str();
    }
    dim3 grid{shape[0], shape[1], shape[2]}, block{shape[3], shape[4], shape[5]};
    failure = run(body, arguments, grid, block, shared_bytes, Schedule(schedule));
    return failure.c_str();
  }
};

}  // namespace emulator

// EMULATE(symbol, kernel): `symbol(arguments, sizes, shape, shared_bytes, schedule)` launches the kernel,
// which may be an instance of a template. arguments: the address of each; shape: grid x, y, z, block x, y, z.
#define EMULATE(symbol, ...)                                                                       \
  extern "C" const char *symbol(void **arguments, const unsigned *sizes, const unsigned *shape,    \
                                size_t shared_bytes, int schedule) {                               \
    return emulator::Entry<&__VA_ARGS__>::launch(arguments, sizes, shape, shared_bytes, schedule); \
  }

// ---- CUDA's own names --------------------------------------------------------------------------------------

#define threadIdx (emulator::self().thread)
#define blockIdx (emulator::launch_->at)
#define blockDim (emulator::launch_->block)
#define gridDim (emulator::launch_->grid)
#define __syncthreads() emulator::barrier(__LINE__)

static inline void __syncwarp(unsigned mask = emulator::kWholeWarp) {
  emulator::together(mask, nullptr, [](emulator::Warp &) {});
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source) {
  return emulator::shuffle(mask, value, source);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return emulator::shuffle(mask, value, emulator::self().lane ^ bits);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, int distance) {
  int source = emulator::self().lane + distance;
  return emulator::shuffle(mask, value, source < emulator::kWarp ? source : emulator::self().lane);
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
using std::max;
using std::min;
