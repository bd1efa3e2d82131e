/* Every family against timm and transformers (tools/reference/models_small.py): the final embedding, the last features
 * and two maps in between, each within 1e-4 of its largest value (f32; what is seen is 5e-6). And directories that are
 * refused. */
#include "unit.h"

#include "models_fixture.h"

#include "base/error.h"

#include <likeness/model.h>

static double compare(const json_t *wanted, const float *got, size_t count, const char *name, const char *what)
{
    const json_t *values = json_object_get(wanted, "values"), *shape = json_object_get(wanted, "shape");
    double most = json_number_value(json_object_get(wanted, "most")), worst = 0;
    size_t step = (size_t)json_integer_value(json_object_get(wanted, "step")), all = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) all *= (size_t)json_integer_value(json_array_get(shape, i));
    if (all != count) fail_msg("%s: %s has %zu values, not %zu", name, what, count, all);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double off = fabs((double)got[i * step] - json_number_value(json_array_get(values, i))) / most;
        if (!(off <= 1e-4)) fail_msg("%s: %s[%zu] is off by %.2g of the largest value", name, what, i * step, off);
        worst = off > worst ? off : worst;
    }
    return worst;
}

static double check_results(lk_model *model, const json_t *item, const void *input, int64_t n, bool no_fusion)
{
    lk_graph *graph = lk_model_graph(model);
    const char *name = json_string_value(json_object_get(item, "name")), *what;
    lk_node nodes[8];
    int count = 0;
    double worst = 0;
    json_t *wanted, *results = json_object_get(item, "results");
    json_object_foreach(results, what, wanted)
    {
        nodes[count] = strcmp(what, "embedding") == 0  ? lk_model_embedding(model)
                       : strcmp(what, "features") == 0 ? lk_model_features(model)
                                                       : lk_graph_find(graph, what);
        if (nodes[count] == LK_NO_NODE) fail_msg("%s: no node %s", name, what);
        count++;
    }
    lk_executor *executor;
    const lk_compile_options options = {
        .batch = n, .keep = nodes, .keep_count = count, .no_fusion = no_fusion, .no_reuse = no_fusion};
    if (lk_graph_compile(graph, &options, &executor) != LK_OK) fail_msg("%s: %s", name, lk_error_message());
    assert_int_equal(lk_executor_run(executor, n, (const void *const[]){input}, (float *const[]){NULL}), LK_OK);
    int i = 0;
    json_object_foreach(results, what, wanted)
    {
        lk_shape shape = lk_graph_shape(graph, nodes[i]);
        size_t values = (size_t)n;
        for (int d = 1; d < shape.rank; d++) values *= (size_t)shape.dims[d];
        float *got = malloc(values * sizeof *got);
        assert_int_equal(lk_executor_read(executor, nodes[i++], got), LK_OK);
        double off = compare(wanted, got, values, name, what);
        worst = off > worst ? off : worst;
        free(got);
    }
    lk_executor_free(executor);
    return worst;
}

static void *make_input(const json_t *item, int64_t *n)
{
    const json_t *ids = json_object_get(item, "ids");
    if (ids) {
        size_t rows = json_array_size(ids), length = json_array_size(json_array_get(ids, 0));
        int32_t *out = malloc(rows * length * sizeof *out);
        for (size_t i = 0; i < rows * length; i++)
            out[i] = (int32_t)json_integer_value(json_array_get(json_array_get(ids, i / length), i % length));
        *n = (int64_t)rows;
        return out;
    }
    size_t side = (size_t)json_integer_value(json_object_get(item, "side")), count = 2 * 3 * side * side;
    float *out = malloc(count * sizeof *out);
    for (size_t i = 0; i < count; i++) out[i] = formula_unit(formula_hash("picture"), i);
    *n = 2;
    return out;
}

static json_t *load_cases(void)
{
    json_t *cases = json_load_file(UNIT_FIXTURES "/models/cases.json", 0, NULL);
    assert_true(json_array_size(cases) >= 21);
    return cases;
}

static void every_family_agrees_with_its_reference(void **state)
{
    json_t *cases = load_cases(), *item;
    size_t i;
    json_array_foreach(cases, i, item)
    {
        lk_model *model;
        int64_t n;
        bool text = strcmp(json_string_value(json_object_get(item, "part")), "text") == 0;
        fixture_model(item, *state, NULL);
        if (lk_model_open(*state, text ? LK_MODEL_TEXT : LK_MODEL_VISION, &model) != LK_OK)
            fail_msg("%s: %s", json_string_value(json_object_get(item, "name")), lk_error_message());
        lk_graph_output(lk_model_graph(model), lk_model_embedding(model));
        void *input = make_input(item, &n);
        double worst = check_results(model, item, input, n, false), plain = check_results(model, item, input, n, true);
        printf("%-40s %.1e, unfused %.1e\n", json_string_value(json_object_get(item, "name")), worst, plain);
        free(input);
        lk_model_free(model);
    }
    json_decref(cases);
}

static void refuses(const char *folder, lk_model_part part, lk_status status, const char *why, const char *file)
{
    lk_model *model;
    lk_status s = lk_model_open(folder, part, &model);
    if (s != status || model || !strstr(lk_error_message(), why) || !strstr(lk_error_message(), file))
        fail_msg("status %d (\"%s\"), not %d with \"%s\" and \"%s\"", s, lk_error_message(), status, why, file);
}

static void wrong_tensors_are_named_with_their_file(void **state)
{
    json_t *cases = load_cases(), *resnet = fixture_case(cases, "ResNet, basic blocks");
    fixture_model(resnet, *state, &(fixture_change){.drop = "layer2.0.conv1.weight"});
    refuses(*state, LK_MODEL_VISION, LK_NOT_FOUND, "layer2.0.conv1.weight is missing", "model.safetensors");
    fixture_model(resnet, *state, &(fixture_change){.reshape = "layer1.0.conv1.weight"});
    refuses(*state, LK_MODEL_VISION, LK_CORRUPT,
            "layer1.0.conv1.weight has the shape [7, 64, 3, 3]; resnet18 wants [8, 64, 3, 3]", "model.safetensors");
    fixture_model(resnet, *state, &(fixture_change){.nan = "layer3.0.bn1.weight"});
    refuses(*state, LK_MODEL_VISION, LK_CORRUPT, "layer3.0.bn1.weight", "model.safetensors");
    fixture_model(resnet, *state, &(fixture_change){.negative = "layer3.0.bn1.running_var"});
    refuses(*state, LK_MODEL_VISION, LK_CORRUPT, "layer3.0.bn1.running_var holds a negative", "model.safetensors");
    fixture_model(resnet, *state, &(fixture_change){.extra = "layer5.0.conv1.weight"});
    refuses(*state, LK_MODEL_VISION, LK_CORRUPT, "layer5.0.conv1.weight has no place", "model.safetensors");
    json_t *clip = fixture_case(cases, "CLIP");
    fixture_model(clip, *state, &(fixture_change){.drop = "text_projection.weight"});
    refuses(*state, LK_MODEL_TEXT, LK_NOT_FOUND, "text_projection.weight is missing", "model.safetensors");
    json_decref(cases);
}

/* A tower of more blocks than its config says; the other tower is none of its business. */
static void surplus_blocks_of_the_opened_tower_are_refused(void **state)
{
    json_t *cases = load_cases(), *clip = fixture_case(cases, "CLIP");
    static const char *const extras[] = {[LK_MODEL_VISION] = "vision_model.encoder.layers.9.mlp.fc1.weight",
                                         [LK_MODEL_TEXT] = "text_model.encoder.layers.9.mlp.fc1.weight"};
    for (lk_model_part part = LK_MODEL_VISION; part <= LK_MODEL_TEXT; part++) {
        lk_model_part other = part == LK_MODEL_TEXT ? LK_MODEL_VISION : LK_MODEL_TEXT;
        lk_model *model;
        fixture_model(clip, *state, &(fixture_change){.extra = extras[part]});
        refuses(*state, part, LK_CORRUPT, extras[part], "model.safetensors");
        assert_int_equal(lk_model_open(*state, other, &model), LK_OK);
        lk_model_free(model);
    }
    json_decref(cases);
}

static void classifiers_are_left_out_without_a_word(void **state)
{
    json_t *cases = load_cases();
    lk_model *model;
    static const char *const extras[] = {"fc.extra", "head.fc.weight", "classifier.2.weight"};
    for (int i = 0; i < 3; i++) {
        fixture_model(fixture_case(cases, "ResNet, basic blocks"), *state, &(fixture_change){.extra = extras[i]});
        assert_int_equal(lk_model_open(*state, LK_MODEL_VISION, &model), LK_OK);
        lk_model_free(model);
    }
    json_decref(cases);
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void incomplete_and_unknown_directories_are_refused(void **state)
{
    json_t *cases = load_cases();
    char path[512];
    const char *folder = *state;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    refuses(folder, LK_MODEL_VISION, LK_NOT_FOUND, "no config.json", folder);
    write_text(folder, "config.json", "{\"architecture\":");
    refuses(folder, LK_MODEL_VISION, LK_CORRUPT, "line 1", "config.json");
    write_text(folder, "config.json", "{}");
    refuses(folder, LK_MODEL_VISION, LK_UNSUPPORTED, "names no architecture", "config.json");
    write_text(folder, "config.json", "{\"architecture\":\"swin_tiny\"}");
    refuses(folder, LK_MODEL_VISION, LK_UNSUPPORTED, "swin_tiny is not known", "config.json");
    write_text(folder, "config.json", "{\"model_type\":\"resnet50\"}");
    refuses(folder, LK_MODEL_VISION, LK_UNSUPPORTED, "resnet50 is not known", "config.json");
    write_text(folder, "config.json", "{\"architecture\":\"resnet18\"}");
    refuses(folder, LK_MODEL_VISION, LK_NOT_FOUND, "preprocessor_config.json", folder);
    refuses(folder, LK_MODEL_TEXT, LK_UNSUPPORTED, "knows pictures alone", folder);
    fixture_model(fixture_case(cases, "ResNet, basic blocks"), folder, NULL);
    remove(path);
    refuses(folder, LK_MODEL_VISION, LK_NOT_FOUND, "model.safetensors is missing", folder);
    write_text(folder, "pytorch_model.bin", "PK");
    refuses(folder, LK_MODEL_VISION, LK_UNSUPPORTED, "save_file", "pytorch_model.bin");
    write_text(folder, "model.safetensors", "{}");
    refuses(folder, LK_MODEL_VISION, LK_CORRUPT, "too short", "model.safetensors");
    json_decref(cases);
}

static void refuses_setting(const char *folder, json_t *cases, const char *name, const char *key, json_t *value,
                            lk_status status, const char *why)
{
    json_t *item = json_deep_copy(fixture_case(cases, name)), *config = json_object_get(item, "config");
    const char *dot = strchr(key, '.');
    char part[64];
    snprintf(part, sizeof part, "%.*s", dot ? (int)(dot - key) : 0, key);
    json_object_set_new(dot ? json_object_get(config, part) : config, dot ? dot + 1 : key, value);
    fixture_model(item, folder, NULL);
    refuses(folder, LK_MODEL_VISION, status, why, folder);
    json_decref(item);
}

static void senseless_configs_are_refused(void **state)
{
    json_t *cases = load_cases();
    refuses_setting(*state, cases, "ViT", "model_args.depth", json_integer(-3), LK_CORRUPT, "depth");
    refuses_setting(*state, cases, "ViT", "model_args.depth", json_string("2"), LK_CORRUPT, "depth");
    refuses_setting(*state, cases, "ViT", "model_args.embed_dim", json_integer(1ll << 40), LK_CORRUPT, "embed_dim");
    refuses_setting(*state, cases, "ViT", "model_args.num_heads", json_integer(5), LK_CORRUPT, "heads");
    refuses_setting(*state, cases, "ViT", "model_args.patch_size", json_integer(13), LK_INVALID, "do not divide");
    refuses_setting(*state, cases, "ViT", "model_args.global_pool", json_string("map"), LK_UNSUPPORTED,
                    "global_pool map");
    refuses_setting(*state, cases, "ViT", "model_args.class_token", json_false(), LK_CORRUPT, "class token");
    refuses_setting(*state, cases, "ResNet, basic blocks", "model_args.layers", json_pack("[i,i]", 1, 1), LK_CORRUPT,
                    "layers");
    refuses_setting(*state, cases, "ConvNeXt", "model_args.dims", json_pack("[i,i,i,f]", 1, 1, 1, 1.5), LK_CORRUPT,
                    "dims");
    refuses_setting(*state, cases, "CLIP", "vision_config.hidden_act", json_string("mish"), LK_UNSUPPORTED, "mish");
    refuses_setting(*state, cases, "CLIP", "vision_config.hidden_size", json_integer(64), LK_CORRUPT, "[64");
    refuses_setting(*state, cases, "DINOv2 of transformers", "use_swiglu_ffn", json_true(), LK_UNSUPPORTED, "giant");
    json_decref(cases);
}

static void architectures_can_be_made_without_weights(void **state)
{
    (void)state;
    lk_model *model;
    size_t made = 0;
    for (size_t i = 0; lk_architecture_at(i); i++) {
        const lk_architecture *a = lk_architecture_at(i);
        if (strcmp(a->source, "transformers") == 0) continue;
        int64_t side = strstr(a->name, "patch14") ? 70 : 64;
        if (lk_model_new(a->name, side, side, &model) != LK_OK) fail_msg("%s: %s", a->name, lk_error_message());
        lk_model_info info = lk_model_info_of(model);
        assert_string_equal(info.architecture, a->name);
        assert_true(info.dim > 0 && info.parameters > 1000000 && info.height == side);
        lk_model_free(model);
        made++;
    }
    assert_true(made > 50);
    assert_int_equal(lk_model_new("resnet19", 64, 64, &model), LK_UNSUPPORTED);
    assert_int_equal(lk_model_new("resnet18", 0, 64, &model), LK_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_family_agrees_with_its_reference, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(wrong_tensors_are_named_with_their_file, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(surplus_blocks_of_the_opened_tower_are_refused, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(classifiers_are_left_out_without_a_word, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(incomplete_and_unknown_directories_are_refused, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(senseless_configs_are_refused, unit_folder, unit_folder_remove),
        cmocka_unit_test(architectures_can_be_made_without_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
