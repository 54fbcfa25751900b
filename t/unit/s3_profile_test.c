#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <ini.h>

#include "s3_profile.h"


#define CREDENTIALS  0
#define CONFIG       1


static s3_profile_t  p;
static const char   *err;


/* from exactly the text's bytes, so that a sanitizer sees a read past them */

static int
parse_more(const char *text, size_t len, const char *name, int config)
{
    int    rc;
    char  *copy;

    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);

    err = NULL;
    rc = s3_profile_parse(&p, copy, len, s3_str(name), config, &err);
    free(copy);

    assert_true((rc == S3_ERROR) == (err != NULL));

    return rc;
}


static int
parse(const char *text, const char *name, int config)
{
    s3_profile_wipe(&p);

    return parse_more(text, strlen(text), name, config);
}


static void
assert_keys(const char *text, const char *name, int config)
{
    assert_int_equal(parse(text, name, config), S3_OK);
    assert_int_equal(p.found, 1);
    assert_string_equal(p.access_key, "AKID");
    assert_string_equal(p.secret_key, "wJalrXUtnFEMI/K7MDENG+bPxRfiCY==");
}


#define KEYS  "aws_access_key_id = AKID\n"                                   \
              "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\n"


static void
test_credentials(void **state)
{
    (void) state;

    assert_keys("[default]\n" KEYS, "default", CREDENTIALS);
    assert_string_equal(p.session_token, "");
    assert_string_equal(p.region, "");

    assert_keys("[a]\naws_access_key_id=other\n[b]\n" KEYS
                "region=eu-central-1\n[c]\naws_secret_access_key=no\n",
                "b", CREDENTIALS);
    assert_string_equal(p.region, "eu-central-1");

    /* the same section twice is one section */

    assert_keys("[b]\naws_access_key_id=AKID\n[a]\nregion=x\n[b]\n"
                "aws_secret_access_key=wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\n",
                "b", CREDENTIALS);
    assert_string_equal(p.region, "");
}


static void
test_look(void **state)
{
    (void) state;

    /* white space, none, tabs, case of names */

    assert_keys("[default]\naws_access_key_id=AKID\n"
                "aws_secret_access_key\t=\twJalrXUtnFEMI/K7MDENG+bPxRfiCY==",
                "default", CREDENTIALS);
    assert_keys("[default]\nAWS_Access_Key_ID   =   AKID   \n"
                "AWS_SECRET_ACCESS_KEY= wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\t\n",
                "default", CREDENTIALS);

    /* CRLF */

    assert_keys("[default]\r\naws_access_key_id = AKID\r\n\r\n"
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\r\n",
                "default", CREDENTIALS);

    /* comments, empty lines, byte order mark */

    assert_keys("\xef\xbb\xbf# a file\n; of keys\n\n[default] # mine\n"
                "#aws_access_key_id = no\n  # indented\n"
                "aws_access_key_id = AKID # the key\n;\n"
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCY== ;x\n",
                "default", CREDENTIALS);

    /* a comment starts after white space alone */

    assert_int_equal(parse("[x]\naws_secret_access_key=a#b;c\n", "x",
                           CREDENTIALS), S3_OK);
    assert_string_equal(p.secret_key, "a#b;c");

    assert_keys("[default]\n# a comment is no name\n  ; nor is this\n"
                "  aws_access_key_id = AKID\n"
                "  aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\n",
                "default", CREDENTIALS);

    /* a section's name in white space; the whole section indented */

    assert_keys("[ default ]\n  aws_access_key_id = AKID\n"
                "  aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCY==\n",
                "default", CREDENTIALS);
}


static void
test_config(void **state)
{
    (void) state;

    assert_keys("[profile x]\n" KEYS, "x", CONFIG);
    assert_keys("[profile   x]\n" KEYS, "x", CONFIG);
    assert_keys("[profile\tx ]\n" KEYS, "x", CONFIG);
    assert_keys("[profile \"x y\"]\n" KEYS, "x y", CONFIG);
    assert_keys("[profile 'x y']\n" KEYS, "x y", CONFIG);
    assert_keys("[default]\n" KEYS, "default", CONFIG);
    assert_keys("[profile default]\n" KEYS, "default", CONFIG);
    assert_keys("[default]\nregion=a\n[profile default]\n" KEYS, "default",
                CONFIG);
    assert_string_equal(p.region, "");

    /* no prefix, wrong prefix, another kind of section */

    assert_int_equal(parse("[x]\n" KEYS, "x", CONFIG), S3_OK);
    assert_int_equal(p.found, 0);
    assert_string_equal(p.access_key, "");

    assert_int_equal(parse("[profilex]\n" KEYS "[sso-session x]\nregion=a\n",
                           "x", CONFIG), S3_OK);
    assert_int_equal(p.found, 0);

    assert_int_equal(parse("[profile x]\n" KEYS, "x", CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 0);

    assert_int_equal(parse("[profilexy]\n" KEYS "[abcdefg xy]\n" KEYS, "xy",
                           CONFIG), S3_OK);
    assert_int_equal(p.found, 0);

    /* the second look for [default] starts afresh */

    assert_keys("  [default]\n  " KEYS "[a]\nregion=a\n", "default",
                CONFIG);
    assert_keys(" [default]\n" KEYS "[a]\nregion=a\n    continued\n",
                "default", CONFIG);
}


static void
test_nested(void **state)
{
    (void) state;

    assert_keys("[profile x]\n"
                "s3 =\n"
                "  region = nested\n"
                "\n"
                "    aws_access_key_id = nested\n"
                "  a line that is no setting\n"
                "  [nested]\n"
                KEYS
                "region = eu-west-1\n"
                "  continued\n", "x", CONFIG);
    assert_string_equal(p.region, "eu-west-1");
}


static void
test_missing(void **state)
{
    (void) state;

    assert_int_equal(parse("", "default", CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 0);

    assert_int_equal(parse("\xef\xbb\xbf", "default", CREDENTIALS), S3_OK);

    assert_int_equal(parse("\n\n# nothing\n", "default", CONFIG), S3_OK);
    assert_int_equal(p.found, 0);

    assert_int_equal(parse(KEYS "[a]\n" KEYS, "default", CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 0);
    assert_string_equal(p.access_key, "");

    /* names that only begin like the wanted one */

    assert_int_equal(parse("[default2]\n" KEYS "[defaul]\n" KEYS, "default",
                           CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 0);

    /* an empty section exists */

    assert_int_equal(parse("[default]", "default", CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 1);
    assert_string_equal(p.access_key, "");
}


/* names longer than the 49 bytes that inih keeps */

static void
test_long_section(void **state)
{
    static const char  text[] =
        "[profile a-name-which-is-much-longer-than-what-inih-keeps-1]\n"
        "region = one\n"
        "[profile a-name-which-is-much-longer-than-what-inih-keeps-2]\n"
        "region = two\n"
        "[profile a-name-which-is-much-longer-than-]\n"
        "region = short\n";

    (void) state;

    assert_int_equal(parse(text,
        "a-name-which-is-much-longer-than-what-inih-keeps-2", CONFIG), S3_OK);
    assert_int_equal(p.found, 1);
    assert_string_equal(p.region, "two");

    assert_int_equal(parse(text, "a-name-which-is-much-longer-than-",
                           CONFIG), S3_OK);
    assert_string_equal(p.region, "short");

    assert_int_equal(parse(text, "a-name-which-is-much-longer-than-what-inih",
                           CONFIG), S3_OK);
    assert_int_equal(p.found, 0);
}


static void
with_token(size_t len, char *text, size_t size, char *token)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        token[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/="[i * 7 % 39];
    }

    token[len] = '\0';

    i = (size_t) snprintf(text, size, "[default]\naws_session_token = %s\n"
                          KEYS, token);
    assert_true(i < size);
}


static void
test_session_token(void **state)
{
    size_t       i;
    static char  text[20000], token[17000];

    static const size_t  fits[] = {
        1, 100, 178, 179, 180, 181, 199, 200, 201, 1000, 2000, 4000, 4095
    };

    (void) state;

    for (i = 0; i < sizeof(fits) / sizeof(fits[0]); i++) {
        with_token(fits[i], text, sizeof(text), token);
        assert_keys(text, "default", CREDENTIALS);
        assert_string_equal(p.session_token, token);
    }

    with_token(4096, text, sizeof(text), token);
    assert_int_equal(parse(text, "default", CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "aws_session_token is too long");
    assert_string_equal(p.session_token, "");

    with_token(16383, text, sizeof(text), token);
    assert_int_equal(parse(text, "default", CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "a line is too long");

    /* also in a section that nobody asked for: it would be cut */

    assert_int_equal(parse(text, "other", CREDENTIALS), S3_ERROR);
}


static void
test_too_long(void **state)
{
    char  text[400], value[300];

    (void) state;

    memset(value, 'a', sizeof(value));

    value[255] = '\0';
    (void) snprintf(text, sizeof(text), "[d]\naws_access_key_id=%s\n", value);
    assert_int_equal(parse(text, "d", CREDENTIALS), S3_OK);
    assert_string_equal(p.access_key, value);

    value[255] = 'a';
    value[256] = '\0';
    (void) snprintf(text, sizeof(text), "[d]\naws_access_key_id=%s\n", value);
    assert_int_equal(parse(text, "d", CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "aws_access_key_id is too long");
    assert_string_equal(p.access_key, "");

    value[64] = '\0';
    (void) snprintf(text, sizeof(text), "[d]\nregion=%s\n", value);
    assert_int_equal(parse(text, "d", CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "region is too long");
}


/* the longest line, and one byte more */

static void
test_long_line(void **state)
{
    static char  text[16384 + 4];

    (void) state;

    memset(text, 'x', sizeof(text));
    memcpy(text, "[d]\na=", 6);

    s3_profile_wipe(&p);
    assert_int_equal(parse_more(text, 4 + 16383, "d", CREDENTIALS), S3_OK);
    assert_int_equal(p.found, 1);

    s3_profile_wipe(&p);
    assert_int_equal(parse_more(text, 4 + 16384, "d", CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "a line is too long");
}


static void
test_refused(void **state)
{
    (void) state;

    assert_int_equal(parse("[default]\n" KEYS "nonsense\n", "default",
                           CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "a line is neither [section] nor name = value");
    assert_int_equal(parse("[default\n" KEYS, "default", CREDENTIALS),
                     S3_ERROR);
    assert_int_equal(parse("\x7f" "ELF\n", "default", CREDENTIALS), S3_ERROR);

    s3_profile_wipe(&p);
    assert_int_equal(parse_more("[default]\nregion=a\0b\n", 21, "default",
                                CREDENTIALS), S3_ERROR);

    assert_int_equal(parse("[d]\nregion=a\nregion=b\n", "d", CREDENTIALS),
                     S3_ERROR);
    assert_string_equal(err, "region is given twice");
    assert_int_equal(parse("[d]\nregion=a\n" KEYS "region=b\n", "d",
                           CREDENTIALS), S3_ERROR);
    assert_string_equal(err, "region is given twice");
    assert_string_equal(p.region, "a");
}


static void
test_two_files(void **state)
{
    static const char  config[] =
        "[default]\naws_access_key_id=OTHER\naws_secret_access_key=OTHER\n"
        "aws_session_token=OTHER\nregion=eu-west-3\n";

    (void) state;

    /* what is set stays, and a token of other keys is not added */

    assert_keys("[default]\n" KEYS, "default", CREDENTIALS);
    assert_int_equal(parse_more(config, strlen(config), "default", CONFIG),
                     S3_OK);
    assert_string_equal(p.access_key, "AKID");
    assert_string_equal(p.session_token, "");
    assert_string_equal(p.region, "eu-west-3");

    /* region of the first file stays, found too */

    assert_keys("[default]\nregion=us-west-2\n" KEYS, "default", CREDENTIALS);
    assert_int_equal(parse_more(config, strlen(config), "absent", CONFIG),
                     S3_OK);
    assert_int_equal(p.found, 1);
    assert_int_equal(parse_more(config, strlen(config), "default", CONFIG),
                     S3_OK);
    assert_string_equal(p.region, "us-west-2");

    /* half a pair stays half a pair */

    assert_int_equal(parse("[default]\naws_secret_access_key=s\n", "default",
                           CREDENTIALS), S3_OK);
    assert_int_equal(parse_more(config, strlen(config), "default", CONFIG),
                     S3_OK);
    assert_string_equal(p.access_key, "");
    assert_string_equal(p.secret_key, "s");

    /* nothing in the first */

    s3_profile_wipe(&p);
    assert_int_equal(parse_more(config, strlen(config), "default", CONFIG),
                     S3_OK);
    assert_string_equal(p.access_key, "OTHER");
    assert_string_equal(p.session_token, "OTHER");
}


static void
test_wipe(void **state)
{
    size_t                i;
    const unsigned char  *bytes;

    (void) state;

    assert_keys("[default]\n" KEYS, "default", CREDENTIALS);
    s3_profile_wipe(&p);

    bytes = (const unsigned char *) &p;

    for (i = 0; i < sizeof(p); i++) {
        assert_int_equal(bytes[i], 0);
    }
}


/* inih belongs to the whole process */

static void
test_settings_restored(void **state)
{
    int    max_line;
    bool   use_stack, multiline;
    char  *prefixes;

    (void) state;

    max_line = ini_max_line;
    use_stack = ini_use_stack;
    multiline = ini_allow_multiline;
    prefixes = ini_inline_comment_prefixes;

    assert_keys("[default]\n" KEYS, "default", CREDENTIALS);
    assert_int_equal(parse("nonsense", "default", CONFIG), S3_ERROR);

    assert_int_equal(ini_max_line, max_line);
    assert_int_equal(ini_use_stack, use_stack);
    assert_int_equal(ini_allow_multiline, multiline);
    assert_ptr_equal(ini_inline_comment_prefixes, prefixes);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_long_section),
        cmocka_unit_test(test_session_token),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_two_files),
        cmocka_unit_test(test_wipe),
        cmocka_unit_test(test_settings_restored)
    };

    return cmocka_run_group_tests_name("s3_profile", tests, NULL, NULL);
}
