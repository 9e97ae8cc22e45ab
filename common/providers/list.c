/* list.c - the providers that this build knows. A new one is a row here, and a file beside it
 * (docs/adding-a-provider.md). */
#include "common/providers/provider.h"

const struct provider *const providers[] = {
    &openai_provider,
    &anthropic_provider,
};
const size_t n_providers = sizeof(providers) / sizeof(providers[0]);
