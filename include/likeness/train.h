/* Training: labelled (or unlabelled) pictures become a model's directory that every other command reads.
 *
 *     pictures -> sampler -> augment -> network -> pooling -> projection -> neck -> loss (miner) -> backward ->
 * optimiser
 *
 * Loss, miner and sampler are advised from the labels unless they are given. What every option does and when to change
 * it: docs/training.md. */
#ifndef LIKENESS_TRAIN_H
#define LIKENESS_TRAIN_H

#include <likeness/context.h>
#include <likeness/metric.h>
#include <likeness/nn.h>
#include <likeness/pooling.h>
#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The head: from the last features to the embedding --------------------------------------------------------------
 */

typedef struct lk_head_options {
    lk_head_pool pool;
    float p;             /* GeM, alone or within CGD: the exponent it starts with; 0 = 3 */
    bool fixed_p;        /* GeM: do not learn it (CGD's is always fixed, as published) */
    bool p_per_channel;  /* GeM: one for each channel */
    unsigned levels;     /* R-MAC; 0 = 3 */
    bool whiten_regions; /* R-MAC: a linear map of each region's unit vector is learnt with the rest (Gordo et
                            al., 2016); it starts as the identity */
    bool descriptors[LK_CGD_KINDS]; /* CGD: which ones, in the order of lk_cgd_kind; none = all */
    size_t dim; /* of the projection; 0 = none, the embedding is what is pooled. CGD: of all descriptors together; 0 =
                   as many as channels */
    bool neck;  /* batch normalisation behind the projection (Luo et al., 2019), while training */
    float drop_block; /* Batch DropBlock (Dai et al., 2019): a second branch, in training alone, that sees the features
                         less a strip of this share of their height, pools the maximum, and learns by a loss of its own;
                         0 = none, 0.33 as published */
} lk_head_options;

/* The classifier that CGD is trained beside (Jun et al., 2019): softmax cross-entropy over classes on the first of its
 * descriptors, in training alone. */
typedef struct lk_auxiliary_options {
    double weight;      /* of its loss beside the other; 0 = none, 1 as published */
    double temperature; /* 0 = 0.5 */
    double smoothing;   /* of labels, below 1; < 0 = none, 0 = 0.1 */
} lk_auxiliary_options;

/* What is done to embeddings last, learnt from the training pictures when the training is over and kept in the model:
 * the vector is normalised, whitened, and normalised again. */
typedef enum lk_whiten_kind {
    LK_WHITEN_NONE,
    LK_WHITEN_PCA,   /* principal components over the root of their variance (Jegou & Chum, 2012) */
    LK_WHITEN_LEARNT /* from pairs of one class (Mikolajczyk & Matas, 2007; Radenovic et al., 2018, section 3.4) */
} lk_whiten_kind;

/* ---- Data -----------------------------------------------------------------------------------------------------------
 */

/* Pictures with their labels, and which of them are trained on and which validate. */
typedef struct lk_train_data lk_train_data;

typedef struct lk_train_data_info {
    size_t training, validation; /* pictures */
    size_t classes;              /* of the training pictures; 0 without labels */
    size_t held_out;         /* classes of validation that are never trained on; 0 = pictures were held out instead */
    size_t missing;          /* files that do not exist: left out */
    size_t left_out;         /* rows of another split, or without a label among labelled ones */
    lk_label_summary labels; /* of the training pictures */
} lk_train_data_info;

/* Reads a folder whose folders are classes, or a CSV with `path` and `label` (one class) or `labels` (several, parted
 * by ; or |), or neither (no labels). Column `split`: train, and validation (val, valid) for the held-out part; rows of
 * other splits are left out. Without it a fifth of the classes (two at least), chosen by the hash of their name,
 * validates; with fewer than five classes of two pictures a fifth of the pictures does, where that leaves two classes
 * of two pictures to validate with. Validation pictures of one class alone, or without two of any class, are left out:
 * every network would do equally well.
 *
 * levels: labels of a hierarchy, the coarsest level first. Names of columns parted by commas; one column alone holds
 * all of them, parted by slashes (furniture/chair/office). "folders": each folder on the way to a picture is a level.
 * NULL: the column `levels` or the columns level1, level2, ... where the CSV has them, else there is no hierarchy. The
 * classes that validate, are sampled and counted are those of the finest level. At most 8 levels.
 *
 * LK_NOT_FOUND (nothing there; no file of the list
 * exists), LK_CORRUPT (CSV), LK_INVALID (nothing to train on). */
LK_API lk_status lk_train_data_open(lk_context *context, const char *path, const char *levels, lk_train_data **out);
/* Leaves out the training pictures of classes with fewer than `least` of them, for losses with class weights, which
 * learn one for each class from its own pictures alone. LK_INVALID when labels are not one class a picture or fewer
 * than two classes are left; then nothing changed. */
LK_API lk_status lk_train_data_thin(lk_train_data *data, size_t least);
LK_API void lk_train_data_free(lk_train_data *data);
LK_API lk_train_data_info lk_train_data_info_of(const lk_train_data *data);

/* ---- Several processes ----------------------------------------------------------------------------------------------
 */

/* This process among those that mpirun started, on one machine or several. Each takes its part of every batch; together
 * they do what one would with a batch as many times larger: embeddings meet for the loss, batch norms share their
 * statistics, gradients are added up. The pictures must lie at the same paths for all; the first process alone writes.
 */
typedef struct lk_processes lk_processes;

/* LK_UNSUPPORTED when the library was built without MPI (meson's option mpi), LK_INVALID after it was left. */
LK_API lk_status lk_processes_join(lk_processes **out);
/* Once, at the end. After a failure that the others do not know of it does not wait for them; the process must then end
 * with another status than 0, so that mpirun stops them. NULL allowed. */
LK_API void lk_processes_leave(lk_processes *processes);
LK_API int lk_processes_rank(const lk_processes *processes);  /* from 0; NULL: 0 */
LK_API int lk_processes_count(const lk_processes *processes); /* NULL: 1 */
/* Whether this one failed and could not tell the others. */
LK_API bool lk_processes_broken(const lk_processes *processes);

/* ---- Training -------------------------------------------------------------------------------------------------------
 */

/* How a picture comes into the network's square. */
typedef enum lk_frame {
    LK_FRAME_AUTO,   /* trim for drawings, squash for photographs */
    LK_FRAME_SQUASH, /* stretched */
    LK_FRAME_BORDER, /* laid into it whole */
    LK_FRAME_TRIM    /* the same after an even border was cut off, with a margin of a sixteenth */
} lk_frame;

typedef enum lk_augment_kind { LK_AUGMENT_AUTO, LK_AUGMENT_PHOTO, LK_AUGMENT_LOGO, LK_AUGMENT_NONE } lk_augment_kind;

typedef struct lk_train_options {
    const char
        *backbone; /* an architecture's name, a config.json, or a model's directory to start from; NULL = resnet18 */
    lk_head_options head;
    lk_auxiliary_options auxiliary; /* of CGD; one class a picture */
    lk_whiten_kind whiten;
    size_t whiten_dim; /* kept by the whitening; 0 = all */
    bool loss_given;
    lk_loss_options loss; /* classes are filled in */
    bool pairs_given;     /* how pairs between alike and unlike count: pairs; else soft where the loss understands it */
    lk_pair_rule pairs;
    bool miner_given;
    lk_miner_options miner;
    bool sampler_given;
    lk_sampler_kind sampler;
    size_t per_class; /* K of P x K; 0 = advised */
    uint32_t size;    /* side of the pictures; 0 = 128, or that of the model started from */
    lk_frame frame;
    lk_augment_kind augment;
    uint32_t epochs;     /* 0 = 30 */
    size_t batch;        /* of each process; 0 = 64; lowered where the data has less */
    size_t batches;      /* per epoch; 0 = about every picture once, 10 at least */
    uint32_t accumulate; /* batches per step of the optimiser; 0 = 1 */
    bool bf16;
    lk_optimiser_options optimiser; /* rate 0 = the kind's default */
    double loss_rate;   /* rate of proxies and class weights over that of the network; 0 = 1, 10 for proxies */
    double layer_decay; /* rate of each block over that of the next one; 0 = 1 */
    const char *freeze; /* beginnings of names, parted by commas, that are not trained: "conv1,bn1,layer1" */
    lk_schedule_kind schedule;
    double warmup;             /* share of the steps; < 0 = none, 0 = 0.05 */
    double step_epochs, gamma; /* LK_RATE_STEP: 0 = a third of the epochs, 0.1 */
    uint32_t patience;         /* stop after so many epochs without a better validation; 0 = never */
    uint32_t checkpoint_every; /* steps between checkpoints besides those after each epoch; 0 = none */
    double seconds;            /* stop (as if cancelled) after so many; 0 = no limit */
    uint64_t memory;           /* bytes of decoded pictures kept; 0 = 1 GiB */
    uint64_t seed;
    bool resume; /* go on from the checkpoint in the directory, if there is one; options must be the same, but for the
                    number of epochs */
    bool overwrite; /* start anew in a directory that holds a model, whose files are replaced as new ones are made */
    bool half;      /* write the model's weights as f16 */
    lk_processes *processes; /* borrowed; NULL = one alone */
} lk_train_options;

/* Published defaults: GeM, 128 dimensions, AdamW at 1e-3, cosine. */
LK_API lk_train_options lk_train_defaults(void);

typedef struct lk_train_epoch {
    uint32_t epoch; /* from 1 */
    double loss, rate, seconds, images_per_second;
    double map, hit1, hit10, ndcg10; /* of the validation pictures; 0 without any */
    bool best;
} lk_train_epoch;
typedef void (*lk_train_epoch_fn)(void *user, const lk_train_epoch *epoch);

typedef struct lk_train_report {
    uint32_t epochs, best_epoch;
    double best_map;
    uint64_t steps;
    uint64_t unreadable; /* pictures that could not be decoded: others of their class took their place */
    bool stopped_early;
    char reason[640]; /* of the choice of loss, miner and sampler */
} lk_train_report;

/* Trains and writes into `directory` (made when missing):
 *   config.json, model.safetensors   the best model so far, for lk_embedder_open
 *   history.csv, report.html         curves, and the pictures most often confused
 *   checkpoint/last.safetensors      everything that a resumed run needs; it goes on bit for bit
 * Each is replaced atomically. The same data, options, seed and number of threads give the same bytes.
 * With several processes every one calls it with the same data and options; `epoch` is called in the first alone, and a
 * failure of one is returned by all.
 * LK_CONFLICT (the directory holds a model and neither resume nor overwrite is set; resume with other options, or where
 * there is a model without a checkpoint), LK_INVALID (options), LK_CORRUPT (the loss is not finite: nothing after the
 * last checkpoint is kept, and the message says what to lower), LK_IO (disk full), LK_CANCELLED (a checkpoint was
 * written). */
LK_API lk_status lk_train(lk_context *context, const lk_train_data *data, const lk_train_options *options,
                          const char *directory, lk_train_epoch_fn epoch, void *user, lk_train_report *report);

#ifdef __cplusplus
}
#endif
#endif
