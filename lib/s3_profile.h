#ifndef S3_PROFILE_H
#define S3_PROFILE_H

#include "s3_str.h"

typedef struct {
    char      access_key[256];
    char      secret_key[256];
    char      session_token[4096];
    char      region[64];
    unsigned  found:1;               /* the profile's section exists */
} s3_profile_t;

/* Reads the section of `profile` (AWS SDKs and Tools Reference Guide "Shared
   config and credentials files"): [name] in credentials files, [default] and
   [profile name] in config files. Values already set stay: parse the
   credentials file first. S3_ERROR: a value is too long or the text is not
   such a file; *err is a constant string. */
int s3_profile_parse(s3_profile_t *p, const char *text, size_t len,
    s3_str_t profile, int config_file, const char **err);

void s3_profile_wipe(s3_profile_t *p);

#endif
