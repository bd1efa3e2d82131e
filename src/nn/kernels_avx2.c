#define NN_TABLE lk_nn_avx2
#define NN_NAME "avx2"
#include "nn/kernels_simd.h"
