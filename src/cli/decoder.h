/* A process that decodes query pictures for this one. To load the decoders takes longer than to open a collection and
 * to compile a network, so that happens beside; on another thread it would not: each library that is loaded stops the
 * others for a moment. And what a picture does to its decoder ends with the process. */
#ifndef LK_CLI_DECODER_H
#define LK_CLI_DECODER_H

#include <likeness/likeness.h>

typedef struct decoder decoder;

/* Before any thread is started. first: the picture that will most likely be asked for first; borrowed. NULL when out of
 * memory, which decoder_ask says. Where no process can be started, decoder_take decodes by itself. */
decoder *decoder_start(const char *first);
/* Asks for a picture as lk_query_image_file gives it; decoder_take waits for it and fails as that does: LK_CORRUPT also
 * when decoding the picture crashed the process, LK_IO when it was ended from outside. */
lk_status decoder_ask(decoder *decoder, const char *path, const uint32_t crop[4], const lk_image_options *options);
lk_status decoder_take(decoder *decoder, lk_image *out);
/* Ends the process, whatever it is doing. NULL is allowed. */
void decoder_stop(decoder *decoder);

#endif
