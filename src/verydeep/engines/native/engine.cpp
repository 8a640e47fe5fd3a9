// A sequence of layers run by a team of threads, behind a plain C interface.

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "layer.h"
#include "threads.h"

namespace avx512 {
std::unique_ptr<verydeep::Layer> make(const verydeep::Spec&);
std::unique_ptr<verydeep::Work> train(const verydeep::Convolution&, verydeep::Pass);
std::unique_ptr<verydeep::Work> normalize(const verydeep::Norm&, bool);
}
namespace avx2 {
std::unique_ptr<verydeep::Layer> make(const verydeep::Spec&);
std::unique_ptr<verydeep::Work> train(const verydeep::Convolution&, verydeep::Pass);
std::unique_ptr<verydeep::Work> normalize(const verydeep::Norm&, bool);
}
namespace portable {
std::unique_ptr<verydeep::Layer> make(const verydeep::Spec&);
std::unique_ptr<verydeep::Work> train(const verydeep::Convolution&, verydeep::Pass);
std::unique_ptr<verydeep::Work> normalize(const verydeep::Norm&, bool);
}

namespace verydeep {
namespace {

constexpr long TOGETHER = 16;  // images of a batch that go through the later layers together

enum Processor { PORTABLE, AVX2, AVX512 };

// Ask for large pages where they fit: the system then hands out large memory several times as fast.
void in_large_pages(void* data, long bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 1 << 21;
  const uintptr_t first = (uintptr_t(data) + PAGE - 1) / PAGE * PAGE, last = (uintptr_t(data) + bytes) / PAGE * PAGE;
  if (data && last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Memory that grows to the most that was asked of it.
struct Buffer {
  float* data = nullptr;
  long floats = 0;
  float* at_least(long wanted) {
    if (wanted > floats) {
      std::free(data);
      data = static_cast<float*>(std::aligned_alloc(4096, (size_t(wanted) * sizeof(float) + 4095) / 4096 * 4096));
      floats = data ? wanted : 0;
      if (!data) throw std::bad_alloc();
      in_large_pages(data, floats * long(sizeof(float)));
    }
    return data;
  }
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data(std::exchange(other.data, nullptr)), floats(std::exchange(other.floats, 0)) {}
  ~Buffer() { std::free(data); }
};

struct Engine {
  Make make;
  std::vector<std::unique_ptr<Layer>> layers;
  bool plain = false;  // whether the input is in the plain layout of a first layer
  long alone = 0;  // layers that are run for one image after the other: their activations are larger than their weights
  std::mutex turn;
  Buffer memory[2], between, shared;
  std::vector<Buffer> own;
  std::vector<std::atomic<long>> counters;

  // Run layers first to last, from `in` to `out`, which may be null for the engine's own memory; return the result.
  const float* run(size_t first, size_t last, const float* in, Shape shape, bool up, float* out, int threads) {
    std::vector<Shape> shapes{shape};
    long most[2] = {0, 0}, most_shared = 0, most_own = 0;
    for (size_t i = first; i < last; i++) {
      most_shared = std::max(most_shared, layers[i]->shared_scratch(shapes.back(), threads));
      most_own = std::max(most_own, layers[i]->own_scratch(shapes.back(), threads));
      shapes.push_back(layers[i]->shape(shapes.back(), up));
      most[i % 2] = std::max(most[i % 2], shapes.back().floats());
    }
    float* buffers[2] = {memory[0].at_least(most[0]), memory[1].at_least(most[1])};
    float* common = shared.at_least(most_shared);
    own.resize(std::max<size_t>(own.size(), threads));
    for (int t = 0; t < threads; t++) own[t].at_least(most_own);
    for (auto& counter : counters) counter = 0;
    in_parallel(threads, [&](int thread) {
      const float* from = in;
      for (size_t i = first; i < last; i++) {
        float* to = i + 1 == last && out ? out : buffers[i % 2];
        layers[i]->run(from, shapes[i - first], to, Part{thread, threads, up, own[thread].data, common, &counters[i]});
        wait_for_all(threads);
        from = to;
      }
    });
    return out ? out : buffers[(last - 1) % 2];
  }
};

Train train_by(int processor) {
#if defined(__x86_64__)
  if (processor == AVX2) return avx2::train;
  if (processor == AVX512) return avx512::train;
#endif
  return portable::train;
}

Normalize normalize_by(int processor) {
#if defined(__x86_64__)
  if (processor == AVX2) return avx2::normalize;
  if (processor == AVX512) return avx512::normalize;
#endif
  return portable::normalize;
}

// What passes of training work in, kept from one to the next: to ask the system for it takes as long as some of them.
struct Workshop {
  std::mutex turn;
  Buffer shared;
  std::vector<Buffer> own;
};

// Never destroyed: a thread of a process that ends may still be at work.
Workshop& workshop() {
  static Workshop& one = *new Workshop;
  return one;
}

void in_workshop(const Work& work, int threads, bool up) {
  Workshop& shop = workshop();
  std::lock_guard<std::mutex> turn(shop.turn);
  float* shared = shop.shared.at_least(work.shared_scratch(threads));
  shop.own.resize(std::max<size_t>(shop.own.size(), threads));
  for (int t = 0; t < threads; t++) shop.own[t].at_least(work.own_scratch(threads));
  std::atomic<long> counter{0};
  in_parallel(threads, [&](int thread) {
    work.run(Part{thread, threads, up, shop.own[thread].data, shared, &counter});
  });
}

Processor best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
  return PORTABLE;
}

}  // namespace
}  // namespace verydeep

using namespace verydeep;

extern "C" {

int vd_best_processor() { return best(); }

void* vd_new(int processor) {
  auto* engine = new Engine;
  engine->make = portable::make;
#if defined(__x86_64__)
  if (processor == AVX2) engine->make = avx2::make;
  if (processor == AVX512) engine->make = avx512::make;
#endif
  return engine;
}

void vd_delete(void* engine) { delete static_cast<Engine*>(engine); }

// Add a layer; 0 where it was packed, 1 where memory ran out.
int vd_add(void* handle, int kind, long in, long out, long kernel, const float* weights, const float* bias, int rectify,
           int pool, int low, int alone) try {
  auto& engine = *static_cast<Engine*>(handle);
  if (engine.layers.empty()) engine.plain = kind == FIRST;
  engine.layers.push_back(
      engine.make({Kind(kind), in, out, kernel, weights, bias, rectify != 0, pool != 0, low != 0}));
  engine.counters = std::vector<std::atomic<long>>(engine.layers.size());
  if (alone) engine.alone = long(engine.layers.size());
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// Run all layers; 0 when done, 1 where memory ran out. `in` is laid out [images][height][width][channels] where the
// first layer is a FIRST, else in blocks as `out`: see layer.h.
int vd_run(void* handle, const float* in, const long* shape, int up, float* out, int threads) try {
  auto& engine = *static_cast<Engine*>(handle);
  std::lock_guard<std::mutex> turn(engine.turn);
  const Shape all{shape[0], shape[1], shape[2], shape[3]};
  const size_t last = engine.layers.size(), middle = engine.alone;
  Shape one{1, all.channels, all.height, all.width}, then = one, end = one;
  for (size_t i = 0; i < last; i++) {
    if (i < middle) then = engine.layers[i]->shape(then, up);
    end = engine.layers[i]->shape(end, up);
  }
  const long channels = engine.plain ? all.channels : blocks_of(all.channels) * LANES;
  const long step = channels * all.height * all.width;
  for (long first = 0; first < all.images; first += TOGETHER) {
    const long count = std::min(TOGETHER, all.images - first);
    float* to = out + first * end.floats();
    const float* from = in + first * step;
    if (middle == 0) {
      engine.run(0, last, from, {count, all.channels, all.height, all.width}, up, to, threads);
      continue;
    }
    float* between = middle == last ? to : engine.between.at_least(count * then.floats());
    for (long i = 0; i < count; i++) engine.run(0, middle, from + i * step, one, up, between + i * then.floats(), threads);
    if (middle < last)
      engine.run(middle, last, between, {count, then.channels, then.height, then.width}, up, to, threads);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// Run one pass of a convolution in training; 0 when done, 1 where memory ran out.
int vd_train(int processor, const Convolution* convolution, int pass, int threads) try {
  in_workshop(*train_by(processor)(*convolution, Pass(pass)), threads, convolution->up != 0);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// Run batch norm in training, forward or back; 0 when done, 1 where memory ran out.
int vd_normalize(int processor, const Norm* norm, int back, int threads) try {
  in_workshop(*normalize_by(processor)(*norm, back != 0), threads, norm->up != 0);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}
}
