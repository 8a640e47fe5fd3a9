// Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016) on the points 0, P, -P, Q, -Q and infinity.
//
// 3/4 and 3/2 in place of the usual 1 and 2 halve the error, as the powers up to the third are nearer to 1; their squares
// are exact in binary. `verydeep bench winograd` compares points.
#pragma once

#include "vector.h"

namespace VD_ISA {

constexpr int SIDE = 6, PLANES = SIDE * SIDE, OUT = 4;

constexpr float P = 0.75f, Q = 1.5f, PP = P * P, QQ = Q * Q;

inline void input_line(const Vector d[SIDE], Vector t[SIDE]) {
  const Vector a = d[4] - QQ * d[2], b = P * (d[3] - QQ * d[1]), c = d[4] - PP * d[2], e = Q * (d[3] - PP * d[1]);
  t[0] = d[4] - (PP + QQ) * d[2] + PP * QQ * d[0];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + e;
  t[4] = c - e;
  t[5] = d[5] - (PP + QQ) * d[3] + PP * QQ * d[1];
}

// The 3x3 weights' line of point `i`, whose square filtered gives a tile's weights.
inline void weight_line(int i, double line[3]) {
  const double points[SIDE] = {0, P, -P, Q, -Q, 0}, x = points[i];
  if (i == SIDE - 1) {
    line[0] = line[1] = 0, line[2] = 1 / (P * P * P);
    return;
  }
  double scale = 1;
  for (int k = 0; k < SIDE - 1; k++)
    if (k != i) scale /= x - points[k];
  line[0] = scale, line[1] = scale * x, line[2] = scale * x * x;
}

// planes[p] = (B^T d B)[p] for the 6x6 pixels at `from`, `row` floats from line to line and `pixel` within it; planes lie
// `step` floats apart.
inline void input_tile(const float* from, long row, long pixel, float* planes, long step) {
  Vector columns[SIDE][SIDE];
  for (int x = 0; x < SIDE; x++) {
    Vector d[SIDE], t[SIDE];
#pragma GCC unroll 6
    for (int y = 0; y < SIDE; y++) d[y] = load(from + y * row + x * pixel);
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

// Line k comes out P^-k times too large: `output_scale` puts that right where the bias is added, at no cost.
inline void output_line(const Vector m[SIDE], Vector s[OUT]) {
  const Vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  constexpr float R = Q / P;
  s[0] = m[0] + a + c;
  s[1] = b + R * d;
  s[2] = a + R * R * c;
  s[3] = b + R * R * R * d + m[5];
}

constexpr float power(float x, int n) { return n ? x * power(x, n - 1) : 1; }

constexpr float output_scale(int row, int column) { return power(P, row + column); }

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

// The line of the gradient of outputs `y` whose square gives a tile's planes: the transpose of the outputs' own.
inline void gradient_line(const Vector y[OUT], Vector t[SIDE]) {
  const Vector a = y[0] + PP * y[2], b = P * (y[1] + PP * y[3]), c = y[0] + QQ * y[2], d = Q * (y[1] + QQ * y[3]);
  t[0] = y[0];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + d;
  t[4] = c - d;
  t[5] = power(P, 3) * y[3];
}

// planes[p] = (A y A^T)[p] for the gradient of a tile's 4x4 outputs.
inline void gradient_tile(const Vector y[OUT * OUT], float* planes, long step) {
  Vector columns[SIDE][OUT];
  for (int x = 0; x < OUT; x++) {
    const Vector d[OUT] = {y[x], y[OUT + x], y[2 * OUT + x], y[3 * OUT + x]};
    Vector t[SIDE];
    gradient_line(d, t);
#pragma GCC unroll 6
    for (int i = 0; i < SIDE; i++) columns[i][x] = t[i];
  }
  for (int i = 0; i < SIDE; i++) {
    Vector t[SIDE];
    gradient_line(columns[i], t);
#pragma GCC unroll 6
    for (int x = 0; x < SIDE; x++) store(planes + (i * SIDE + x) * step, t[x]);
  }
}

// Scales of `weight_line` at the points 0, P and Q.
constexpr float SCALE_0 = 1 / (PP * QQ), SCALE_P = 1 / (2 * PP * (PP - QQ)), SCALE_Q = 1 / (2 * QQ * (QQ - PP));
constexpr float SCALE_END = 1 / (P * P * P);

// A line of 3x3 weights at the six points, as weight_line has it.
inline void weight_points(const Vector g[3], Vector t[SIDE]) {
  const Vector a = SCALE_P * (g[0] + PP * g[2]), b = (SCALE_P * P) * g[1];
  const Vector c = SCALE_Q * (g[0] + QQ * g[2]), d = (SCALE_Q * Q) * g[1];
  t[0] = SCALE_0 * g[0];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + d;
  t[4] = c - d;
  t[5] = SCALE_END * g[2];
}

// Its transpose: the gradient of such a line from those of its six points.
inline void weight_gradient_line(const Vector t[SIDE], Vector g[3]) {
  const Vector a = SCALE_P * (t[1] + t[2]), b = (SCALE_P * P) * (t[1] - t[2]);
  const Vector c = SCALE_Q * (t[3] + t[4]), d = (SCALE_Q * Q) * (t[3] - t[4]);
  g[0] = SCALE_0 * t[0] + a + c;
  g[1] = b + d;
  g[2] = PP * a + QQ * c + SCALE_END * t[5];
}

}  // namespace VD_ISA
