// Winograd's minimal filtering F(4x4, 3x3) on the points 0, 1, -1, 2, -2 and infinity (Lavin & Gray 2016).
#pragma once

#include "vector.h"

namespace VD_ISA {

constexpr int SIDE = 6, PLANES = SIDE * SIDE, OUT = 4;

inline void input_line(const Vector d[SIDE], Vector t[SIDE]) {
  const Vector a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
  t[0] = 4 * d[0] - 5 * d[2] + d[4];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + e;
  t[4] = c - e;
  t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// planes[p] = (B^T d B)[p] for the 6x6 pixels at `from`, `row` floats from line to line; planes lie `step` floats apart.
inline void input_tile(const float* from, long row, float* planes, long step) {
  Vector columns[SIDE][SIDE];
  for (int x = 0; x < SIDE; x++) {
    Vector d[SIDE], t[SIDE];
#pragma GCC unroll 6
    for (int y = 0; y < SIDE; y++) d[y] = load(from + y * row + x * LANES);
    input_line(d, t);
#pragma GCC unroll 6
    for (int y = 0; y < SIDE; y++) columns[y][x] = t[y];
  }
  for (int y = 0; y < SIDE; y++) {
    Vector t[SIDE];
    input_line(columns[y], t);
#pragma GCC unroll 6
    for (int x = 0; x < SIDE; x++) store(planes + (y * SIDE + x) * step, t[x]);
  }
}

inline void output_line(const Vector m[SIDE], Vector s[OUT]) {
  const Vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  s[0] = m[0] + a + c;
  s[1] = b + 2 * d;
  s[2] = a + 4 * c;
  s[3] = b + 8 * d + m[5];
}

// out[4][4] = A^T m A for the planes at `planes`, `step` floats apart.
inline void output_tile(const float* planes, long step, Vector out[OUT][OUT]) {
  Vector columns[OUT][SIDE];
  for (int x = 0; x < SIDE; x++) {
    Vector m[SIDE], s[OUT];
#pragma GCC unroll 6
    for (int y = 0; y < SIDE; y++) m[y] = load(planes + (y * SIDE + x) * step);
    output_line(m, s);
#pragma GCC unroll 4
    for (int y = 0; y < OUT; y++) columns[y][x] = s[y];
  }
#pragma GCC unroll 4
  for (int y = 0; y < OUT; y++) output_line(columns[y], out[y]);
}

}  // namespace VD_ISA
