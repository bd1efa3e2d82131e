/* Models: a directory as it is downloaded from Hugging Face becomes a graph (nn.h) with its weights. config.json
 * decides the architecture; model.safetensors holds the weights under the names of timm, torchvision or transformers;
 * preprocessor_config.json, or timm's pretrained_cfg in config.json, says how pictures are prepared. See
 * docs/models.md. */
#ifndef LIKENESS_MODEL_H
#define LIKENESS_MODEL_H

#include <likeness/image.h>
#include <likeness/nn.h>
#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A family as `likeness model list` shows it. Strings are static. */
typedef struct lk_architecture {
    const char *name;   /* "resnet50", "clip": config.json's architecture (timm) or model_type (transformers) */
    const char *family; /* "ResNet" */
    const char *source; /* "timm, torchvision" or "transformers" */
    bool text;          /* has a text tower too */
} lk_architecture;

/* Number i of those known, in the order they are listed; NULL past the last. */
LK_API const lk_architecture *lk_architecture_at(size_t i);

typedef enum lk_model_part { LK_MODEL_VISION, LK_MODEL_TEXT } lk_model_part;

typedef struct lk_model lk_model;

/* Reads one part of a model's directory: the graph is built and every parameter loaded (mapped where it is f32).
 * LK_NOT_FOUND (the directory or a file of it is missing, a tensor is missing), LK_UNSUPPORTED (architecture, file
 * format), LK_CORRUPT (a tensor of another shape, one that does not belong there, NaN), LK_INVALID. The message names
 * file and tensor. What a classifier adds (fc.*, head.*, classifier.*) is left out without a word, and so is the part
 * that is not opened. */
LK_API lk_status lk_model_open(const char *directory, lk_model_part part, lk_model **out);

/* An architecture by its timm name, or by a config.json (a path that ends so) with its model_args, without weights, for
 * pictures of height x width: to be trained from nothing (see lk_graph_initialise), or given weights with
 * lk_graph_load. LK_UNSUPPORTED when it is not known. */
LK_API lk_status lk_model_new(const char *architecture, int64_t height, int64_t width, lk_model **out);
LK_API void lk_model_free(lk_model *model); /* after every executor of its graph; NULL allowed */

typedef struct lk_model_info {
    const char *architecture; /* owned by the model */
    const char *family;       /* static */
    int64_t height, width;    /* of the pictures it sees; 0 for text */
    int64_t length;           /* tokens of a text; 0 for pictures */
    int64_t dim;              /* of its own embedding: the head without the classifier */
    int64_t channels;         /* of its last features */
    int64_t places;           /* positions of its last features: height*width, or tokens without the leading ones */
    int64_t leading;          /* tokens in front of them that are no places (class token, registers) */
    bool tokens;              /* features are [N, leading + places, channels]; else [N, channels, h, w] */
    bool text;                /* the directory has a text tower */
    bool tokenizer;           /* and the files of a tokenizer, without which texts cannot be embedded */
    uint64_t parameters;      /* numbers in its weights, running statistics included */
    uint64_t weight_bytes;    /* of the file; 0 without one */
} lk_model_info;
LK_API lk_model_info lk_model_info_of(const lk_model *model);

/* The graph; it has no outputs yet: whoever compiles it says which of the nodes below are wanted. Owned by the model.
 */
LK_API lk_graph *lk_model_graph(lk_model *model);
LK_API lk_node lk_model_features(const lk_model *model);  /* last map or tokens */
LK_API lk_node lk_model_embedding(const lk_model *model); /* [N, dim] */

/* Prepares a picture (RGB) as the model's files say: out [3][height][width]. Several threads may call it at once. */
LK_API lk_status lk_model_prepare(const lk_model *model, const lk_image *image, float *out);
/* How pictures should be decoded for it. */
LK_API lk_image_options lk_model_image_options(const lk_model *model);

#ifdef __cplusplus
}
#endif
#endif
