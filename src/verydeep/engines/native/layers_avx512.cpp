// The layers for processors with AVX-512.
#if defined(__x86_64__)
#define VD_TARGET "avx2,fma,f16c,avx512f,avx512vl,avx512bw,avx512dq"
#define VD_FLOATS 16  // of a register
#define VD_ROWS 14
#define VD_OUTS 2
#define VD_HALF
#define VD_ISA avx512
#include "layers.inc"
#endif
