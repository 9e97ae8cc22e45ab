/* assets.h - the files that the binary carries (web/assets lists them, deploy/embed-assets makes
 * the table). */
#ifndef UF_GATEWAY_ASSETS_H
#define UF_GATEWAY_ASSETS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/text.h"

struct asset {
    const char *path, *type, *etag;
    bool open; /* anybody may have it; else the dashboard's guests */
    struct text body, gzip;
};

extern const struct asset assets[];
extern const size_t n_assets;

const struct asset *asset_find(const char *path); /* NULL: none */

#endif
