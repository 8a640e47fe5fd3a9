// The layers for every other processor, through the compiler's vectors.
#define VD_REGISTERS 8
#define VD_ISA portable
#include "layers.inc"
