// 3x3 convolutions as Winograd filtering, tile by tile: where tiles lie, how their pixels are read and their outputs
// written, and how the products of all of them are shared out. What a tile is made of and what becomes of it is given.
#pragma once

#include "fixed.h"
#include "threads.h"
#include "winograd.h"

namespace VD_ISA {

using namespace verydeep;

constexpr int PANEL = OUTS;  // vectors of outputs in a panel of packed weights
constexpr long PAD = 48;                   // floats between planes, lest all fall on the same lines of the cache
constexpr long TILES = 56;                 // tiles of a block, about: its planes fill a core's L2

inline long panels_of(long out) { return (out + PANEL * LANES - 1) / (PANEL * LANES); }

// A share of `count` things for thread `part.thread`.
struct Share {
  long first, last;
  Share(long count, const Part& part)
      : first(count * part.thread / part.threads), last(count * (part.thread + 1) / part.threads) {}
};

struct Place {
  long image, y, x;  // of a tile's first output
};

// The tiles of 4x4 outputs of some images.
struct Grid {
  long images, rows, columns;
  explicit Grid(const Shape& shape)
      : images(shape.images), rows((shape.height + OUT - 1) / OUT), columns((shape.width + OUT - 1) / OUT) {}
  long tiles() const { return images * rows * columns; }
  Place place(long t) const { return {t / (columns * rows), t / columns % rows * OUT, t % columns * OUT}; }
};

// Activations, and how far apart a pixel's blocks of channels, a block's pixels and the images lie.
template <typename Number>
struct Map {
  Number* data;
  long height, width, pixel, block, image;
  long channels;  // all of which a block has 16, but the last one fewer where they are not filled up

  // As layers hand them on: see layer.h.
  Map(Number* to, const Shape& s, long blocks)
      : data(to), height(s.height), width(s.width), pixel(LANES), block(s.height * s.width * LANES),
        image(blocks * s.height * s.width * LANES), channels(blocks * LANES) {}

  // All channels of a pixel together, filled up to whole blocks or not.
  static Map channels_last(Number* to, const Shape& s, bool filled = true) {
    Map map(to, s, 1);
    map.channels = filled ? blocks_of(s.channels) * LANES : s.channels;
    map.pixel = map.channels, map.block = LANES, map.image = s.height * s.width * map.pixel;
    return map;
  }

  Number* at(long n, long c, long y, long x) const { return data + n * image + c * block + (y * width + x) * pixel; }

  // The planes of block c of a tile's input: a pixel around it, zeros beyond the picture.
  void input(const Place& tile, long c, float* planes, long step) const {
    const long x = tile.x - 1, y = tile.y - 1, count = std::min<long>(LANES, channels - c * LANES);
    if (count == LANES && x >= 0 && y >= 0 && x + SIDE <= width && y + SIDE <= height)
      return input_tile(at(tile.image, c, y, x), width * pixel, pixel, planes, step);
    Vector edge[SIDE * SIDE];
    for (long i = 0; i < SIDE; i++)
      for (long j = 0; j < SIDE; j++) {
        const bool inside = y + i >= 0 && y + i < height && x + j >= 0 && x + j < width;
        edge[i * SIDE + j] = inside ? load_some(at(tile.image, c, y + i, x + j), count) : all(0);
      }
    input_tile(reinterpret_cast<const float*>(edge), SIDE * LANES, LANES, planes, step);
  }

  // Write block b of a tile's outputs, as far as they lie in the picture.
  void put(const Place& tile, long b, const Vector s[OUT][OUT]) const {
    const long rows = std::min<long>(OUT, height - tile.y), columns = std::min<long>(OUT, width - tile.x);
    for (long i = 0; i < rows; i++)
      for (long j = 0; j < columns; j++) store(at(tile.image, b, tile.y + i, tile.x + j), s[i][j]);
  }

  // Write the maxima of 2x2 of them, `before` being the shape before; `choice`, a map of bytes, gets which of the four
  // it was, or 4 where it is not positive.
  template <typename Bytes = Map<uint8_t>>
  void put_pooled(const Place& tile, long b, Vector s[OUT][OUT], const Shape& before, const Bytes* choice) const {
    // A pixel beyond the picture counts as its neighbor in the same 2x2, which is inside.
    for (int i = 1; i < OUT; i += 2)
      if (tile.y + i >= before.height)
        for (int j = 0; j < OUT; j++) s[i][j] = s[i - 1][j];
    for (int j = 1; j < OUT; j += 2)
      if (tile.x + j >= before.width)
        for (int i = 0; i < OUT; i++) s[i][j] = s[i][j - 1];
    const long y = tile.y / 2, x = tile.x / 2;
    for (long i = 0; i < OUT / 2 && y + i < height; i++)
      for (long j = 0; j < OUT / 2 && x + j < width; j++) {
        const Vector a = s[2 * i][2 * j], c = s[2 * i + 1][2 * j];
        const Vector top = larger(a, s[2 * i][2 * j + 1]), bottom = larger(c, s[2 * i + 1][2 * j + 1]);
        const Vector most = larger(top, bottom);
        store(at(tile.image, b, y + i, x + j), most);
        if (choice) {  // the first of the greatest
          const Vector below = choose(c, bottom, all(2), all(3)), above = choose(a, top, all(0), all(1));
          const Vector place = choose(top, most, above, below);
          to_bytes(choice->at(tile.image, b, y + i, x + j), choose(relu(most), all(0), all(4), place));
        }
      }
  }
};

// Scale a tile's outputs as output_tile leaves them, and add the bias.
inline void finish(Vector s[OUT][OUT], Vector bias, bool rectify) {
#pragma GCC unroll 4
  for (int i = 0; i < OUT; i++)
#pragma GCC unroll 4
    for (int j = 0; j < OUT; j++) {
      s[i][j] = output_scale(i, j) * s[i][j] + bias;
      if (rectify) s[i][j] = relu(s[i][j]);
    }
}

// The products of tiles' planes with `weights`, packed [panels][plane][channel][16 PANEL], in `Number`s: float, or 16-bit
// integers with scales (see fixed.h).
template <typename Number>
class Filtering {
  static constexpr bool FIXED = !std::is_same<Number, float>::value;

 public:
  Filtering(long in, long out, const Number* weights, const float* scales)
      : in_(in), out_(out), rows_(blocks_of(in) * LANES), weights_(weights), scales_(scales) {}

  static long weights_of(long in, long out) { return PLANES * blocks_of(in) * LANES * panels_of(out) * PANEL * LANES; }

  long own_scratch(long tiles, int threads) const {
    const Plan plan(tiles, threads);
    return (plan.alone ? planes(plan.block) : 0) + PLANES * results(plan.chunk()) + tile_floats();
  }

  long shared_scratch(long tiles, int threads) const {
    const Plan plan(tiles, threads);
    return plan.alone ? 0 : planes(plan.block);
  }

  // source(t, c, planes, step) makes the planes of block c of tile t, `step` floats apart; sink(t, b, products, step)
  // takes those of block b of its outputs.
  template <typename Source, typename Sink>
  void run(long tiles, const Part& part, const Source& source, const Sink& sink) const {
    const Plan plan(tiles, part.threads);
    if (plan.alone) {  // each thread takes blocks of tiles, and makes all of their outputs
      float* products = part.own + planes(plan.block);
      float* tile = products + PLANES * results(plan.chunk());
      for (long b; (b = part.take()) < plan.count;) {
        const long first = plan.tiles * b / plan.count, last = plan.tiles * (b + 1) / plan.count;
        to_planes(source, {first, last, 0, blocks_of(in_)}, first, part.own, plan.block, tile);
        for (long p = 0; p < panels_of(out_); p++) outputs(sink, {first, last, p}, first, part.own, plan.block, products);
      }
    } else {  // few tiles: all threads share them, and each takes some of their outputs
      float* tile = part.own + PLANES * results(plan.chunk());
      if (FIXED) {  // a tile's scale is of all its channels
        const Share mine(plan.tiles, part);
        to_planes(source, {mine.first, mine.last, 0, blocks_of(in_)}, 0, part.shared, plan.block, tile);
      } else {
        const Share mine(plan.tiles * blocks_of(in_), part);
        for (long i = mine.first; i < mine.last;) {
          const long c = i / plan.tiles, first = i % plan.tiles, last = std::min(plan.tiles, first + mine.last - i);
          to_planes(source, {first, last, c, c + 1}, 0, part.shared, plan.block, tile);
          i += last - first;
        }
      }
      wait_for_all(part.threads);
      for (long p; (p = part.take()) < panels_of(out_);)
        for (long k = 0; k < plan.chunks; k++)
          outputs(sink, {plan.tiles * k / plan.chunks, plan.tiles * (k + 1) / plan.chunks, p}, 0, part.shared, plan.block,
                  part.own);
    }
  }

 private:
  struct Plan {
    long tiles, count, block, chunks = 1;
    bool alone;
    Plan(long all, int threads) : tiles(all) {
      count = (tiles + TILES - 1) / TILES;
      alone = count >= 2 * threads || threads == 1;
      if (alone && count % threads) count += threads - count % threads;
      if (!alone) chunks = count;
      block = alone ? (tiles + count - 1) / count : tiles;
    }
    long chunk() const { return alone ? block : (tiles + chunks - 1) / chunks; }
  };

  struct Tiles {
    long first, last;                    // tiles
    long first_channels, last_channels;  // blocks of channels
  };

  struct Outputs {
    long first, last;  // tiles
    long panel;
  };

  // Numbers from plane to plane before the products, floats after them; floats of all planes, with their tiles' scales.
  long step(long tiles) const { return rows_ * tiles + PAD; }
  static long results(long tiles) { return PANEL * LANES * tiles + PAD; }
  long planes(long tiles) const {
    return (PLANES * step(tiles) * long(sizeof(Number)) / long(sizeof(float)) + LANES - 1) / LANES * LANES +
           (FIXED ? scales(tiles) : 0);
  }
  static long scales(long tiles) { return (PLANES * tiles + LANES - 1) / LANES * LANES; }
  float* tile_scales(float* planes, long block) const { return planes + this->planes(block) - scales(block); }
  long tile_floats() const { return FIXED ? PLANES * rows_ : 0; }

  // Transform some tiles; `origin` is the first tile of the planes, which hold `block` tiles, `tile` scratch for one.
  template <typename Source>
  void to_planes(const Source& source, const Tiles& some, long origin, float* planes, long block, float* tile) const {
    if constexpr (FIXED) {
      for (long t = some.first; t < some.last; t++) {
        for (long c = some.first_channels; c < some.last_channels; c++) source(t, c, tile + c * LANES, rows_);
        for (int p = 0; p < PLANES; p++)
          tile_scales(planes, block)[p * block + t - origin] =
              to_fixed(tile + p * rows_, blocks_of(in_),
                       reinterpret_cast<Number*>(planes) + p * step(block) + (t - origin) * LANES, block * LANES);
      }
    } else {
      for (long c = some.first_channels; c < some.last_channels; c++)
        for (long t = some.first; t < some.last; t++)
          source(t, c, planes + (c * block + t - origin) * LANES, step(block));
    }
  }

  // Make the outputs of a panel for some tiles.
  template <typename Sink>
  void outputs(const Sink& sink, const Outputs& some, long origin, float* planes, long block, float* products) const {
    const long tiles = some.last - some.first, wide = PANEL * LANES, after = results(tiles);
    for (int i = 0; i < PLANES; i++) {
      const Number* in = reinterpret_cast<const Number*>(planes) + i * step(block) + (some.first - origin) * LANES;
      const Number* weights = weights_ + (some.panel * PLANES + i) * rows_ * wide;
      if constexpr (FIXED)
        fixed_product<PANEL>(
            tiles, {in, block, blocks_of(in_), tile_scales(planes, block) + i * block + some.first - origin}, weights,
            scales_ + (some.panel * PLANES + i) * wide, products + i * after, wide);
      else
        product<PANEL>(tiles, in, block, weights, blocks_of(in_), products + i * after, wide);
    }
    for (int o = 0; o < PANEL; o++) {
      const long b = some.panel * PANEL + o;
      if (b >= blocks_of(out_)) break;
      for (long t = some.first; t < some.last; t++) sink(t, b, products + (t - some.first) * wide + o * LANES, after);
    }
  }

  const long in_, out_, rows_;
  const Number* weights_;
  const float* scales_;  // one for each plane and output
};

}  // namespace VD_ISA
