// 3x3 convolutions in training: forward, and the gradients of their pixels and weights, all by Winograd's filtering.
//
// The gradient of the pixels is the same filtering of the outputs' gradient, with every filter turned around. That of the
// weights is the transpose of the forward pass in them: G^T [sum over tiles of (A y A^T) * (B^T d B)] G for a tile's
// outputs' gradient y and pixels d, which is a product over tiles at each of the 36 planes. Its sums are taken in an order
// that depends on shapes alone, so any number of threads gives the same bits.
#pragma once

#include "filtering.h"

namespace VD_ISA {

namespace {

// The gradient of a convolution's outputs before ReLU and pool, read from that behind them.
class Outputs {
 public:
  explicit Outputs(const Convolution& c)
      : c_(c), gradient_(Map<const float>::channels_last(c.gradient, c.after())),
        result_(Map<const float>::channels_last(c.result, c.after())),
        choice_(Map<const uint8_t>::channels_last(c.choice, c.after())) {}

  // Block b of N x N of them, the first at (y, x); zeros beyond the picture. Of pools N is even.
  template <int N>
  void read(long image, long b, long y, long x, Vector to[N * N]) const {
    if (c_.pool) return read_pooled<N>(image, b, y, x, to);
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        const bool inside = y + i >= 0 && y + i < c_.height && x + j >= 0 && x + j < c_.width;
        to[i * N + j] = inside ? at(image, b, y + i, x + j) : all(0);
      }
  }

  void input(const Place& tile, long b, float* planes, long step) const {
    if (!c_.pool && !c_.rectify) return gradient_.input(tile, b, planes, step);
    if (c_.pool) {  // from the 2x2 that begins before the tile's input
      Vector around[(SIDE + 2) * (SIDE + 2)];
      read<SIDE + 2>(tile.image, b, tile.y - 2, tile.x - 2, around);
      return input_tile(reinterpret_cast<const float*>(around + SIDE + 3), (SIDE + 2) * LANES, LANES, planes, step);
    }
    Vector around[SIDE * SIDE];
    read<SIDE>(tile.image, b, tile.y - 1, tile.x - 1, around);
    input_tile(reinterpret_cast<const float*>(around), SIDE * LANES, LANES, planes, step);
  }

 private:
  Vector at(long n, long b, long y, long x) const {
    const Vector g = load(gradient_.at(n, b, y, x));
    return c_.rectify ? choose(relu(load(result_.at(n, b, y, x))), all(0), all(0), g) : g;
  }

  // From an even line and column on: each 2x2 has one gradient, which belongs to one of the four or to none.
  template <int N>
  void read_pooled(long image, long b, long y, long x, Vector to[N * N]) const {
    for (int i = 0; i < N; i += 2)
      for (int j = 0; j < N; j += 2) {
        const long v = y / 2 + i / 2, u = x / 2 + j / 2;
        Vector* corner = to + i * N + j;
        if (v < 0 || u < 0 || v >= gradient_.height || u >= gradient_.width) {  // or a line that the pool dropped
          corner[0] = corner[1] = corner[N] = corner[N + 1] = all(0);
          continue;
        }
        const Vector g = load(gradient_.at(image, b, v, u)), place = of_bytes(choice_.at(image, b, v, u));
        corner[0] = choose(place, all(0), g, all(0));
        corner[1] = choose(place, all(1), g, all(0));
        corner[N] = choose(place, all(2), g, all(0));
        corner[N + 1] = choose(place, all(3), g, all(0));
      }
  }

  const Convolution& c_;
  const Map<const float> gradient_, result_;
  const Map<const uint8_t> choice_;
};

// Forward, or, with every filter turned around and from the outputs' gradient, back to the pixels.
template <bool BACK>
class FilterPass : public Work {
 public:
  explicit FilterPass(const Convolution& c)
      : c_(c), grid_(c.before()), from_(BACK ? c.out : c.in), to_(BACK ? c.in : c.out) {}

  long own_scratch(int threads) const override { return filters(nullptr).own_scratch(grid_.tiles(), threads); }
  long shared_scratch(int threads) const override {
    return weights() + bias() + filters(nullptr).shared_scratch(grid_.tiles(), threads);
  }

  void run(const Part& part) const override {
    float *packed = part.shared, *bias = packed + weights();
    pack(packed, bias, part);
    wait_for_all(part.threads);
    const Part then{part.thread, part.threads, part.up, part.own, bias + this->bias(), part.counter};
    const auto filters = this->filters(packed);
    if constexpr (BACK) {
      const Outputs outputs(c_);
      const auto to = Map<float>::channels_last(c_.pixel_gradient, c_.before());
      filters.run(
          grid_.tiles(), then,
          [&](long t, long b, float* planes, long step) { outputs.input(grid_.place(t), b, planes, step); },
          [&](long t, long b, const float* products, long step) {
            Vector s[OUT][OUT];
            output_tile(products, step, s);
            finish(s, all(0), false);
            to.put(grid_.place(t), b, s);
          });
    } else {
      const auto pixels = Map<const float>::channels_last(c_.pixels, c_.before(), false);
      const auto to = Map<float>::channels_last(c_.result, c_.after());
      const auto choice = Map<uint8_t>::channels_last(c_.choice, c_.after());
      const Shape unpooled = c_.unpooled();
      filters.run(
          grid_.tiles(), then,
          [&](long t, long b, float* planes, long step) { pixels.input(grid_.place(t), b, planes, step); },
          [&](long t, long b, const float* products, long step) {
            Vector s[OUT][OUT];
            output_tile(products, step, s);
            finish(s, load(bias + b * LANES), c_.rectify);
            if (c_.pool) to.put_pooled(grid_.place(t), b, s, unpooled, &choice);
            else to.put(grid_.place(t), b, s);
          });
    }
  }

 private:
  Filtering<float> filters(const float* packed) const { return {from_, to_, packed, nullptr}; }
  long weights() const { return Filtering<float>::weights_of(from_, to_); }
  long bias() const { return panels_of(to_) * PANEL * LANES; }

  // Weights of channel c in 16 filters from o on, turned around or not.
  void gather(long o, long c, float to[9][LANES]) const {
    const long count = c < from_ ? std::min<long>(LANES, to_ - o) : 0, step = BACK ? 9 : c_.in * 9;
    const float* from = c_.weights + (BACK ? c * c_.in + o : o * c_.in + c) * 9;
    if (count < LANES) std::fill(to[0], to[9], 0.0f);
    if (BACK)  // the next channel's lie far from these
      for (int i = 0; i < 9; i++) __builtin_prefetch(from + 2 * c_.in * 9 + i * LANES);
    for (long i = 0; i < count; i++, from += step)
      for (int k = 0; k < 9; k++) to[k][i] = from[BACK ? 8 - k : k];
  }

  void pack(float* packed, float* bias, const Part& part) const {
    const long rows = blocks_of(from_) * LANES, wide = PANEL * LANES;
    const Share mine(panels_of(to_) * PANEL, part);
    for (long v = mine.first; v < mine.last; v++) {
      for (int i = 0; i < LANES; i++) {
        const long o = v * LANES + i;
        bias[o] = !BACK && c_.bias && o < to_ ? c_.bias[o] : 0;
      }
      for (long c = 0; c < rows; c++) {
        alignas(64) float g[9][LANES];
        gather(v * LANES, c, g);
        Vector half[SIDE][3];
        for (int x = 0; x < 3; x++) {
          const Vector column[3] = {load(g[x]), load(g[3 + x]), load(g[6 + x])};
          Vector t[SIDE];
          weight_points(column, t);
          for (int i = 0; i < SIDE; i++) half[i][x] = t[i];
        }
        float* to = packed + (v / PANEL * PLANES * rows + c) * wide + v % PANEL * LANES;
        for (int i = 0; i < SIDE; i++) {
          Vector t[SIDE];
          weight_points(half[i], t);
          for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * rows * wide, t[j]);
        }
      }
    }
  }

  const Convolution& c_;
  const Grid grid_;
  const long from_, to_;  // channels
};

// The gradients of weights and bias.
class WeightPass : public Work {
 public:
  explicit WeightPass(const Convolution& c)
      : c_(c), grid_(c.before()), in_(blocks_of(c.in) * LANES), out_(blocks_of(c.out) * LANES) {
    const long floats = PLANES * (in_ + out_), most = std::max(LEAST, SCRATCH / floats), tiles = grid_.tiles();
    chunks_ = (tiles + most - 1) / most;
    tiles_ = (tiles + chunks_ - 1) / chunks_;
  }

  long own_scratch(int) const override { return 0; }
  long shared_scratch(int) const override {
    return PLANES * (out_ * in_ + step(out_) + step(in_)) + tiles_ * out_;
  }

  void run(const Part& part) const override {
    float *sums = part.shared, *to_out = sums + PLANES * out_ * in_, *to_in = to_out + PLANES * step(out_);
    float* totals = to_in + PLANES * step(in_);
    for (long k = 0; k < chunks_; k++) {
      const long first = grid_.tiles() * k / chunks_, count = grid_.tiles() * (k + 1) / chunks_ - first;
      transform(first, count, to_out, to_in, totals, part);
      wait_for_all(part.threads);
      multiply(count, k > 0, to_out, to_in, sums, part);
      add_bias(count, k > 0, totals, part);
      wait_for_all(part.threads);
    }
    finish_weights(sums, part);
  }

 private:
  static constexpr long SCRATCH = 1 << 18, LEAST = 128;  // floats of a chunk's planes, about, and tiles at least
  static constexpr long GAP = LANES;  // between tiles, lest all fall on the same lines of the cache
  long step(long channels) const { return tiles_ * (channels + GAP) + PAD; }

  // Lay some tiles out as [plane][tile][channel], and each tile's sum of the outputs' gradient as [tile][channel].
  void transform(long first, long count, float* to_out, float* to_in, float* totals, const Part& part) const {
    const Outputs outputs(c_);
    const auto pixels = Map<const float>::channels_last(c_.pixels, c_.before(), false);
    const Share mine(count, part);
    for (long t = mine.first; t < mine.last; t++) {
      const Place at = grid_.place(first + t);
      for (long b = 0; b < in_ / LANES; b++) pixels.input(at, b, to_in + t * (in_ + GAP) + b * LANES, step(in_));
      for (long b = 0; b < out_ / LANES; b++) {
        Vector y[OUT * OUT], total = all(0);
        outputs.read<OUT>(at.image, b, at.y, at.x, y);
        for (const Vector& one : y) total += one;
        gradient_tile(y, to_out + t * (out_ + GAP) + b * LANES, step(out_));
        store(totals + t * out_ + b * LANES, total);
      }
    }
  }

  void multiply(long count, bool more, const float* to_out, const float* to_in, float* sums, const Part& part) const {
    const long parts = (out_ + 127) / 128;
    const Share mine(PLANES * parts, part);
    for (long i = mine.first; i < mine.last; i++) {
      const long p = i / parts, o = out_ * (i % parts) / parts, rows = out_ * (i % parts + 1) / parts - o;
      crossed_product(rows, {to_out + p * step(out_) + o, out_ + GAP}, {to_in + p * step(in_), in_ + GAP}, in_ / LANES,
                      count, sums + (p * out_ + o) * in_, in_, more);
    }
  }

  void add_bias(long count, bool more, const float* totals, const Part& part) const {
    const Share mine(out_ / LANES, part);
    for (long b = mine.first; b < mine.last; b++) {
      float* to = c_.bias_gradient + b * LANES;
      Vector sum = all(0);
      for (long t = 0; t < count; t++) sum += load(totals + t * out_ + b * LANES);
      store(to, more ? load(to) + sum : sum);
    }
  }

  void finish_weights(const float* sums, const Part& part) const {
    const Share mine(c_.out, part);
    for (long o = mine.first; o < mine.last; o++)
      for (long c = 0; c < c_.in; c += LANES) {
        Vector half[3][SIDE];
        for (int x = 0; x < SIDE; x++) {
          Vector t[SIDE], g[3];
          for (int y = 0; y < SIDE; y++) t[y] = load(sums + ((y * SIDE + x) * out_ + o) * in_ + c);
          weight_gradient_line(t, g);
          for (int y = 0; y < 3; y++) half[y][x] = g[y];
        }
        alignas(64) float values[9][LANES];
        for (int y = 0; y < 3; y++) {
          Vector g[3];
          weight_gradient_line(half[y], g);
          for (int x = 0; x < 3; x++) store(values[y * 3 + x], g[x]);
        }
        float* to = c_.weight_gradient + (o * c_.in + c) * 9;
        for (long i = 0; i < std::min<long>(LANES, c_.in - c); i++)
          for (int k = 0; k < 9; k++) to[i * 9 + k] = values[k][i];
      }
  }

  const Convolution& c_;
  const Grid grid_;
  const long in_, out_;  // channels, with those that fill up the last block
  long chunks_, tiles_;  // and tiles of a chunk at most
};

}  // namespace

}  // namespace VD_ISA
