/*
 * Keys and region from the shared files of the AWS command line and SDKs, on
 * inih.
 */

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
   [profile name] in config files. Start from a zeroed struct. Values already
   set stay, and keys of two files are never mixed: parse the credentials file
   first. S3_OK, also where the section is absent; S3_ERROR: a value is too
   long or given twice, or the text is not such a file, then *err is a
   constant string and *p has what was read so far. Not for two threads at a
   time: inih's settings are variables of the library. */
int s3_profile_parse(s3_profile_t *p, const char *text, size_t len,
    s3_str_t profile, int config_file, const char **err);

/* overwrites everything in it */
void s3_profile_wipe(s3_profile_t *p);

#endif
