#define NN_TABLE lk_nn_avx512
#define NN_NAME "avx512"
#include "nn/kernels_simd.h"
