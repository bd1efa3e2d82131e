/* The pictures of a report: queries with their results, right and wrong marked. */
#ifndef LK_ENGINE_REPORT_STRIPS_H
#define LK_ENGINE_REPORT_STRIPS_H

#include "engine/study.h"

#include <jansson.h>

/* What strips are made of. s NULL: runs alone, names without pictures. */
typedef struct strip_maker {
    const study *s;
    const lk_evaluation *evaluation;
    const lk_trec *const *trec; /* [n_runs] ranked lists; NULL for the study's own */
    const lk_trec *qrels;
    study_names names;
    uint8_t *wanted;         /* [rows]: pictures that a strip shows */
    uint8_t *wanted_queries; /* [query_count]: those of queries that are not in the gallery */
} strip_maker;

lk_status strips_begin(strip_maker *m);
void strips_end(strip_maker *m);
/* Best, worst and, with a second run, most improved and most worsened queries. */
lk_status strips_json(strip_maker *m, json_t *out);
/* Writes the thumbnails that strips show to FOLDER/pictures. What cannot be read any more is left out. */
lk_status strips_write_pictures(strip_maker *m, lk_context *context, const char *folder);

#endif
