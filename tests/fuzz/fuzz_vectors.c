/* Headers of vector files: whatever the bytes, a layout that is accepted lies within the file. The first byte picks the
 * format; the length of the file is that of the input, or (second byte) what the header would need if it were believed.
 */
#include "formats/layout.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    lk_vector_layout layout;
    const uint8_t *head = data + 1;
    uint64_t file_size = size - 1;
    size_t known = file_size < LK_HEADER_BYTES ? (size_t)file_size : LK_HEADER_BYTES;
    lk_component component = (lk_component)(data[0] / 3 % 6);
    lk_status s = data[0] % 3 == 0   ? lk_npy_layout("fuzz", head, known, file_size, &layout)
                  : data[0] % 3 == 1 ? lk_vecs_layout("fuzz", component, head, known, file_size, &layout)
                                     : lk_bin_layout("fuzz", component, head, known, file_size, &layout);
    if (s != LK_OK) return 0;
    if (layout.dim < 1 || layout.dim > LK_DIM_MOST) abort();
    for (uint64_t row = 0; row < layout.rows; row++)
        if (layout.offset + row * layout.stride + layout.dim * lk_component_bytes(layout.component) > file_size)
            abort();
    float out[LK_DIM_MOST];
    if (layout.rows > 0) lk_components_decode(layout.component, layout.dim, head + layout.offset, out);
    return 0;
}
