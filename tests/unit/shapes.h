/* Grey pictures of a few shapes, made by formula: each shape in as many variants as are asked for. */
#ifndef SHAPES_H
#define SHAPES_H

#include <likeness/image.h>

#include <math.h>
#include <stdlib.h>

enum { SIDE = 96 };

typedef double (*shape_fn)(double x, double y, int variant); /* darkness in [0, 1] at a place in [-1, 1]^2 */

static double disc(double x, double y, int v)
{
    return hypot(x, y) < 0.4 + 0.05 * v;
}

static double bar(double x, double y, int v)
{
    return fabs(y) < 0.15 + 0.05 * v && fabs(x) < 0.8;
}

static double cross(double x, double y, int v)
{
    return fmin(fabs(x), fabs(y)) < 0.1 + 0.03 * v && fmax(fabs(x), fabs(y)) < 0.7;
}

static double waves(double x, double y, int v)
{
    return 0.5 + 0.5 * sin(9 * x + v) * cos(7 * y * x - v);
}

__attribute__((unused)) static double thicket(double x, double y, int v)
{
    return 0.5 + 0.25 * (sin(23 * x + 5 * y * y + v) + cos(19 * y - 7 * x * y));
}

static double spots(double x, double y, int v)
{
    return fmod(fabs(x * 3.1 + v * 0.1), 1) < 0.4 && fmod(fabs(y * 2.3), 1) < 0.5 && x + y < 0.9;
}

static const shape_fn shapes[] = {disc, bar, cross, waves, spots};
enum { SHAPES = sizeof shapes / sizeof *shapes, PICTURES = SHAPES * 3 };

__attribute__((unused)) static lk_image draw(shape_fn shape, uint32_t width, uint32_t height, int variant)
{
    lk_image image = {malloc((size_t)width * height), width, height, 1, width, height};
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            image.pixels[(size_t)y * width + x] =
                (uint8_t)(255 - 255 * shape((x + 0.5) * 2 / width - 1, (y + 0.5) * 2 / height - 1, variant));
    return image;
}

#endif
