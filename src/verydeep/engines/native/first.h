// 3x3 convolutions of fewer than 16 channels in training: pictures. Winograd's filtering would fill them up to 16, so here
// products are taken as they stand, a tile of 4x4 outputs at a time.
#pragma once

#include "training.h"

namespace VD_ISA {

namespace {

// The pixels of a tile and one around it, zeros beyond the picture: channel c of the one at (i, j) is from[i line + j in + c].
class Patch {
 public:
  Patch(const Convolution& c, const Place& tile) : line(c.width * c.in) {
    const long y = tile.y - 1, x = tile.x - 1;
    if (y >= 0 && x >= 0 && y + SIDE <= c.height && x + SIDE <= c.width) {
      from = at(c, tile.image, y, x);
      return;
    }
    std::fill(edge_, edge_ + SIDE * SIDE * c.in, 0.0f);
    for (long i = std::max<long>(0, -y); i < SIDE && y + i < c.height; i++)
      for (long j = std::max<long>(0, -x); j < SIDE && x + j < c.width; j++)
        std::copy_n(at(c, tile.image, y + i, x + j), c.in, edge_ + (i * SIDE + j) * c.in);
    from = edge_, line = SIDE * c.in;
  }
  Patch(const Patch&) = delete;
  const float* from;
  long line;

 private:
  static const float* at(const Convolution& c, long n, long y, long x) {
    return c.pixels + ((n * c.height + y) * c.width + x) * c.in;
  }
  float edge_[SIDE * SIDE * LANES];
};

class FirstPass : public Work {
 public:
  explicit FirstPass(const Convolution& c) : c_(c), grid_(c.before()), taps_(9 * c.in) {}

  long own_scratch(int) const override { return 0; }
  long shared_scratch(int) const override { return blocks_of(c_.out) * LANES * (taps_ + 1); }

  void run(const Part& part) const override {
    if (part.thread == 0) pack(part.shared);
    wait_for_all(part.threads);
    const auto to = Map<float>::channels_last(c_.result, c_.after());
    const auto choice = Map<uint8_t>::channels_last(c_.choice, c_.after());
    const Share mine(grid_.tiles(), part);
    for (long t = mine.first; t < mine.last; t++) {
      const Place tile = grid_.place(t);
      const Patch patch(c_, tile);
      for (long b = 0; b < blocks_of(c_.out); b++) {
        Vector s[OUT][OUT];
        for (int i = 0; i < OUT; i += LINES) multiply(patch, i, part.shared + b * LANES * (taps_ + 1), s + i);
        if (c_.pool) to.put_pooled(tile, b, s, c_.unpooled(), &choice);
        else to.put(tile, b, s);
      }
    }
  }

 private:
  static constexpr int LINES = VD_FLOATS == 16 ? OUT : 1;  // of outputs, as many as registers hold

  // [block][tap], and the bias behind the taps of a block.
  void pack(float* to) const {
    for (long o = 0; o < blocks_of(c_.out) * LANES; o++) {
      float* block = to + o / LANES * LANES * (taps_ + 1) + o % LANES;
      for (long k = 0; k < 9; k++)
        for (long c = 0; c < c_.in; c++) block[(k * c_.in + c) * LANES] = o < c_.out ? c_.weights[(o * c_.in + c) * 9 + k] : 0;
      block[taps_ * LANES] = o < c_.out && c_.bias ? c_.bias[o] : 0;
    }
  }

  void multiply(const Patch& patch, int first, const float* weights, Vector s[][OUT]) const {
    Vector sums[LINES][OUT];
    for (auto& line : sums)
      for (auto& sum : line) sum = load(weights + taps_ * LANES);
    for (int k = 0; k < 9; k++) {
      const float* from = patch.from + (first + k / 3) * patch.line + k % 3 * c_.in;
      for (long c = 0; c < c_.in; c++, weights += LANES) {
        const Vector weight = load(weights);
        for (int i = 0; i < LINES; i++)
          for (int j = 0; j < OUT; j++) sums[i][j] += from[i * patch.line + j * c_.in + c] * weight;
      }
    }
    for (int i = 0; i < LINES; i++)
      for (int j = 0; j < OUT; j++) s[i][j] = c_.rectify ? relu(sums[i][j]) : sums[i][j];
  }

  const Convolution& c_;
  const Grid grid_;
  const long taps_;
};

// The gradients of weights and bias. Tiles are summed in chunks that follow from shapes alone, and those in their order.
class FirstWeightPass : public Work {
 public:
  explicit FirstWeightPass(const Convolution& c)
      : c_(c), grid_(c.before()), taps_(9 * c.in), out_(blocks_of(c.out) * LANES), chunks_((grid_.tiles() + CHUNK - 1) / CHUNK) {}

  long own_scratch(int) const override { return 0; }
  long shared_scratch(int) const override { return chunks_ * out_ * (taps_ + 1); }

  void run(const Part& part) const override {
    const Share chunks(chunks_, part), outputs(c_.out, part);
    for (long k = chunks.first; k < chunks.last; k++) add_up(k, part.shared + k * out_ * (taps_ + 1));
    wait_for_all(part.threads);
    for (long o = outputs.first; o < outputs.last; o++) {
      for (long k = 0; k < 9; k++)
        for (long c = 0; c < c_.in; c++) c_.weight_gradient[(o * c_.in + c) * 9 + k] = total(part.shared, o, c * 9 + k);
      c_.bias_gradient[o] = total(part.shared, o, taps_);
    }
  }

 private:
  static constexpr long CHUNK = 256;  // tiles

  // [block][tap], and the sum of gradients behind them: [channel][tap] here, so that nine sums stay in registers.
  void add_up(long chunk, float* sums) const {
    const Outputs outputs(c_);
    std::fill(sums, sums + out_ * (taps_ + 1), 0.0f);
    for (long t = chunk * CHUNK; t < std::min(grid_.tiles(), (chunk + 1) * CHUNK); t++) {
      const Place tile = grid_.place(t);
      const Patch patch(c_, tile);
      for (long b = 0; b < out_ / LANES; b++) {
        Vector y[OUT * OUT];
        outputs.read<OUT>(tile.image, b, tile.y, tile.x, y);
        float* to = sums + b * LANES * (taps_ + 1);
        for (long c = 0; c < c_.in; c++) add_channel(patch.from + c, patch.line, y, to + 9 * c * LANES);
        Vector sum = load(to + taps_ * LANES);
        for (const Vector& one : y) sum += one;
        store(to + taps_ * LANES, sum);
      }
    }
  }

  void add_channel(const float* from, long line, const Vector* y, float* to) const {
    for (int k = 0; k < 9; k += 3) {
      Vector sums[3] = {load(to + k * LANES), load(to + (k + 1) * LANES), load(to + (k + 2) * LANES)};
      for (int i = 0; i < OUT; i++)
        for (int j = 0; j < OUT; j++)
          for (int x = 0; x < 3; x++) sums[x] += from[(i + k / 3) * line + (j + x) * c_.in] * y[i * OUT + j];
      for (int x = 0; x < 3; x++) store(to + (k + x) * LANES, sums[x]);
    }
  }

  float total(const float* sums, long o, long tap) const {
    double sum = 0;
    for (long k = 0; k < chunks_; k++) sum += sums[k * out_ * (taps_ + 1) + (o / LANES * (taps_ + 1) + tap) * LANES + o % LANES];
    return float(sum);
  }

  const Convolution& c_;
  const Grid grid_;
  const long taps_, out_, chunks_;
};

}  // namespace

}  // namespace VD_ISA
