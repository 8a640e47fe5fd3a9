#define VD_ISA portable
#include "layers.inc"
