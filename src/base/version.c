#include <likeness/likeness.h>

const char *lk_version(void)
{
    return LIKENESS_VERSION;
}
