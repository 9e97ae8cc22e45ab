/* yajl_tree.h - what common/json.h promises, made with another parser: to judge ours by. */
#ifndef UF_YAJL_TREE_H
#define UF_YAJL_TREE_H

#include "common/json.h"

/* As json_parse_outline; err is left alone. Slow, and everything is copied. */
enum status yajl_tree(struct json_doc *out, struct arena *a, struct text body,
                      uint32_t levels) CHECKED;

#endif
