#define VD_ISA avx512
#include "layers.inc"
