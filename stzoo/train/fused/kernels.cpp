// Fused AVX-512 kernels for training TAU on a CPU: bfloat16 activations in NHWC order, float32 sums and parameters.
// Planes of 16x16 pixels, channels in multiples of 32. Matrix products stay with PyTorch; everything between them is
// here, so that each activation is read and written once. GELU is its tanh form.
// Sums over threads are added in a fixed order: the same number of threads gives the same bits.
#include "branches.h"
#include "norms.h"
