// Vectors of 16 floats in the compiler's own vector type, so that one source serves AVX-512, AVX2 and Arm.
#pragma once

#include <cstdint>
#include "layer.h"

namespace VD_ISA {

using verydeep::LANES;



typedef float Vector __attribute__((vector_size(64), aligned(64)));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(64), aligned(64)));

inline Vector load(const float* from) { return *reinterpret_cast<const Loose*>(from); }
inline void store(float* to, Vector v) { *reinterpret_cast<Loose*>(to) = v; }
inline Vector all(float value) { return value - Vector{}; }
// A value that is not a number stays one: the comparison is false then.
inline Vector relu(Vector v) { return v < 0 ? Vector{} : v; }
inline Vector larger(Vector a, Vector b) { return (a < b) | (b != b) ? b : a; }

}  // namespace VD_ISA
