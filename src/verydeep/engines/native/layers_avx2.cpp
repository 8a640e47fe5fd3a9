// The layers for processors with AVX2 and FMA.
#if defined(__x86_64__)
#define VD_TARGET "avx2,fma,f16c"
#define VD_FLOATS 8  // of a register
#define VD_ROWS 6
#define VD_OUTS 1
#define VD_HALF
#define VD_ISA avx2
#include "layers.inc"
#endif
