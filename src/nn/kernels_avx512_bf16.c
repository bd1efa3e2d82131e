#define NN_TABLE lk_nn_avx512_bf16
#define NN_NAME "avx512_bf16"
#include "nn/kernels_simd.h"
