/* Inside of a model, for who trains one. */
#ifndef LK_MODELS_MODEL_H
#define LK_MODELS_MODEL_H

#include "models/preprocess.h"
#include "nn/safetensors.h"

#include <likeness/model.h>

/* Names of what a head of our own adds to a model's file; the backbone does not know them. */
#define LK_HEAD_PREFIX "likeness_head."

/* A model's directory opened for pictures of another size; side 0 = its own. */
lk_status lk_model_open_at(const char *directory, uint32_t side, lk_model **out);
/* Its config.json, owned by the model. */
const json_t *lk_model_config(const lk_model *model);
/* How pictures are prepared; to be changed before the model is used. */
lk_preprocess *lk_model_preparation(lk_model *model);

#endif
