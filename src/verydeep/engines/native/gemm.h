// The inner product of everything here: rows of 16-channel blocks times packed weights.
#pragma once

#include "vector.h"

namespace VD_ISA {

// Rows of a register tile, and vectors of outputs: as many accumulators as the registers hold.
constexpr int ROWS = VD_ROWS, OUTS = VD_OUTS;

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
      Vector w[O];
#pragma GCC unroll 4
      for (int o = 0; o < O; o++) w[o] = load(weights + LANES * o);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const Vector x = all(in[r * LANES + c]);
#pragma GCC unroll 4
        for (int o = 0; o < O; o++) sum[r][o] += x * w[o];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) store(out + r * out_stride + LANES * o, sum[r][o]);
}

template <int R, int O, typename Weight>
inline void up_to(int rows, const float* in, long stride, const Weight* weights, long blocks, float* out,
                  long out_stride) {
  if constexpr (R > 0) {
    if (rows == R) tile<R, O>(in, stride, weights, blocks, out, out_stride);
    else up_to<R - 1, O>(rows, in, stride, weights, blocks, out, out_stride);
  }
}

// The same for any number of rows, shared out evenly among register tiles.
template <int O, typename Weight>
inline void product(long rows, const float* in, long stride, const Weight* weights, long blocks, float* out,
                    long out_stride) {
  const long tiles = (rows + ROWS - 1) / ROWS;
  for (long t = 0, r = 0; t < tiles; t++) {
    const long next = rows * (t + 1) / tiles;
    up_to<ROWS, O>(int(next - r), in + r * LANES, stride, weights, blocks, out + r * out_stride, out_stride);
    r = next;
  }
}

}  // namespace VD_ISA
