// The layers for processors with AVX2 and FMA.
#if defined(__x86_64__)
#define VD_TARGET "avx2,fma,f16c"
#define VD_REGISTERS 8  // of 16 floats: 16 of 8
#define VD_HALF
#define VD_ISA avx2
#include "layers.inc"
#endif
