#define VD_ISA avx2
#include "layers.inc"
