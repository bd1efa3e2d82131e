/* Which architectures there are, and who builds each. */
#ifndef LK_MODELS_REGISTRY_H
#define LK_MODELS_REGISTRY_H

#include "models/build.h"

#include <likeness/model.h>

typedef struct lk_registry_row {
    lk_architecture about; /* what people are told */
    bool transformers;     /* named by config.json's model_type; else by timm's architecture */
    lk_build_fn vision, text;
    const void *variant;
    const char *wrapper; /* prefix of the names where a classifier was saved around the model; NULL = none */
} lk_registry_row;

/* The row that a config.json asks for; NULL when it names none that is known. */
const lk_registry_row *lk_registry_find(const json_t *config);
/* The name that a config.json gives itself, or NULL. */
const char *lk_registry_name(const json_t *config);

#endif
