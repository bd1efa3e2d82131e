/* Everything that a run needs to go on: all tensors, the optimiser's and the loss's state, and where it stands. */
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 7, LOSSES = 2 };
static const char *const loss_names[LOSSES] = {"state.loss", "state.drop_loss"};

static lk_loss *loss_of(const lk_network *net, int number)
{
    return number ? net->drop.loss : net->main.loss;
}

static lk_safetensor bytes_tensor(const char *name, const void *bytes, size_t size)
{
    return (lk_safetensor){.name = name, .dtype = LK_ST_U8, .rank = 1, .shape = {size}, .data = bytes, .count = size};
}

lk_status lk_checkpoint_write(const char *directory, const lk_network *net, const lk_train_state *state,
                              const char *fingerprint)
{
    char *folder = lk_path_join(directory, "checkpoint"),
         *path = folder ? lk_path_join(folder, "last.safetensors") : NULL;
    size_t optimiser_size = lk_optimiser_state_size(net->optimiser), n = 0;
    lk_safetensor *tensors = lk_alloc_zero(net->tensor_count + 2 + LOSSES, sizeof *tensors);
    uint8_t *optimiser = lk_alloc(optimiser_size + 1, 1), *states[LOSSES] = {NULL};
    const double fields[FIELDS] = {state->epoch,      (double)state->batch, (double)state->step, state->loss_sum,
                                   state->best_epoch, state->since_best,    state->best_map};
    lk_status s = path && tensors && optimiser ? LK_OK : lk_fail_memory("checkpoint");
    if (s == LK_OK) s = lk_make_dirs(folder);
    if (s != LK_OK) goto done;
    lk_optimiser_state_save(net->optimiser, optimiser);
    for (size_t i = 0; i < net->tensor_count; i++) {
        const lk_net_tensor *t = &net->tensors[i];
        tensors[n] = (lk_safetensor){
            .name = t->name, .dtype = LK_ST_F32, .rank = (uint32_t)t->rank, .data = t->values, .count = t->n};
        for (int k = 0; k < t->rank; k++) tensors[n].shape[k] = (uint64_t)t->dims[k];
        n++;
    }
    tensors[n++] = bytes_tensor("state.optimiser", optimiser, optimiser_size);
    for (int k = 0; k < LOSSES; k++) {
        const lk_loss *loss = loss_of(net, k);
        size_t size = loss ? lk_loss_state_size(loss) : 0;
        if (!size) continue;
        states[k] = lk_alloc(size, 1);
        if (!states[k]) LK_TRY(lk_fail_memory("checkpoint"));
        lk_loss_state_save(loss, states[k]);
        tensors[n++] = bytes_tensor(loss_names[k], states[k], size);
    }
    tensors[n++] = (lk_safetensor){
        .name = "state.run", .dtype = LK_ST_F64, .rank = 1, .shape = {FIELDS}, .data = fields, .count = FIELDS};
    s = lk_safetensors_write(path, tensors, n, (const char *const[]){"fingerprint", fingerprint, NULL});
done:
    free(folder);
    free(path);
    free(tensors);
    free(optimiser);
    for (int k = 0; k < LOSSES; k++) free(states[k]);
    return s;
}

static lk_status find(const lk_safetensors *file, const char *name, lk_st_dtype dtype, size_t count,
                      const lk_safetensor **out)
{
    *out = lk_safetensors_find(file, name);
    if (*out && (*out)->dtype == dtype && (*out)->count == count) return LK_OK;
    return lk_fail(LK_CORRUPT, "%s: the tensor %s is missing or of another size", lk_safetensors_path(file), name);
}

static lk_status restore(const lk_safetensors *file, lk_network *net, lk_train_state *state)
{
    const lk_safetensor *t;
    lk_status s;
    double fields[FIELDS];
    for (size_t i = 0; i < net->tensor_count; i++) {
        LK_TRY(find(file, net->tensors[i].name, LK_ST_F32, net->tensors[i].n, &t));
        memcpy(net->tensors[i].values, t->data, net->tensors[i].n * sizeof(float));
    }
    LK_TRY(find(file, "state.optimiser", LK_ST_U8, lk_optimiser_state_size(net->optimiser), &t));
    LK_TRY(lk_optimiser_state_load(net->optimiser, t->data, t->count));
    for (int k = 0; k < LOSSES; k++) {
        lk_loss *loss = loss_of(net, k);
        size_t size = loss ? lk_loss_state_size(loss) : 0;
        if (!size) continue;
        LK_TRY(find(file, loss_names[k], LK_ST_U8, size, &t));
        LK_TRY(lk_loss_state_restore(loss, t->data, size));
    }
    LK_TRY(find(file, "state.run", LK_ST_F64, FIELDS, &t));
    memcpy(fields, t->data, sizeof fields);
    *state = (lk_train_state){.epoch = (uint32_t)fields[0],
                              .batch = (uint64_t)fields[1],
                              .step = (uint64_t)fields[2],
                              .loss_sum = fields[3],
                              .best_epoch = (uint32_t)fields[4],
                              .since_best = (uint32_t)fields[5],
                              .best_map = fields[6]};
done:
    return s;
}

lk_status lk_checkpoint_read(const char *directory, lk_network *net, lk_train_state *state, const char *fingerprint,
                             bool *there)
{
    lk_safetensors *file = NULL;
    char *path = lk_path_join(directory, "checkpoint/last.safetensors");
    lk_status s = path ? LK_OK : lk_fail_memory("checkpoint");
    *there = path && lk_path_exists(path);
    if (s != LK_OK || !*there) goto done;
    LK_TRY(lk_safetensors_open(path, &file));
    const char *theirs = lk_safetensors_metadata(file, "fingerprint");
    if (!theirs || strcmp(theirs, fingerprint) != 0)
        s = lk_fail(LK_CONFLICT,
                    "%s: is of a training with other options or other data: give the same ones, or train into another "
                    "directory",
                    path);
    if (s == LK_OK) s = restore(file, net, state);
done:
    lk_safetensors_free(file);
    free(path);
    return s;
}
