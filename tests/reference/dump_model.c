/* Runs a model's directory on prepared inputs and writes what it gives, for tools/reference/models.py to compare:
 *
 *     dump_model DIR vision|text f32|bf16|int8 INPUTS.safetensors OUT.safetensors [NODE...]
 *
 * INPUTS holds "x" (f32 [n, 3, h, w]) or "ids" (i64 [n, T]); for int8 also "calibration" (f32 [m, 3, h, w]). OUT
 * receives "embedding", "features" and each NODE. Without OUT ("-") only the opening is tried. */
#include "base/error.h"
#include "nn/safetensors.h"

#include <likeness/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 16 };

static lk_status read_inputs(const lk_safetensors *file, const char *name, bool ids, void **out, int64_t *n)
{
    const lk_safetensor *t = lk_safetensors_find(file, name);
    *out = NULL;
    if (!t) return lk_fail(LK_NOT_FOUND, "no tensor %s", name);
    *n = (int64_t)t->shape[0];
    float *values = malloc(t->count * sizeof *values);
    lk_safetensor_to_f32(t, values);
    if (ids)
        for (uint64_t i = 0; i < t->count; i++) {
            int32_t id = (int32_t)values[i];
            memcpy(&values[i], &id, sizeof id);
        }
    *out = values;
    return LK_OK;
}

static lk_status write_nodes(const lk_executor *e, const lk_graph *graph, const lk_node *nodes, int count, int64_t n,
                             const char *path)
{
    lk_safetensor tensors[MAX_NODES] = {0};
    lk_status s = LK_OK;
    for (int i = 0; s == LK_OK && i < count; i++) {
        lk_shape shape = lk_graph_shape(graph, nodes[i]);
        size_t values = (size_t)n;
        tensors[i] = (lk_safetensor){.dtype = LK_ST_F32, .rank = (uint32_t)shape.rank, .shape = {(uint64_t)n}};
        for (int d = 1; d < shape.rank; d++) values *= tensors[i].shape[d] = (uint64_t)shape.dims[d];
        float *data = malloc(values * sizeof *data);
        s = lk_executor_read(e, nodes[i], data);
        tensors[i].data = data;
        tensors[i].name = i == 0 ? "embedding" : i == 1 ? "features" : lk_graph_node_name(graph, nodes[i]);
    }
    if (s == LK_OK) s = lk_safetensors_write(path, tensors, (size_t)count, NULL);
    for (int i = 0; i < count; i++) free((void *)tensors[i].data);
    return s;
}

static lk_status run(lk_model *model, const lk_safetensors *inputs, bool text, const char *precision, const char *path,
                     int n_names, char **names)
{
    lk_graph *graph = lk_model_graph(model);
    lk_node nodes[MAX_NODES] = {lk_model_embedding(model), lk_model_features(model)};
    int count = 2;
    for (int i = 0; i < n_names && count < MAX_NODES; i++, count++) {
        nodes[count] = lk_graph_find(graph, names[i]);
        if (nodes[count] == LK_NO_NODE) return lk_fail(LK_NOT_FOUND, "no node %s", names[i]);
    }
    lk_executor *e = NULL;
    lk_calibration *calibration = NULL;
    void *x = NULL, *samples = NULL;
    int64_t n = 0, m = 0;
    lk_status s;
    lk_graph_output(graph, nodes[0]);
    LK_TRY(read_inputs(inputs, text ? "ids" : "x", text, &x, &n));
    lk_compile_options options = {.batch = n, .threads = 2, .keep = nodes, .keep_count = count};
    if (strcmp(precision, "bf16") == 0) options.precision = LK_PRECISION_BF16;
    if (strcmp(precision, "int8") == 0) {
        LK_TRY(read_inputs(inputs, "calibration", false, &samples, &m));
        LK_TRY(lk_calibration_new(graph, &calibration));
        /* one by one, as the program does: every value is kept */
        lk_shape shape = lk_graph_shape(graph, lk_graph_find(graph, "pixel_values"));
        size_t picture = (size_t)(shape.dims[1] * shape.dims[2] * shape.dims[3]);
        for (int64_t i = 0; i < m; i++)
            LK_TRY(lk_calibration_add(calibration, 1, (const void *const[]){(float *)samples + (size_t)i * picture}));
        options.precision = LK_PRECISION_INT8;
        options.calibration = calibration;
    }
    LK_TRY(lk_graph_compile(graph, &options, &e));
    LK_TRY(lk_executor_run(e, n, (const void *const[]){x}, (float *const[]){NULL}));
    s = write_nodes(e, graph, nodes, count, n, path);
done:
    lk_executor_free(e);
    lk_calibration_free(calibration);
    free(x);
    free(samples);
    return s;
}

int main(int argc, char **argv)
{
    if (argc < 6) return 2;
    bool text = strcmp(argv[2], "text") == 0;
    lk_model *model = NULL;
    lk_safetensors *inputs = NULL;
    lk_status s;
    LK_TRY(lk_model_open(argv[1], text ? LK_MODEL_TEXT : LK_MODEL_VISION, &model));
    if (strcmp(argv[5], "-") == 0) goto done;
    LK_TRY(lk_safetensors_open(argv[4], &inputs));
    s = run(model, inputs, text, argv[3], argv[5], argc - 6, argv + 6);
done:
    if (s != LK_OK) fprintf(stderr, "%s\n", lk_error_message());
    lk_model_free(model);
    lk_safetensors_free(inputs);
    return s != LK_OK;
}
