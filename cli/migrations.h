/* migrations.h - the files of db/, embedded by deploy/embed-sql. */
#ifndef UF_MIGRATIONS_H
#define UF_MIGRATIONS_H

#include <stddef.h>

struct migration {
    int version;      /* the number in front of the file's name */
    const char *name; /* "0001_ledger" */
    const char *sql;
};

extern const struct migration migrations[]; /* ascending */
extern const size_t n_migrations;

#endif
