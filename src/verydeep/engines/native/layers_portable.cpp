// The layers for every other processor, through the compiler's vectors.
#define VD_FLOATS 4  // of a register
#if defined(__aarch64__)
#define VD_ROWS 6
#else
#define VD_ROWS 3
#endif
#define VD_OUTS 1
#define VD_ISA portable
#include "layers.inc"
