#define NN_TABLE lk_nn_plain
#define NN_NAME "plain"
#include "nn/kernels_simd.h"
