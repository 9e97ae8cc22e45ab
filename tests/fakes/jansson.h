/* jansson.h - another JSON parser, to judge ours by. Its names that are also ours get a J in front;
 * include it before common/json.h. */
#ifndef UF_JANSSON_H
#define UF_JANSSON_H

#define JSON_OBJECT  JJSON_OBJECT
#define JSON_ARRAY   JJSON_ARRAY
#define JSON_STRING  JJSON_STRING
#define JSON_INTEGER JJSON_INTEGER
#define JSON_REAL    JJSON_REAL
#define JSON_TRUE    JJSON_TRUE
#define JSON_FALSE   JJSON_FALSE
#define JSON_NULL    JJSON_NULL
#define json_string  jjson_string /* never called */
#include <jansson.h>
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_STRING
#undef JSON_INTEGER
#undef JSON_REAL
#undef JSON_TRUE
#undef JSON_FALSE
#undef JSON_NULL
#undef json_string
#undef json_is_null

#endif
