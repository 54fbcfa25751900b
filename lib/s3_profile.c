#include "s3_profile.h"

#include <stdbool.h>
#include <string.h>

#include <ini.h>


#define S3_PROFILE_MAX_LINE  16384   /* a session token has 1 to 4 KB */


typedef struct {
    s3_profile_t         *profile;
    const unsigned char  *pos;       /* the text that inih has not had */
    const unsigned char  *end;
    const char           *err;
    s3_str_t              wanted;
    size_t                indent;    /* of the last line that had a name */
    unsigned              seen;      /* a bit for each name of the section */
    unsigned              prefixed:1;   /* [profile wanted], not [wanted] */
    unsigned              keys:1;    /* keys are taken, not only region */
    unsigned              named:1;   /* a name stands above in the section */
    unsigned              inside:1;  /* within the wanted section */
    unsigned              found:1;
} s3_profile_ctx_t;


/* inih's settings */

typedef struct {
    int    max_line;
    int    initial_alloc;
    bool   use_stack;
    bool   allow_realloc;
    bool   allow_bom;
    bool   allow_multiline;
    bool   allow_inline_comments;
    bool   allow_no_value;
    bool   stop_on_first_error;
    char  *inline_comment_prefixes;
    char  *start_comment_prefixes;
} s3_profile_ini_t;


static int s3_profile_scan(s3_profile_ctx_t *ctx, const char *text,
    size_t len);
static char *s3_profile_read(char *line, int size, void *data);
static s3_str_t s3_profile_line(s3_profile_ctx_t *ctx);
static int s3_profile_skip(s3_profile_ctx_t *ctx, s3_str_t *line);
static int s3_profile_section(const s3_profile_ctx_t *ctx, s3_str_t line);
static int s3_profile_value(void *data, const char *section, const char *name,
    const char *value);
static int s3_profile_blank(unsigned char c);
static s3_str_t s3_profile_trim(s3_str_t s);
static void s3_profile_ini_get(s3_profile_ini_t *ini);
static void s3_profile_ini_set(const s3_profile_ini_t *ini);


#define s3_profile_name(name, member, key)                                   \
    { name, name " is given twice", name " is too long",                     \
      offsetof(s3_profile_t, member),                                        \
      sizeof(((s3_profile_t *) 0)->member), key }

static const struct {
    const char  *name;
    const char  *twice;
    const char  *too_long;
    size_t       offset;
    size_t       size;
    unsigned     key:1;
} s3_profile_names[] = {
    s3_profile_name("aws_access_key_id", access_key, 1),
    s3_profile_name("aws_secret_access_key", secret_key, 1),
    s3_profile_name("aws_session_token", session_token, 1),
    s3_profile_name("region", region, 0)
};


int
s3_profile_parse(s3_profile_t *p, const char *text, size_t len,
    s3_str_t profile, int config_file, const char **err)
{
    int               rc;
    s3_profile_ctx_t  ctx;

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }

    if (len && memchr(text, '\0', len)) {
        *err = "the file is not a text";
        return S3_ERROR;
    }

    memset(&ctx, 0, sizeof(s3_profile_ctx_t));

    ctx.profile = p;
    ctx.wanted = profile;
    ctx.prefixed = (config_file != 0);
    ctx.keys = (p->access_key[0] == '\0' && p->secret_key[0] == '\0');

    rc = s3_profile_scan(&ctx, text, len);

    /* [profile default] takes precedence over [default] */

    if (rc == S3_OK && config_file && !ctx.found
        && s3_str_eqs(profile, "default"))
    {
        ctx.prefixed = 0;
        rc = s3_profile_scan(&ctx, text, len);
    }

    if (ctx.found) {
        p->found = 1;
    }

    if (rc != S3_OK) {
        *err = ctx.err;
    }

    return rc;
}


void
s3_profile_wipe(s3_profile_t *p)
{
    s3_wipe(p, sizeof(s3_profile_t));
}


static int
s3_profile_scan(s3_profile_ctx_t *ctx, const char *text, size_t len)
{
    int               rc;
    s3_profile_ini_t  saved, ini;

    ctx->pos = (const unsigned char *) text;
    ctx->end = ctx->pos + len;
    ctx->indent = 0;
    ctx->named = 0;
    ctx->inside = 0;

    s3_profile_ini_get(&saved);

    /* one block on the heap, which the reader can wipe at the end of text */

    ini = saved;
    ini.max_line = S3_PROFILE_MAX_LINE;
    ini.initial_alloc = S3_PROFILE_MAX_LINE;
    ini.use_stack = false;
    ini.allow_realloc = false;
    ini.allow_bom = false;
    ini.allow_multiline = false;
    ini.allow_inline_comments = true;
    ini.allow_no_value = false;
    ini.stop_on_first_error = false;
    ini.inline_comment_prefixes = "#;";
    ini.start_comment_prefixes = "#;";

    s3_profile_ini_set(&ini);

    rc = ini_parse_stream(s3_profile_read, ctx, s3_profile_value, ctx);

    s3_profile_ini_set(&saved);

    if (rc != 0 && ctx->err == NULL) {
        ctx->err = (rc == -2) ? "no memory"
                              : "a line is neither [section] nor name = value";
    }

    return ctx->err ? S3_ERROR : S3_OK;
}


/* in fgets()'s place: the text has no NUL at its end, and no line is cut */

static char *
s3_profile_read(char *line, int size, void *data)
{
    s3_str_t           s;
    s3_profile_ctx_t  *ctx;

    ctx = data;

    while (ctx->pos < ctx->end && ctx->err == NULL) {
        s = s3_profile_line(ctx);

        if (s3_profile_skip(ctx, &s)) {
            continue;
        }

        if (s.len >= (size_t) size) {
            ctx->err = "a line is too long";
            break;
        }

        (void) s3_str_copy(line, (size_t) size, s);

        return line;
    }

    /* inih frees it next */

    s3_wipe(line, (size_t) size);

    return NULL;
}


static s3_str_t
s3_profile_line(s3_profile_ctx_t *ctx)
{
    size_t                left;
    s3_str_t              s;
    const unsigned char  *lf;

    left = (size_t) (ctx->end - ctx->pos);
    lf = memchr(ctx->pos, '\n', left);

    s.data = ctx->pos;
    s.len = lf ? (size_t) (lf - ctx->pos) : left;

    ctx->pos += lf ? s.len + 1 : s.len;

    return s;
}


/*
 * 1: the line is empty, a comment, or belongs to the name above, since it is
 * indented more (nested settings as "s3 =" has them); else takes off the
 * indentation, by which inih would tell the same, but without comparing
 */

static int
s3_profile_skip(s3_profile_ctx_t *ctx, s3_str_t *line)
{
    size_t  indent;

    for (indent = 0; indent < line->len; indent++) {
        if (!s3_profile_blank(line->data[indent])) {
            break;
        }
    }

    if (indent == line->len
        || line->data[indent] == '#'
        || line->data[indent] == ';'
        || (ctx->named && indent > ctx->indent))
    {
        return 1;
    }

    line->data += indent;
    line->len -= indent;

    ctx->indent = indent;
    ctx->named = (*line->data != '[');

    if (!ctx->named) {
        ctx->inside = s3_profile_section(ctx, *line);

        if (ctx->inside) {
            ctx->found = 1;
        }
    }

    return 0;
}


/* here and not by inih's section, which is cut at 49 bytes */

static int
s3_profile_section(const s3_profile_ctx_t *ctx, s3_str_t line)
{
    s3_str_t              name;
    const unsigned char  *end;

    end = memchr(line.data, ']', line.len);
    if (end == NULL) {
        return 0;
    }

    name.data = line.data + 1;
    name.len = (size_t) (end - name.data);
    name = s3_profile_trim(name);

    if (ctx->prefixed) {

        if (name.len < sizeof("profile ")
            || memcmp(name.data, "profile", 7) != 0
            || !s3_profile_blank(name.data[7]))
        {
            return 0;
        }

        name.data += 7;
        name.len -= 7;
        name = s3_profile_trim(name);

        if (name.len >= 2
            && (name.data[0] == '"' || name.data[0] == '\'')
            && name.data[name.len - 1] == name.data[0])
        {
            name.data++;
            name.len -= 2;
        }
    }

    return s3_str_eq(name, ctx->wanted);
}


static int
s3_profile_value(void *data, const char *section, const char *name,
    const char *value)
{
    char              *dst;
    size_t             i;
    s3_profile_ctx_t  *ctx;

    (void) section;

    ctx = data;

    if (!ctx->inside || ctx->err) {
        return 1;
    }

    for (i = 0; i < sizeof(s3_profile_names) / sizeof(s3_profile_names[0]);
         i++)
    {
        if (!s3_str_case_eqs(s3_str(name), s3_profile_names[i].name)) {
            continue;
        }

        if (ctx->seen & (1U << i)) {
            ctx->err = s3_profile_names[i].twice;
            return 1;
        }

        ctx->seen |= 1U << i;

        if (s3_profile_names[i].key && !ctx->keys) {
            return 1;
        }

        if (strlen(value) >= s3_profile_names[i].size) {
            ctx->err = s3_profile_names[i].too_long;
            return 1;
        }

        dst = (char *) ctx->profile + s3_profile_names[i].offset;

        if (*dst == '\0') {
            (void) s3_str_copy(dst, s3_profile_names[i].size, s3_str(value));
        }

        return 1;
    }

    return 1;
}


static int
s3_profile_blank(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}


static s3_str_t
s3_profile_trim(s3_str_t s)
{
    while (s.len && s3_profile_blank(s.data[0])) {
        s.data++;
        s.len--;
    }

    while (s.len && s3_profile_blank(s.data[s.len - 1])) {
        s.len--;
    }

    return s;
}


static void
s3_profile_ini_get(s3_profile_ini_t *ini)
{
    ini->max_line = ini_max_line;
    ini->initial_alloc = ini_initial_alloc;
    ini->use_stack = ini_use_stack;
    ini->allow_realloc = ini_allow_realloc;
    ini->allow_bom = ini_allow_bom;
    ini->allow_multiline = ini_allow_multiline;
    ini->allow_inline_comments = ini_allow_inline_comments;
    ini->allow_no_value = ini_allow_no_value;
    ini->stop_on_first_error = ini_stop_on_first_error;
    ini->inline_comment_prefixes = ini_inline_comment_prefixes;
    ini->start_comment_prefixes = ini_start_comment_prefixes;
}


static void
s3_profile_ini_set(const s3_profile_ini_t *ini)
{
    ini_max_line = ini->max_line;
    ini_initial_alloc = ini->initial_alloc;
    ini_use_stack = ini->use_stack;
    ini_allow_realloc = ini->allow_realloc;
    ini_allow_bom = ini->allow_bom;
    ini_allow_multiline = ini->allow_multiline;
    ini_allow_inline_comments = ini->allow_inline_comments;
    ini_allow_no_value = ini->allow_no_value;
    ini_stop_on_first_error = ini->stop_on_first_error;
    ini_inline_comment_prefixes = ini->inline_comment_prefixes;
    ini_start_comment_prefixes = ini->start_comment_prefixes;
}
