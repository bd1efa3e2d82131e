/* IEEE 754 binary16 in plain C: conversion to and from f32, round to nearest even, as the hardware does it. */
#ifndef LK_BASE_HALF_H
#define LK_BASE_HALF_H

#include <stdint.h>
#include <string.h>

/* Without a branch, so that loops over it vectorise. */
static inline float lk_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu, fraction = half & 0x3ffu;
    uint32_t normal = (magnitude << 13) + (112u << 23);
    /* infinity, or NaN: a signalling one becomes quiet */
    uint32_t special = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x400000u : 0u), tiny;
    float value = (float)(int32_t)fraction * 0x1p-24f; /* zero or subnormal: exact */
    memcpy(&tiny, &value, sizeof tiny);
    uint32_t bits = sign | (magnitude >= 0x7c00u ? special : magnitude < 0x400u ? tiny : normal);
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* 65520 and above become infinity. */
static inline uint16_t lk_float_to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) {
        /* Below the smallest normal half: adding 0.5 puts the unit in the last place of f32 at 2^-24, which is that of
         * subnormal halves, so that the addition itself rounds to nearest even. */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return (uint16_t)(sign | ((bits - 0x38000000u) >> 13));
}

#endif
