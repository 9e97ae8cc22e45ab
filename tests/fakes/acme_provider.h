/* acme_provider.h - the provider of docs/adding-a-provider.md, which does not exist. */
#ifndef UF_TESTS_ACME_PROVIDER_H
#define UF_TESTS_ACME_PROVIDER_H

#include "common/providers/provider.h"

extern const struct provider acme_provider;

#endif
