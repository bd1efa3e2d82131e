#include "metric/problem.h"

double lk_reduced(lk_problem *problem, const lk_reduction *reduction)
{
    double factor = lk_reduction_factor(reduction);
    size_t count = problem->n * problem->m;
    for (size_t i = 0; i < count; i++) problem->slope[i] *= factor;
    for (size_t i = 0; i < problem->n; i++) problem->norm_slope[i] *= factor;
    return reduction->sum * factor;
}

double lk_log_sum_exp(double *x, const double *w, size_t count, double floor)
{
    if (!count) return 0;
    double most = floor > 0 ? 0 : -INFINITY, sum = 0;
    for (size_t k = 0; k < count; k++) most = x[k] > most ? x[k] : most;
    for (size_t k = 0; k < count; k++) {
        x[k] = (w ? w[k] : 1) * exp(x[k] - most);
        sum += x[k];
    }
    if (floor > 0) sum += floor * exp(-most);
    for (size_t k = 0; k < count; k++) x[k] /= sum;
    return most + log(sum);
}

size_t lk_group_widest(const lk_group *group, size_t n)
{
    size_t widest = 0;
    for (size_t i = 0; i < n; i++)
        if (group->at[i + 1] - group->at[i] > widest) widest = group->at[i + 1] - group->at[i];
    return widest;
}
