// Vectors of 16 floats, one register or several, so that one source serves AVX-512, AVX2 and Arm.
#pragma once

#include "layer.h"

namespace VD_ISA {

using verydeep::LANES;

template <int FLOATS>
struct Register {
  typedef float type __attribute__((vector_size(FLOATS * sizeof(float))));
  typedef float loose __attribute__((vector_size(FLOATS * sizeof(float)), aligned(sizeof(float)), may_alias));
  typedef uint8_t bytes __attribute__((vector_size(FLOATS)));
};

// As many registers of `FLOATS` as make 16 floats; the compiler keeps each in one.
template <int FLOATS, int COUNT>
struct Group {
  Group<FLOATS, COUNT / 2> low, high;
  static Group load(const float* from) {
    return {Group<FLOATS, COUNT / 2>::load(from), Group<FLOATS, COUNT / 2>::load(from + FLOATS * COUNT / 2)};
  }
  static Group all(float value) {
    const auto half = Group<FLOATS, COUNT / 2>::all(value);
    return {half, half};
  }
  void store(float* to) const { low.store(to), high.store(to + FLOATS * COUNT / 2); }
  Group operator+(Group o) const { return {low + o.low, high + o.high}; }
  Group operator-(Group o) const { return {low - o.low, high - o.high}; }
  Group operator*(Group o) const { return {low * o.low, high * o.high}; }
  Group positive() const { return {low.positive(), high.positive()}; }
  Group or_larger(Group o) const { return {low.or_larger(o.low), high.or_larger(o.high)}; }
  Group where_equal(Group o, Group yes, Group no) const {
    return {low.where_equal(o.low, yes.low, no.low), high.where_equal(o.high, yes.high, no.high)};
  }
  static Group of_bytes(const uint8_t* from) {
    return {Group<FLOATS, COUNT / 2>::of_bytes(from), Group<FLOATS, COUNT / 2>::of_bytes(from + FLOATS * COUNT / 2)};
  }
  void to_bytes(uint8_t* to) const { low.to_bytes(to), high.to_bytes(to + FLOATS * COUNT / 2); }
};

template <int FLOATS>
struct Group<FLOATS, 1> {
  typename Register<FLOATS>::type v;
  static Group load(const float* from) { return {*reinterpret_cast<const typename Register<FLOATS>::loose*>(from)}; }
  static Group all(float value) { return {value - typename Register<FLOATS>::type{}}; }
  void store(float* to) const { *reinterpret_cast<typename Register<FLOATS>::loose*>(to) = v; }
  Group operator+(Group o) const { return {v + o.v}; }
  Group operator-(Group o) const { return {v - o.v}; }
  Group operator*(Group o) const { return {v * o.v}; }
  // What is not a number stays it: the comparison is false then, as it is not in `or_larger`.
  Group positive() const { return {v < 0 ? typename Register<FLOATS>::type{} : v}; }
  Group or_larger(Group o) const { return {(v < o.v) | (o.v != o.v) ? o.v : v}; }
  Group where_equal(Group o, Group yes, Group no) const { return {v == o.v ? yes.v : no.v}; }
  static Group of_bytes(const uint8_t* from) {
    typename Register<FLOATS>::bytes b;
    std::memcpy(&b, from, FLOATS);
    return {__builtin_convertvector(b, typename Register<FLOATS>::type)};
  }
  void to_bytes(uint8_t* to) const {
    const auto b = __builtin_convertvector(v, typename Register<FLOATS>::bytes);
    std::memcpy(to, &b, FLOATS);
  }
};

typedef Group<VD_FLOATS, LANES / VD_FLOATS> Vector;

inline Vector operator*(float a, Vector b) { return Vector::all(a) * b; }
inline void operator+=(Vector& a, Vector b) { a = a + b; }

inline Vector load(const float* from) { return Vector::load(from); }
// The first `count` of them, 1 to 16, with zeros behind.
inline Vector load_some(const float* from, long count) {
#if VD_FLOATS == 16
  return {_mm512_maskz_loadu_ps(__mmask16((1 << count) - 1), from)};
#else
  if (count == LANES) return load(from);
  float some[LANES] = {};
  for (long i = 0; i < count; i++) some[i] = from[i];
  return load(some);
#endif
}
inline void store(float* to, Vector v) { v.store(to); }
inline void store(float* to, const float* values) { store(to, load(values)); }
inline Vector all(float value) { return Vector::all(value); }
inline Vector relu(Vector v) { return v.positive(); }
inline Vector larger(Vector a, Vector b) { return a.or_larger(b); }
// Number by number: `yes` where a is b, else `no`.
inline Vector choose(Vector a, Vector b, Vector yes, Vector no) { return a.where_equal(b, yes, no); }
// Small whole numbers that are kept in bytes.
inline Vector of_bytes(const uint8_t* from) { return Vector::of_bytes(from); }
inline void to_bytes(uint8_t* to, Vector v) { v.to_bytes(to); }

// Weights that are read once, from memory, are kept in fewer bytes, in groups of 16. An output's are multiplied by a power
// of two such that they are below 2^BITS.

// 24-bit integers, the upper 16 bits of a group before its lower 8: as exact as floats, in three quarters of the bytes.
struct Fixed24 {
  static constexpr int BITS = 23;
  unsigned char bytes[3];
};
inline void store(Fixed24* to, const float* values) {
  int16_t* high = reinterpret_cast<int16_t*>(to);
  uint8_t* low = reinterpret_cast<uint8_t*>(high + LANES);
  for (int i = 0; i < LANES; i++) {
    const int32_t whole = std::min(int32_t(std::nearbyint(values[i])), (1 << Fixed24::BITS) - 1);
    high[i] = int16_t(whole >> 8), low[i] = uint8_t(whole & 255);
  }
}
inline Vector load(const Fixed24* from) {
  const int16_t* high = reinterpret_cast<const int16_t*>(from);
  const uint8_t* low = reinterpret_cast<const uint8_t*>(high + LANES);
#if VD_FLOATS == 16
  const __m512i upper = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
  const __m512i lower = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
  return {_mm512_cvtepi32_ps(_mm512_or_si512(_mm512_slli_epi32(upper, 8), lower))};
#elif VD_FLOATS == 8
  const auto half = [&](int i) {
    const __m256i upper = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high + i)));
    const __m256i lower = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(low + i)));
    return _mm256_cvtepi32_ps(_mm256_or_si256(_mm256_slli_epi32(upper, 8), lower));
  };
  return {{half(0)}, {half(8)}};
#else
  float values[LANES];
  for (int i = 0; i < LANES; i++) values[i] = float(high[i] * 256 + low[i]);
  return load(values);
#endif
}

// Half precision, where the processor widens it by itself.
#if defined(VD_HALF)
struct Half {
  static constexpr int BITS = 0;
  unsigned short bits;
};
inline void store(Half* to, const float* values) {
  for (int i = 0; i < LANES; i++) to[i].bits = _cvtss_sh(values[i], _MM_FROUND_TO_NEAREST_INT);
}
inline Vector load(const Half* from) {
  const __m128i* parts = reinterpret_cast<const __m128i*>(from);
#if VD_FLOATS == 16
  return {_mm512_maskz_cvtph_ps(__mmask16(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(parts)))};
#else
  return {{_mm256_cvtph_ps(_mm_loadu_si128(parts))}, {_mm256_cvtph_ps(_mm_loadu_si128(parts + 1))}};
#endif
}
#else
using Half = Fixed24;
#endif

}  // namespace VD_ISA
