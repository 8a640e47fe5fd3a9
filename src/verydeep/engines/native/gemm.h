// The inner product of everything here: rows of 16-channel blocks times packed weights.
#pragma once

#include "vector.h"

namespace VD_ISA {

// Rows of a register tile, and vectors of outputs: as many accumulators as the registers hold.
constexpr int ROWS = VD_ROWS, OUTS = VD_OUTS;

// Ask for the weights two pages behind `from`: by itself the processor looks ahead to the end of a page at most.
constexpr long AHEAD = 8192;
template <int BYTES, typename Weight>
inline void fetch_ahead(const Weight* from) {
#pragma GCC unroll 8
  for (int i = 0; i < BYTES; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(from) + AHEAD + i, 0, 2);
}

// sum[r][o] += in[r] * weights[o], for R numbers that lie STEP apart and O vectors.
template <int R, int O, int STEP, typename Weight>
[[gnu::always_inline]] inline void add_products(Vector (&sum)[R][O], const float* in, const Weight* weights) {
  Vector w[O];
#pragma GCC unroll 4
  for (int o = 0; o < O; o++) w[o] = load(weights + LANES * o);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const Vector x = all(in[r * STEP]);
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) sum[r][o] += x * w[o];
  }
}

// out[r][o] = sum over c of in[c / 16][r][c % 16] * weights[c][o], for R rows and O vectors of outputs.
// `in` is laid out [blocks][stride rows][16], `weights` [16 blocks][16 O], `out` [rows][out_stride].
template <int R, int O, typename Weight>
inline void tile(const float* in, long stride, const Weight* weights, long blocks, float* out, long out_stride) {
  Vector sum[R][O];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) sum[r][o] = all(0);
  for (long b = 0; b < blocks; b++, in += stride * LANES) {
#pragma GCC unroll 4
    for (int c = 0; c < LANES; c++, weights += LANES * O) {
      fetch_ahead<sizeof(Weight) * LANES * O>(weights);
      add_products<R, O, LANES>(sum, in + c, weights);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) store(out + r * out_stride + LANES * o, sum[r][o]);
}

template <int R, typename Tile>
inline void up_to(int rows, const Tile& tile) {
  if constexpr (R > 0) {
    if (rows == R) tile(std::integral_constant<int, R>());
    else up_to<R - 1>(rows, tile);
  }
}

// Share any number of rows out evenly among register tiles: `tile` runs one of so many rows, from a row on.
template <typename Tile>
inline void in_tiles(long rows, const Tile& tile) {
  const long tiles = (rows + ROWS - 1) / ROWS;
  for (long t = 0, r = 0; t < tiles; t++) {
    const long next = rows * (t + 1) / tiles;
    up_to<ROWS>(int(next - r), [&](auto count) { tile(count, r); });
    r = next;
  }
}

// The same for any number of rows.
template <int O, typename Weight>
inline void product(long rows, const float* in, long stride, const Weight* weights, long blocks, float* out,
                    long out_stride) {
  in_tiles(rows, [&](auto count, long r) {
    tile<decltype(count)::value, O>(in + r * LANES, stride, weights, blocks, out + r * out_stride, out_stride);
  });
}

// Rows of numbers, `step` floats apart.
struct Rows {
  const float* data;
  long step;
};

// out[r][o] = sum over k of a[k][r] * b[k][o], for R numbers and O vectors of `count` rows; where `more`, added to what is there.
template <int R, int O>
inline void crossed_tile(Rows a, Rows b, long count, float* out, long out_stride, bool more) {
  Vector sum[R][O];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) sum[r][o] = all(0);
  for (long k = 0; k < count; k++, a.data += a.step, b.data += b.step) add_products<R, O, 1>(sum, a.data, b.data);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) {
      float* to = out + r * out_stride + LANES * o;
      store(to, more ? load(to) + sum[r][o] : sum[r][o]);
    }
}

// The same for any numbers of either: `wide` vectors of b.
inline void crossed_product(long rows, Rows a, Rows b, long wide, long count, float* out, long out_stride, bool more) {
  in_tiles(rows, [&](auto tall, long r) {
    constexpr int R = decltype(tall)::value;
    const Rows from{a.data + r, a.step};
    float* to = out + r * out_stride;
    long o = 0;
    for (; o + OUTS <= wide; o += OUTS)
      crossed_tile<R, OUTS>(from, {b.data + o * LANES, b.step}, count, to + o * LANES, out_stride, more);
    for (; o < wide; o++) crossed_tile<R, 1>(from, {b.data + o * LANES, b.step}, count, to + o * LANES, out_stride, more);
  });
}

}  // namespace VD_ISA
