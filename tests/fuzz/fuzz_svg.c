/* The search for embedded pictures in drawings, and the telling of formats that decides whether it runs. */
#include "fuzz.h"
#include "image/format.h"
#include "image/svg.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const char *name;
    lk_svg_start();
    lk_picture_sniff(bytes, size, &name);
    lk_svg_check_embedded(bytes, size, "fuzz", 1 << 18);
    return 0;
}
