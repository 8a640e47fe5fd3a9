// Batch norm in training with the ReLU and the pool behind it: each pass reads its input twice, and keeps nothing but it.
//
// Sums are taken chunk by chunk, a chunk being small enough for a core's cache and begun and ended by shapes alone; the
// chunks' are added up in double precision, in their order. So any number of threads gives the same bits.
#pragma once

#include "filtering.h"

namespace VD_ISA {

namespace {

class NormPass : public Work {
 public:
  NormPass(const Norm& n, bool back) : n_(n), back_(back), channels_(blocks_of(n.channels) * LANES) {
    // A cell is what one output comes of: a pixel, or 2x2 of them, all of which are counted also where the pool drops some.
    const long side = n.pool ? 2 : 1;
    columns_ = (n.width + side - 1) / side, lines_ = n.images * ((n.height + side - 1) / side);
    most_ = std::max<long>(1, CHUNK / (side * n.width * channels_));  // lines of cells in a chunk
    chunks_ = (lines_ + most_ - 1) / most_;
  }

  long own_scratch(int) const override { return 0; }
  long shared_scratch(int) const override { return 2 * (chunks_ + 1) * channels_; }

  void run(const Part& part) const override {
    const Share chunks(chunks_, part), blocks(channels_ / LANES, part);
    for (long k = chunks.first; k < chunks.last; k++) back_ ? add_gradients(k, part.shared) : add_up(k, part.shared);
    wait_for_all(part.threads);
    for (long c = blocks.first * LANES; c < blocks.last * LANES; c++)
      back_ ? finish_gradients(c, part.shared) : finish_sums(c, part.shared);
    wait_for_all(part.threads);
    const long side = n_.pool ? 2 : 1;
    for (long k = chunks.first; k < chunks.last; k++)
      for (long line = k * most_; line < std::min(lines_, (k + 1) * most_); line++)
        for (long x = 0; x < columns_; x++)
          for (long b = 0; b < channels_ / LANES; b++) {
            const Cell cell(*this, line, x * side, b);
            back_ ? write_back(cell, part.shared) : write(cell);
          }
  }

 private:
  static constexpr long CHUNK = 1 << 14;  // floats, about

  // The pixels of one output: where block b of them lies, and which are in the picture.
  struct Cell {
    long image, y, x, b;
    bool right, below;
    const float* from;
    Cell(const NormPass& pass, long line, long column, long block) : x(column), b(block) {
      const Norm& n = pass.n_;
      const long side = n.pool ? 2 : 1, lines = (n.height + side - 1) / side;
      image = line / lines, y = line % lines * side;
      right = x + 1 < n.width, below = y + 1 < n.height;
      from = n.input + pass.place(*this);
    }
  };

  long place(const Cell& c) const { return ((c.image * n_.height + c.y) * n_.width + c.x) * channels_ + c.b * LANES; }
  long line() const { return n_.width * channels_; }

  // Of the output, or -1 where the pool drops the cell.
  long place_after(const Cell& c) const {
    const Shape after = n_.after();
    const long side = n_.pool ? 2 : 1, v = c.y / side, u = c.x / side;
    if (v >= after.height || u >= after.width) return -1;
    return ((c.image * after.height + v) * after.width + u) * channels_ + c.b * LANES;
  }

  float* mean(long k, float* shared) const { return shared + 2 * k * channels_; }
  float* terms(float* shared) const { return shared + 2 * chunks_ * channels_; }

  // Pixels of a chunk.
  Share pixels(long k) const {
    const Part part{int(k), int(chunks_), false, nullptr, nullptr, nullptr};
    return Share(n_.images * n_.height * n_.width, part);
  }

  // A chunk's means, and the sums of squared differences from them.
  void add_up(long k, float* shared) const {
    const Share mine = pixels(k);
    for (long b = 0; b < channels_; b += LANES) {
      Vector sum = all(0), squares = all(0);
      for (long p = mine.first; p < mine.last; p++) sum += load(n_.input + p * channels_ + b);
      const Vector middle = 1.0f / std::max<long>(1, mine.last - mine.first) * sum;
      for (long p = mine.first; p < mine.last; p++) {
        const Vector away = load(n_.input + p * channels_ + b) - middle;
        squares += away * away;
      }
      store(mean(k, shared) + b, middle), store(mean(k, shared) + channels_ + b, squares);
    }
  }

  // Mean and variance of channel c, and what the input is multiplied by and what is added.
  void finish_sums(long c, float* shared) const {
    const double count = double(n_.images) * n_.height * n_.width;
    double total = 0, squares = 0;
    for (long k = 0; k < chunks_; k++) total += double(pixels(k).last - pixels(k).first) * mean(k, shared)[c];
    for (long k = 0; k < chunks_; k++) {
      const double away = mean(k, shared)[c] - total / count;
      squares += mean(k, shared)[channels_ + c] + double(pixels(k).last - pixels(k).first) * away * away;
    }
    n_.mean[c] = float(total / count), n_.variance[c] = float(squares / count);
    const double factor = n_.weights[c] / std::sqrt(squares / count + n_.epsilon);
    n_.factor[c] = float(factor), n_.added[c] = float(n_.bias[c] - factor * (total / count));
  }

  void write(const Cell& cell) const {
    const long to = place_after(cell);
    if (to < 0) return;
    const Vector factor = load(n_.factor + cell.b * LANES), added = load(n_.added + cell.b * LANES);
    const auto normal = [&](long offset) { return factor * load(cell.from + offset) + added; };
    const Vector a = normal(0);
    if (!n_.pool) return store(n_.result + to, relu(a));
    // As of a convolution's: a pixel beyond the picture counts as its neighbor, and the first of the greatest is chosen.
    const Vector z = cell.right ? normal(channels_) : a, c = cell.below ? normal(line()) : a;
    const Vector d = cell.right && cell.below ? normal(line() + channels_) : cell.below ? c : z;
    const Vector top = larger(a, z), bottom = larger(c, d), most = relu(larger(top, bottom));
    const Vector below = choose(c, bottom, all(2), all(3)), above = choose(a, top, all(0), all(1));
    store(n_.result + to, most);
    to_bytes(n_.choice + to, choose(most, all(0), all(4), choose(top, larger(top, bottom), above, below)));
  }

  // A cell's gradient before the ReLU; of a pool, of the pixel that `place` says.
  Vector gradient(const Cell& cell, Vector* place) const {
    const long from = place_after(cell);
    if (from < 0) return *place = all(4), all(0);
    const Vector g = load(n_.gradient + from);
    if (n_.pool) return *place = of_bytes(n_.choice + from), choose(*place, all(4), all(0), g);
    const Vector normal = load(n_.factor + cell.b * LANES) * load(cell.from) + load(n_.added + cell.b * LANES);
    *place = all(0);
    return choose(relu(normal), all(0), all(0), g);
  }

  // The input where `place` says.
  Vector chosen(const Cell& cell, Vector place) const {
    const Vector a = load(cell.from);
    if (!n_.pool) return a;
    const Vector z = cell.right ? load(cell.from + channels_) : a, c = cell.below ? load(cell.from + line()) : a;
    const Vector d = cell.right && cell.below ? load(cell.from + line() + channels_) : a;
    return choose(place, all(0), a, choose(place, all(1), z, choose(place, all(2), c, d)));
  }

  // A chunk's sums of the gradient, and of its products with the input less its mean.
  void add_gradients(long k, float* shared) const {
    const long side = n_.pool ? 2 : 1;
    for (long b = 0; b < channels_ / LANES; b++) {
      const Vector middle = load(n_.mean + b * LANES);
      Vector sum = all(0), products = all(0);
      for (long line = k * most_; line < std::min(lines_, (k + 1) * most_); line++)
        for (long x = 0; x < columns_; x++) {
          const Cell cell(*this, line, x * side, b);
          Vector place;
          const Vector g = gradient(cell, &place);
          sum += g, products += g * (chosen(cell, place) - middle);
        }
      store(mean(k, shared) + b * LANES, sum), store(mean(k, shared) + channels_ + b * LANES, products);
    }
  }

  // The gradients of channel c's weight and bias, and the two terms that the input's has beside its own.
  void finish_gradients(long c, float* shared) const {
    const double count = double(n_.images) * n_.height * n_.width, factor = n_.factor[c];
    double sum = 0, products = 0;
    for (long k = 0; k < chunks_; k++) sum += mean(k, shared)[c], products += mean(k, shared)[channels_ + c];
    const double inverse = 1 / (double(n_.variance[c]) + n_.epsilon);
    n_.bias_gradient[c] = float(sum), n_.weight_gradient[c] = float(products * std::sqrt(inverse));
    const double slope = -factor * products * inverse / count;
    terms(shared)[c] = float(slope), terms(shared)[channels_ + c] = float(-factor * sum / count - slope * n_.mean[c]);
  }

  void write_back(const Cell& cell, float* shared) const {
    Vector place;
    const Vector g = load(n_.factor + cell.b * LANES) * gradient(cell, &place);
    const Vector slope = load(terms(shared) + cell.b * LANES), term = load(terms(shared) + channels_ + cell.b * LANES);
    float* to = n_.input_gradient + this->place(cell);
    const auto put = [&](int which, long offset) {
      store(to + offset, choose(place, all(float(which)), g, all(0)) + slope * load(cell.from + offset) + term);
    };
    put(0, 0);
    if (!n_.pool) return;
    if (cell.right) put(1, channels_);
    if (cell.below) put(2, line());
    if (cell.right && cell.below) put(3, line() + channels_);
  }

  const Norm& n_;
  const bool back_;
  const long channels_;
  long columns_, lines_, most_, chunks_;
};

}  // namespace

}  // namespace VD_ISA
