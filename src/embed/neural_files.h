/* The files of a model's directory: hashed for its identity, linked or copied into a collection. */
#ifndef LK_EMBED_NEURAL_FILES_H
#define LK_EMBED_NEURAL_FILES_H

#include "base/file.h"

/* A hash of weights, config.json and preprocessor_config.json. LK_NOT_FOUND, LK_IO. */
lk_status lk_neural_files_hash(const char *directory, lk_hash128 *out);

/* Puts every file that the model needs into `to`, which is created: hard links where the file system allows, else
 * copies. What is there already is replaced. LK_IO. */
lk_status lk_neural_files_bring(const char *directory, const char *to);

#endif
