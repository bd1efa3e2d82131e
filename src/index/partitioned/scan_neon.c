/* One group a register. */
#include "index/partitioned/scan_codewords.h"

#include <arm_neon.h>

/* Keys of 4 vectors. */
static inline void keys_of(const lk_scan *scan, uint16x4_t sum, const int16_t *corrections, float *out)
{
    float32x4_t correction = vcvtq_f32_s32(vmovl_s16(vld1_s16(corrections)));
    float32x4_t key = vfmaq_f32(vdupq_n_f32(scan->bias), vdupq_n_f32(scan->scale), vcvtq_f32_u32(vmovl_u16(sum)));
    vst1q_f32(out, vfmaq_f32(key, vdupq_n_f32(scan->factor), correction));
}

static size_t scan_codes(const lk_scan *scan, const uint8_t *codes, const int16_t *corrections, size_t n,
                         uint32_t first, float *keys, uint32_t *positions)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i += LK_SCAN_BLOCK, codes += scan->groups * 16) {
        uint16x8_t sums[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
        for (size_t g = 0; g < scan->groups; g++) {
            uint8x16_t table = vld1q_u8(scan->tables + g * 16), code = vld1q_u8(codes + g * 16);
            uint8x16_t low = vqtbl1q_u8(table, vandq_u8(code, vdupq_n_u8(15)));
            uint8x16_t high = vqtbl1q_u8(table, vshrq_n_u8(code, 4));
            sums[0] = vaddw_u8(sums[0], vget_low_u8(low));
            sums[1] = vaddw_high_u8(sums[1], low);
            sums[2] = vaddw_u8(sums[2], vget_low_u8(high));
            sums[3] = vaddw_high_u8(sums[3], high);
        }
        float block[LK_SCAN_BLOCK];
        for (size_t part = 0; part < 4; part++) {
            keys_of(scan, vget_low_u16(sums[part]), corrections + i + 8 * part, block + 8 * part);
            keys_of(scan, vget_high_u16(sums[part]), corrections + i + 8 * part + 4, block + 8 * part + 4);
        }
        size_t left = n - i < LK_SCAN_BLOCK ? n - i : LK_SCAN_BLOCK;
        for (size_t lane = 0; lane < left; lane++) {
            if (!(block[lane] >= scan->threshold)) continue;
            keys[count] = block[lane];
            positions[count++] = first + (uint32_t)(i + lane);
        }
    }
    return count;
}

const lk_scan_kernels lk_scan_neon = {"neon", scan_codes, nearest, tables, narrow};
