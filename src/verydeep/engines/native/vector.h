// Vectors of 16 floats in the compiler's own vector type, so that one source serves AVX-512, AVX2 and Arm.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "layer.h"

namespace VD_ISA {

using verydeep::LANES;



typedef float Vector __attribute__((vector_size(64), aligned(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(64), aligned(64)));

inline Vector load(const float* from) { return *reinterpret_cast<const Loose*>(from); }

// Half precision, for weights that are read once from memory: kept where the processor widens it by itself.
#if defined(VD_HALF)
struct Half {
  uint16_t bits;
  Half& operator=(float value) { return bits = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT), *this; }
};
inline Vector load(const Half* from) {
#if VD_REGISTERS == 32
  return Vector(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#else
  union {
    Vector whole;
    __m256 half[2];
  } v;
  const __m128i* parts = reinterpret_cast<const __m128i*>(from);
  v.half[0] = _mm256_cvtph_ps(_mm_loadu_si128(parts)), v.half[1] = _mm256_cvtph_ps(_mm_loadu_si128(parts + 1));
  return v.whole;
#endif
}
#else
using Half = float;
#endif

inline void store(float* to, Vector v) { *reinterpret_cast<Loose*>(to) = v; }
inline Vector all(float value) { return value - Vector{}; }
// A value that is not a number stays one: the comparison is false then.
inline Vector relu(Vector v) { return v < 0 ? Vector{} : v; }
inline Vector larger(Vector a, Vector b) { return (a < b) | (b != b) ? b : a; }

}  // namespace VD_ISA
