// Products of 16-bit integers, summed in 32 bits: twice as many an instruction as of floats, at a tenth of 8-bit's error.
//
// Every tile has, at each of its 36 planes, a scale of its own, by which its greatest number becomes MOST; every output
// has one a plane, such that no sum of CHUNK channels can leave 32 bits whatever the pixels are: the sum of a chunk's
// weights times MOST is below 2^31. Behind each chunk the sums are added up in floats. Integers have no rounding order, so
// the sums are the same on every processor.
#pragma once

#include "gemm.h"

namespace VD_ISA {

constexpr long CHUNK = 64;               // channels
constexpr double MOST = 16383;           // of a pixel's number
constexpr double MOST_WEIGHT = 32767;
constexpr double SUM = 2147483647.0 / MOST - CHUNK;  // of a chunk's weights; rounding adds a half to each at most

// The scale of one output's weights at one plane.
inline double weight_scale(const double* weights, long count) {
  double most = 0, sum = 0;
  for (long first = 0; first < count; first += CHUNK) {
    double here = 0;
    for (long c = first; c < std::min(first + CHUNK, count); c++) {
      most = std::max(most, std::abs(weights[c]));
      here += std::abs(weights[c]);
    }
    sum = std::max(sum, here);
  }
  return std::max(most / MOST_WEIGHT, sum / SUM);
}

// 16 sums of 32 bits. `add` adds for each a pair of numbers (the same for all) times a pair of weights (its own).
#if VD_FLOATS == 16
struct Sums {
  __m512i v;
  static Sums zero() { return {_mm512_setzero_si512()}; }
  static __m512i pair(const int16_t* from) { return _mm512_set1_epi32(*reinterpret_cast<const int*>(from)); }
  static __m512i weights(const int16_t* from) { return _mm512_loadu_si512(from); }
  template <bool VNNI>
  void add(__m512i x, __m512i w) {
    // The compiler's own instruction spills the sums: it does not see that it may overwrite them.
    if (VNNI) asm("vpdpwssd %2, %1, %0" : "+v"(v) : "v"(x), "v"(w));
    else v = _mm512_add_epi32(v, _mm512_madd_epi16(x, w));
  }
  Vector floats() const { return {_mm512_cvtepi32_ps(v)}; }
};
inline bool has_vnni() { return __builtin_cpu_supports("avx512vnni"); }
#elif VD_FLOATS == 8
struct Pair16 { __m256i low, high; };
struct Sums {
  __m256i low, high;
  static Sums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static __m256i pair(const int16_t* from) { return _mm256_set1_epi32(*reinterpret_cast<const int*>(from)); }
  static Pair16 weights(const int16_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + LANES))};
  }
  template <bool>
  void add(__m256i x, Pair16 w) {
    low = _mm256_add_epi32(low, _mm256_madd_epi16(x, w.low));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(x, w.high));
  }
  Vector floats() const { return {{_mm256_cvtepi32_ps(low)}, {_mm256_cvtepi32_ps(high)}}; }
};
inline bool has_vnni() { return false; }
#else
struct Sums {
  int32_t v[LANES];
  static Sums zero() { return {}; }
  static const int16_t* pair(const int16_t* from) { return from; }
  static const int16_t* weights(const int16_t* from) { return from; }
  template <bool>
  void add(const int16_t* x, const int16_t* w) {
    for (int i = 0; i < LANES; i++) v[i] += int32_t(x[0]) * w[2 * i] + int32_t(x[1]) * w[2 * i + 1];
  }
  Vector floats() const {
    float f[LANES];
    for (int i = 0; i < LANES; i++) f[i] = float(v[i]);
    return load(f);
  }
};
inline bool has_vnni() { return false; }
#endif

// Round `blocks` blocks of 16 floats to integers, `step` apart, of which the greatest is MOST; return their scale.
// Where one of them is no finite number the scale is none either, and so is all that comes of it.
inline float to_fixed(const float* from, long blocks, int16_t* to, long step) {
  float most = 0;
  bool finite = true;
#if VD_FLOATS == 16
  __m512 greatest = _mm512_setzero_ps();
  for (long b = 0; b < blocks; b++) {
    const __m512 x = _mm512_abs_ps(_mm512_loadu_ps(from + b * LANES));
    finite &= _mm512_cmp_ps_mask(x, _mm512_set1_ps(__FLT_MAX__), _CMP_LE_OQ) == 0xffff;
    greatest = _mm512_max_ps(x, greatest);
  }
  most = _mm512_reduce_max_ps(greatest);
#else
  for (long i = 0; i < blocks * LANES; i++) {
    finite &= std::abs(from[i]) <= __FLT_MAX__;
    most = std::max(most, std::abs(from[i]));
  }
#endif
  const float scale = finite ? most / float(MOST) : __builtin_nanf("");
  const float by = finite && most > 0 ? float(MOST) / most : 0;
  for (long b = 0; b < blocks; b++, from += LANES, to += step) {
#if VD_FLOATS == 16
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from), _mm512_set1_ps(by)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(whole));
#else
    for (int i = 0; i < LANES; i++) to[i] = finite ? int16_t(std::nearbyint(from[i] * by)) : 0;
#endif
  }
  return scale;
}

// Rows of integers, laid out [blocks][stride rows][16], with a scale for each.
struct FixedRows {
  const int16_t* data;
  long stride, blocks;
  const float* scales;
};

// out[r][o] = scales[r] * weight_scales[o] * sum over c of in[r][c] * weights[c / 2][o][c % 2], for R rows and O vectors.
template <int R, int O, bool VNNI>
inline void fixed_tile(const FixedRows& in, long row, const int16_t* weights, const float* weight_scales, float* out,
                       long out_stride) {
  const int16_t* from = in.data + row * LANES;
  constexpr long BLOCKS = CHUNK / LANES;
  for (long first = 0; first < in.blocks; first += BLOCKS) {
    Sums sum[R][O];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int o = 0; o < O; o++) sum[r][o] = Sums::zero();
    const long last = first + BLOCKS < in.blocks ? first + BLOCKS : in.blocks;
    for (long b = first; b < last; b++, from += in.stride * LANES) {
#pragma GCC unroll 2
      for (int c = 0; c < LANES; c += 2, weights += 2 * LANES * O) {
        decltype(Sums::weights(weights)) w[O];
        fetch_ahead<sizeof(int16_t) * 2 * LANES * O>(weights);
#pragma GCC unroll 4
        for (int o = 0; o < O; o++) w[o] = Sums::weights(weights + 2 * LANES * o);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          const auto x = Sums::pair(from + r * LANES + c);
#pragma GCC unroll 4
          for (int o = 0; o < O; o++) sum[r][o].template add<VNNI>(x, w[o]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int o = 0; o < O; o++) {
        float* to = out + r * out_stride + LANES * o;
        Vector all = sum[r][o].floats();
        if (first > 0) all += load(to);
        if (last == in.blocks) all = in.scales[row + r] * (load(weight_scales + LANES * o) * all);
        store(to, all);
      }
  }
}

// The same for any number of rows.
template <int O>
inline void fixed_product(long rows, const FixedRows& in, const int16_t* weights, const float* weight_scales, float* out,
                          long out_stride) {
  static const bool vnni = has_vnni();
  in_tiles(rows, [&](auto count, long r) {
    constexpr int R = decltype(count)::value;
    const auto run = vnni ? fixed_tile<R, O, true> : fixed_tile<R, O, false>;
    run(in, r, weights, weight_scales, out + r * out_stride, out_stride);
  });
}

}  // namespace VD_ISA
