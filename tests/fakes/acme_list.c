/* acme_list.c - stands for common/providers/list.c in a build for tests that knows Acme, too. */
#include "tests/fakes/acme_provider.h"

const struct provider *const providers[] = {
    &openai_provider,
    &anthropic_provider,
    &acme_provider,
};
const size_t n_providers = sizeof(providers) / sizeof(providers[0]);
