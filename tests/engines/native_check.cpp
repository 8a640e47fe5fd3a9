// The kernels against plain loops in double, under the address and undefined-behavior sanitizers: `make test-native`.
// Inputs and outputs are allocated to their last byte, so that one read or written too far is noticed.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

extern "C" {
int vd_best_processor();
void* vd_new(int processor);
void vd_delete(void* engine);
int vd_add(void* engine, int kind, long in, long out, long kernel, const float* weights, const float* bias, int rectify,
           int pool, int low, int alone);
int vd_run(void* engine, const float* in, const long* shape, int up, float* out, int threads);
}

namespace {

constexpr long LANES = 16;
enum Kind { FIRST, WINOGRAD, WINDOW, POOL };

std::mt19937 chance;
float normal() { return std::normal_distribution<float>()(chance); }
long between(long least, long most) { return std::uniform_int_distribution<long>(least, most)(chance); }
long blocks(long channels) { return (channels + LANES - 1) / LANES; }

struct Case {
  Kind kind;
  long images, in, out, kernel, height, width;
  int rectify, pool, low, alone, up, threads;
};

// Values [images][channels][height][width].
struct Array {
  long images, channels, height, width;
  std::vector<double> values;
  Array(long n, long c, long h, long w) : images(n), channels(c), height(h), width(w), values(n * c * h * w) {}
  double& at(long n, long c, long y, long x) { return values[((n * channels + c) * height + y) * width + x]; }
};

std::unique_ptr<float[]> laid_out(Array& a, bool plain) {
  const long channels = plain ? a.channels : blocks(a.channels) * LANES;
  std::unique_ptr<float[]> out(new float[a.images * channels * a.height * a.width]());
  for (long n = 0; n < a.images; n++)
    for (long c = 0; c < a.channels; c++)
      for (long y = 0; y < a.height; y++)
        for (long x = 0; x < a.width; x++) {
          const long place = y * a.width + x, area = a.height * a.width;
          const long i = plain ? (n * area + place) * channels + c
                               : ((n * blocks(a.channels) + c / LANES) * area + place) * LANES + c % LANES;
          out[i] = float(a.at(n, c, y, x));
        }
  return out;
}

Array convolved(Array& a, const Case& t, const std::vector<float>& weights, const std::vector<float>& bias) {
  const long padding = t.kind == WINDOW ? 0 : 1, less = t.kind == WINDOW ? t.kernel - 1 : 0;
  Array out(a.images, t.out, a.height - less, a.width - less);
  for (long n = 0; n < a.images; n++)
    for (long o = 0; o < t.out; o++)
      for (long y = 0; y < out.height; y++)
        for (long x = 0; x < out.width; x++) {
          double sum = bias[o];
          for (long c = 0; c < a.channels; c++)
            for (long i = 0; i < t.kernel; i++)
              for (long j = 0; j < t.kernel; j++) {
                const long v = y + i - padding, u = x + j - padding;
                if (v < 0 || v >= a.height || u < 0 || u >= a.width) continue;
                sum += weights[((o * a.channels + c) * t.kernel + i) * t.kernel + j] * a.at(n, c, v, u);
              }
          out.at(n, o, y, x) = t.rectify && sum < 0 ? 0 : sum;
        }
  return out;
}

Array pooled(Array& a, int up) {
  Array out(a.images, a.channels, (a.height + up) / 2, (a.width + up) / 2);
  for (long n = 0; n < a.images; n++)
    for (long c = 0; c < a.channels; c++)
      for (long y = 0; y < out.height; y++)
        for (long x = 0; x < out.width; x++) {
          double most = -INFINITY;
          for (long v = 2 * y; v < std::min(2 * y + 2, a.height); v++)
            for (long u = 2 * x; u < std::min(2 * x + 2, a.width); u++) most = std::max(most, a.at(n, c, v, u));
          out.at(n, c, y, x) = most;
        }
  return out;
}

Case draw(int threads) {
  Case t{};
  t.kind = Kind(between(FIRST, POOL));
  t.images = between(1, 3), t.out = between(1, 70), t.threads = threads;
  t.in = t.kind == FIRST ? between(1, 15) : between(1, 40);
  t.height = between(2, 33), t.width = between(2, 33), t.kernel = 3;
  if (t.kind == WINDOW) t.kernel = between(1, std::min(t.height, t.width) < 7 ? 2 : 7);
  if (t.kind == POOL) t.out = t.in;
  t.rectify = t.kind != POOL && between(0, 1), t.pool = t.kind == WINOGRAD && between(0, 1);
  t.low = (t.kind == WINDOW || t.kind == WINOGRAD) && between(0, 1), t.alone = between(0, 1), t.up = between(0, 1);
  return t;
}

// The greatest error relative to the greatest value.
double error_of(const Case& t, int processor) {
  Array a(t.images, t.in, t.height, t.width);
  for (double& value : a.values) value = normal();
  std::vector<float> weights(t.out * t.in * t.kernel * t.kernel), bias(t.out);
  for (float& weight : weights) weight = normal();
  for (float& value : bias) value = normal();
  Array expected = t.kind == POOL ? pooled(a, t.up) : convolved(a, t, weights, bias);
  if (t.pool) expected = pooled(expected, t.up);
  void* engine = vd_new(processor);
  const auto pixels = laid_out(a, t.kind == FIRST);
  const long shape[] = {t.images, t.in, t.height, t.width};
  const long area = expected.height * expected.width;
  std::unique_ptr<float[]> out(new float[t.images * blocks(expected.channels) * LANES * area]);
  const bool failed = vd_add(engine, t.kind, t.in, t.out, t.kernel, weights.data(), bias.data(), t.rectify, t.pool,
                             t.low, t.alone) ||
                      vd_run(engine, pixels.get(), shape, t.up, out.get(), 1) ||  // then by more threads
                      vd_run(engine, pixels.get(), shape, t.up, out.get(), t.threads);
  vd_delete(engine);
  if (failed) return INFINITY;
  double worst = 0, most = 1e-30;
  for (long n = 0; n < t.images; n++)
    for (long c = 0; c < expected.channels; c++)
      for (long i = 0; i < area; i++) {
        const double found = out[((n * blocks(expected.channels) + c / LANES) * area + i) * LANES + c % LANES];
        const double truth = expected.at(n, c, i / expected.width, i % expected.width);
        worst = std::max(worst, std::abs(found - truth)), most = std::max(most, std::abs(truth));
        if (std::isnan(found)) return INFINITY;
      }
  return worst / most;
}

}  // namespace

int main(int, char** words) {
  const unsigned seed = words[1] ? unsigned(std::atoi(words[1])) : std::random_device{}();
  chance.seed(seed);
  std::printf("seed %u\n", seed);
  for (int processor = 0; processor <= vd_best_processor(); processor++)
    for (int i = 0; i < 60; i++) {
      const Case t = draw(1 + i % 3);
      // Half precision keeps 11 bits of a weight; Winograd's transforms lose up to two digits of float32's seven.
      const double error = error_of(t, processor), allowed = t.low ? 2e-3 : 2e-5;
      if (error > allowed) {
        std::printf("processor %d, kind %d, %ld x %ld x %ld x %ld to %ld channels, kernel %ld, pool %d, up %d, low %d, "
                    "%d threads: error %.1e\n", processor, t.kind, t.images, t.in, t.height, t.width, t.out, t.kernel,
                    t.pool, t.up, t.low, t.threads, error);
        return 1;
      }
    }
  std::printf("every layer right, on %d kinds of processor\n", vd_best_processor() + 1);
}
