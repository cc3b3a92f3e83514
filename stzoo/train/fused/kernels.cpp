// Fused kernels for training TAU and gSTA on a CPU: activations in NHWC order, float32 sums and parameters. Matrix
// products stay with PyTorch; everything between them is here, so that each activation is read and written once.
// Sums over threads are added in a fixed order: the same number of threads gives the same bits.
//
// One library is built for planes of HEIGHT x WIDTH pixels in the translator, with activations kept in bfloat16 if
// BFLOAT16 is defined and in float32 otherwise. The vectors are the compiler's own, of the size that the processor has.
#include "branches.h"
#include "norms.h"
