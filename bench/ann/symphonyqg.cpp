// SymphonyQG (github.com/gouyt13/SymphonyQG) called natively, as bench/ann/run.py calls it:
//   symphonyqg build BASE INDEX BASE_ROWS THREADS
//   symphonyqg search QUERIES TRUTH INDEX BASE_ROWS QUERY_ROWS PASSES
// Files are .npy, float32 and int32. Prints what peers written in Python print.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <iostream>
#include <set>
#include <string>
#include <unistd.h>
#include <vector>

#include "qg/qg.hpp"
#include "qg/qg_builder.hpp"

namespace {
const size_t kDegree = 32, kEffort = 200, kK = 10;

template <typename T>
std::vector<T> read_npy(const char* path, size_t& rows, size_t& columns) {
    FILE* file = fopen(path, "rb");
    unsigned char head[10];
    if (!file || fread(head, 1, 10, file) != 10) exit(1);
    std::string text(head[8] + 256u * head[9], 0);
    if (fread(&text[0], 1, text.size(), file) != text.size()) exit(1);
    size_t found = text.find("(");
    if (found == std::string::npos || sscanf(text.c_str() + found, "(%zu, %zu", &rows, &columns) != 2) exit(1);
    std::vector<T> values(rows * columns);
    if (fread(values.data(), sizeof(T), values.size(), file) != values.size()) exit(1);
    fclose(file);
    return values;
}

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t resident() {
    size_t whole = 0, pages = 0;
    FILE* file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%zu %zu", &whole, &pages) != 2) exit(1);
    fclose(file);
    return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

int build(char** arguments) {
    size_t rows, dim;
    auto base = read_npy<float>(arguments[0], rows, dim);
    rows = std::min(rows, static_cast<size_t>(strtoul(arguments[2], nullptr, 10)));
    size_t before = resident();
    double start = now(), cpu = clock();
    symqg::QuantizedGraph graph(rows, kDegree, dim);
    {
        symqg::QGBuilder builder(graph, kEffort, base.data(), strtoul(arguments[3], nullptr, 10));
        builder.build(3);
    }
    double seconds = now() - start;
    cpu = (clock() - cpu) / CLOCKS_PER_SEC;
    size_t grown = resident() - before;
    graph.save_index(arguments[1]);
    printf("\n{\"build\": %.3f, \"cpu\": %.3f, \"bytes\": %zu}\n", seconds, cpu, grown);
    return 0;
}

int search(char** arguments) {
    size_t queries, dim, truths, width, rows = strtoul(arguments[3], nullptr, 10);
    auto query = read_npy<float>(arguments[0], queries, dim);
    auto truth = read_npy<int>(arguments[1], truths, width);
    queries = std::min(queries, static_cast<size_t>(strtoul(arguments[4], nullptr, 10)));
    symqg::QuantizedGraph graph(rows, kDegree, dim);
    graph.load_index(arguments[2]);
    std::vector<uint32_t> found(queries * kK);
    std::string points;
    for (size_t effort : {10, 14, 20, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160, 200, 260, 320, 400, 520}) {
        graph.set_ef(effort);
        double best = 1e9, median = 0;
        for (int pass = 0; pass < atoi(arguments[5]); pass++) {
            std::vector<double> times(queries);
            double sum = 0;
            for (size_t i = 0; i < queries; i++) {
                double start = now();
                graph.search(query.data() + i * dim, kK, &found[i * kK]);
                sum += times[i] = now() - start;
            }
            if (sum >= best) continue;
            best = sum;
            std::sort(times.begin(), times.end());
            median = times[queries / 2];
        }
        size_t hits = 0;
        for (size_t i = 0; i < queries; i++)
            for (size_t j = 0; j < kK; j++)
                hits += std::count(truth.begin() + i * width, truth.begin() + i * width + kK, static_cast<int>(found[i * kK + j]));
        double recall = static_cast<double>(hits) / static_cast<double>(kK * queries);
        char text[200];
        snprintf(text, sizeof text, "%s{\"effort\": \"%zu\", \"recall\": %.5f, \"qps\": %.1f, \"median\": %.9f}",
                 points.empty() ? "" : ", ", effort, recall, static_cast<double>(queries) / best, median);
        points += text;
        if (recall > 0.995) break;
    }
    printf("\n[%s]\n", points.c_str());
    return 0;
}
}  // namespace

int main(int count, char** arguments) {
    if (count == 6 && strcmp(arguments[1], "build") == 0) return build(arguments + 2);
    if (count == 8 && strcmp(arguments[1], "search") == 0) return search(arguments + 2);
    fprintf(stderr, "symphonyqg build|search ...\n");
    return 2;
}
