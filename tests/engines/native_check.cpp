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
struct Convolution {  // as in native/layer.h
  long images, in, out, height, width;
  int rectify, pool, up;
  const float *pixels, *weights, *bias;
  float* result;
  unsigned char* choice;
  const float* gradient;
  float *pixel_gradient, *weight_gradient, *bias_gradient;
};
int vd_train(int processor, const Convolution* convolution, int pass, int threads);
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

// Values [images][height][width][channels], the channels filled up to whole blocks or not.
std::unique_ptr<float[]> channels_last(Array& a, bool filled) {
  const long wide = filled ? blocks(a.channels) * LANES : a.channels;
  std::unique_ptr<float[]> out(new float[a.images * a.height * a.width * wide]());
  for (long n = 0; n < a.images; n++)
    for (long c = 0; c < a.channels; c++)
      for (long y = 0; y < a.height; y++)
        for (long x = 0; x < a.width; x++) out[((n * a.height + y) * a.width + x) * wide + c] = float(a.at(n, c, y, x));
  return out;
}

double read(const float* from, Array& like, long n, long c, long y, long x) {
  return from[((n * like.height + y) * like.width + x) * blocks(like.channels) * LANES + c];
}

// The same of a convolution in training: its result, and gradients by the decisions of ReLU and pool that it made.
double training_error_of(Case t, int processor) {
  t.pool = t.pool && t.rectify && (t.up || (t.height > 1 && t.width > 1));
  Array a(t.images, t.in, t.height, t.width);
  for (double& value : a.values) value = normal();
  std::vector<float> weights(t.out * t.in * 9), bias(t.out);
  for (float& weight : weights) weight = normal();
  for (float& value : bias) value = normal();
  Array expected = convolved(a, t, weights, bias), wide = expected;
  if (t.pool) expected = pooled(expected, t.up);
  Array given = expected;
  for (double& value : given.values) value = normal();
  const long area = expected.images * expected.height * expected.width, filled = blocks(t.out) * LANES;
  const auto pixels = channels_last(a, false), gradient = channels_last(given, true);
  std::unique_ptr<float[]> result(new float[area * filled]), bias_gradient(new float[filled]);
  std::unique_ptr<float[]> pixel_gradient(new float[t.images * t.height * t.width * blocks(t.in) * LANES]);
  std::unique_ptr<float[]> weight_gradient(new float[weights.size()]);
  std::unique_ptr<unsigned char[]> choice(new unsigned char[t.pool ? area * filled : 0]);
  const Convolution told{t.images, t.in, t.out, t.height, t.width, t.rectify, t.pool, t.up, pixels.get(), weights.data(),
                         bias.data(), result.get(), choice.get(), gradient.get(), pixel_gradient.get(),
                         weight_gradient.get(), bias_gradient.get()};
  for (int pass = 0; pass < 3; pass++)
    if (vd_train(processor, &told, pass, t.threads)) return INFINITY;
  // The gradient before ReLU and pool.
  Array before(t.images, t.out, t.height, t.width);
  double worst = 0, most = 1e-30;
  const auto compare = [&](double found, double truth) {
    worst = std::isnan(found) ? INFINITY : std::max(worst, std::abs(found - truth)), most = std::max(most, std::abs(truth));
  };
  for (long n = 0; n < t.images; n++)
    for (long o = 0; o < t.out; o++)
      for (long y = 0; y < expected.height; y++)
        for (long x = 0; x < expected.width; x++) {
          const double value = read(result.get(), expected, n, o, y, x), g = float(given.at(n, o, y, x));
          compare(value, expected.at(n, o, y, x));
          if (!t.pool) {
            before.at(n, o, y, x) = !t.rectify || value > 0 ? g : 0;
            continue;
          }
          const int place = choice[((n * expected.height + y) * expected.width + x) * filled + o];
          if (place > 4 || (place == 4) != (value <= 0)) return INFINITY;
          if (place == 4) continue;
          const long v = 2 * y + place / 2, u = 2 * x + place % 2;
          if (v >= t.height || u >= t.width) return INFINITY;
          compare(wide.at(n, o, v, u), expected.at(n, o, y, x));  // it is the greatest, or as good as
          before.at(n, o, v, u) = g;
        }
  double error = worst / most;
  Array to_pixels(t.images, t.in, t.height, t.width);
  std::vector<double> to_weights(weights.size()), to_bias(t.out);
  for (long n = 0; n < t.images; n++)
    for (long o = 0; o < t.out; o++)
      for (long y = 0; y < t.height; y++)
        for (long x = 0; x < t.width; x++) {
          const double g = before.at(n, o, y, x);
          to_bias[o] += g;
          for (long c = 0; c < t.in && g != 0; c++)
            for (long k = 0; k < 9; k++) {
              const long v = y + k / 3 - 1, u = x + k % 3 - 1;
              if (v < 0 || v >= t.height || u < 0 || u >= t.width) continue;
              to_pixels.at(n, c, v, u) += weights[(o * t.in + c) * 9 + k] * g;
              to_weights[(o * t.in + c) * 9 + k] += float(a.at(n, c, v, u)) * g;
            }
        }
  worst = 0, most = 1e-30;
  for (long n = 0; n < t.images; n++)
    for (long c = 0; c < t.in; c++)
      for (long y = 0; y < t.height; y++)
        for (long x = 0; x < t.width; x++) compare(read(pixel_gradient.get(), to_pixels, n, c, y, x), to_pixels.at(n, c, y, x));
  error = std::max(error, worst / most), worst = 0, most = 1e-30;
  for (size_t i = 0; i < to_weights.size(); i++) compare(weight_gradient[i], to_weights[i]);
  error = std::max(error, worst / most), worst = 0, most = 1e-30;
  for (long o = 0; o < t.out; o++) compare(bias_gradient[o], to_bias[o]);
  return std::max(error, worst / most);
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
  for (int processor = 0; processor <= vd_best_processor(); processor++)
    for (int i = 0; i < 30; i++) {
      Case t = draw(1 + i % 3);
      t.kernel = 3, t.kind = WINOGRAD, t.out = between(1, 40), t.rectify = between(0, 1), t.pool = between(0, 1);
      const double error = training_error_of(t, processor);
      if (error > 5e-5) {
        std::printf("processor %d, training, %ld x %ld x %ld x %ld to %ld channels, rectify %d, pool %d, up %d, %d threads: "
                    "error %.1e\n", processor, t.images, t.in, t.height, t.width, t.out, t.rectify, t.pool, t.up, t.threads,
                    error);
        return 1;
      }
    }
  std::printf("every layer right, on %d kinds of processor\n", vd_best_processor() + 1);
}
