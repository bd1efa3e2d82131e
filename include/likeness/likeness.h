/* Likeness: similar images, end to end. Includes every public header. */
#ifndef LIKENESS_H
#define LIKENESS_H

#include <likeness/codes.h>
#include <likeness/collection.h>
#include <likeness/context.h>
#include <likeness/embed.h>
#include <likeness/engine.h>
#include <likeness/eval.h>
#include <likeness/image.h>
#include <likeness/index.h>
#include <likeness/metric.h>
#include <likeness/model.h>
#include <likeness/nn.h>
#include <likeness/partitioned.h>
#include <likeness/pooling.h>
#include <likeness/rank.h>
#include <likeness/server.h>
#include <likeness/status.h>
#include <likeness/train.h>
#include <likeness/vectors.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0": semantic version of this API. */
LK_API const char *lk_version(void);

#ifdef __cplusplus
}
#endif
#endif
