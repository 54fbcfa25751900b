#include "ngx_s3_redis.h"

#include <ngx_sha1.h>


#define NGX_S3_REDIS_ARGS      (10 + 2 * S3_RECORD_MAX_FIELDS)
#define NGX_S3_REDIS_ELEMENTS  1024  /* of an array in a reply; a record has
                                        less than 50 */


typedef struct {
    int          n;
    const char  *args[NGX_S3_REDIS_ARGS];
    size_t       lens[NGX_S3_REDIS_ARGS];
} ngx_s3_redis_args_t;


static void ngx_s3_redis_add(ngx_s3_redis_args_t *a, const void *data,
    size_t len);
static void ngx_s3_redis_adds(ngx_s3_redis_args_t *a, const char *s);
static ngx_int_t ngx_s3_redis_command(ngx_s3_redis_op_t *op,
    ngx_s3_redis_args_t *a);
static ngx_int_t ngx_s3_redis_format_write(ngx_s3_redis_conf_t *conf,
    ngx_s3_redis_op_t *op, ngx_s3_redis_args_t *a);
static ngx_int_t ngx_s3_redis_format_read(ngx_s3_redis_conf_t *conf,
    ngx_s3_redis_op_t *op, ngx_s3_redis_args_t *a);
static ngx_int_t ngx_s3_redis_format_script(ngx_s3_redis_conf_t *conf,
    ngx_s3_redis_op_t *op, ngx_s3_redis_args_t *a);
static ngx_uint_t ngx_s3_redis_has(redisReply *reply, const char *s);


/*
 * KEYS: the record's hash. ARGV: attempt, sequence, life in ms, channel (may
 * be empty), JSON, owner (likewise), then names and values. The newer of two
 * records stays, and stays alone; that of another owner stays whatever comes.
 * Numbers are below 2^53: a double holds them.
 */

static const char  ngx_s3_redis_lua[] =
    "local o = redis.call('HMGET', KEYS[1], 'attempt', 'sequence', 'owner')\n"
    "local a, s = tonumber(o[1] or ''), tonumber(o[2] or '')\n"
    "local na, ns = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
    "if a and s and (o[3] or '') ~= ARGV[6] then\n"
    "    return 2\n"
    "end\n"
    "if a and s and (a > na or (a == na and s >= ns)) then\n"
    "    return 0\n"
    "end\n"
    "redis.call('DEL', KEYS[1])\n"
    "redis.call('HSET', KEYS[1], unpack(ARGV, 7))\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[3])\n"
    "if ARGV[4] ~= '' then\n"
    "    redis.call('PUBLISH', ARGV[4], ARGV[5])\n"
    "end\n"
    "return 1\n";


void
ngx_s3_redis_script(ngx_s3_redis_conf_t *conf)
{
    u_char      digest[20], *p;
    ngx_sha1_t  sha1;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, ngx_s3_redis_lua, sizeof(ngx_s3_redis_lua) - 1);
    ngx_sha1_final(digest, &sha1);

    p = ngx_hex_dump((u_char *) conf->sha1, digest, sizeof(digest));
    *p = '\0';
}


ngx_s3_redis_op_t *
ngx_s3_redis_op(ngx_s3_redis_op_e type)
{
    ngx_s3_redis_op_t  *op;

    op = ngx_calloc(sizeof(ngx_s3_redis_op_t), ngx_cycle->log);

    if (op) {
        op->type = type;
    }

    return op;
}


void
ngx_s3_redis_free(ngx_s3_redis_op_t *op)
{
    if (op->command) {
        redisFreeCommand(op->command);
    }

    if (op->record) {
        ngx_free(op->record);
    }

    ngx_free(op);
}


void
ngx_s3_redis_answer(ngx_s3_redis_op_t *op, ngx_int_t rc)
{
    void                   *data;
    ngx_s3_store_read_t    *read;
    ngx_s3_store_write_pt   handler;
    ngx_s3_store_reply_pt   replied;

    handler = op->handler;
    replied = op->replied;
    data = op->data;
    read = op->read;

    ngx_s3_redis_free(op);

    if (handler) {
        handler(data, rc);
    }

    if (replied) {
        replied(data, rc, NULL, 0);
    }

    if (read) {
        read->state = NULL;
        read->handler(read, rc);
    }
}


ngx_int_t
ngx_s3_redis_format(ngx_s3_redis_conf_t *conf, ngx_s3_redis_op_t *op)
{
    u_char               db[NGX_INT_T_LEN];
    ngx_s3_redis_args_t  a;

    a.n = 0;

    switch (op->type) {

    case NGX_S3_REDIS_AUTH:
        ngx_s3_redis_adds(&a, "AUTH");

        if (conf->user.len) {
            ngx_s3_redis_add(&a, conf->user.data, conf->user.len);
        }

        ngx_s3_redis_add(&a, conf->password.data, conf->password.len);
        break;

    case NGX_S3_REDIS_SELECT:
        ngx_s3_redis_adds(&a, "SELECT");
        ngx_s3_redis_add(&a, db, ngx_sprintf(db, "%ui", conf->db) - db);
        break;

    case NGX_S3_REDIS_SETNAME:
        ngx_s3_redis_adds(&a, "CLIENT");
        ngx_s3_redis_adds(&a, "SETNAME");
        ngx_s3_redis_adds(&a, "nginx-s3-transfer");
        break;

    case NGX_S3_REDIS_PING:
        ngx_s3_redis_adds(&a, "PING");
        break;

    case NGX_S3_REDIS_WRITE:
        return ngx_s3_redis_format_write(conf, op, &a);

    case NGX_S3_REDIS_READ:
        return ngx_s3_redis_format_read(conf, op, &a);

    case NGX_S3_REDIS_SCRIPT:
        return ngx_s3_redis_format_script(conf, op, &a);
    }

    return ngx_s3_redis_command(op, &a);
}


static ngx_int_t
ngx_s3_redis_format_write(ngx_s3_redis_conf_t *conf, ngx_s3_redis_op_t *op,
    ngx_s3_redis_args_t *a)
{
    int                 i, n;
    u_char              key[512], numbers[3 * NGX_INT64_LEN], *p;
    u_char              json[S3_RECORD_JSON_MAX];
    u_char              scratch[S3_RECORD_SCRATCH];
    uint64_t            now, life;
    s3_buf_t            b, j;
    s3_record_t        *r;
    s3_record_field_t   fields[S3_RECORD_MAX_FIELDS];

    r = op->record;

    s3_buf_init(&b, scratch, sizeof(scratch));
    s3_buf_init(&j, json, sizeof(json));

    n = s3_record_fields(r, fields, &b);

    if (n < 0 || (conf->channel.len && s3_record_json(r, &j) != S3_OK)) {
        return NGX_DECLINED;
    }

    now = ngx_s3_store_now();
    life = r->expires_at > now + 1000 ? r->expires_at - now : 1000;

    ngx_s3_redis_adds(a, op->eval ? "EVAL" : "EVALSHA");
    ngx_s3_redis_adds(a, op->eval ? ngx_s3_redis_lua : conf->sha1);
    ngx_s3_redis_adds(a, "1");

    p = ngx_snprintf(key, sizeof(key), "%V%s", &conf->prefix, r->id);
    ngx_s3_redis_add(a, key, p - key);

    p = ngx_sprintf(numbers, "%uL", r->attempt);
    ngx_s3_redis_add(a, numbers, p - numbers);

    ngx_s3_redis_add(a, p, ngx_sprintf(p, "%uL", r->sequence) - p);
    p += a->lens[a->n - 1];

    ngx_s3_redis_add(a, p, ngx_sprintf(p, "%uL", life) - p);

    ngx_s3_redis_add(a, conf->channel.data, conf->channel.len);
    ngx_s3_redis_add(a, j.start, j.pos - j.start);
    ngx_s3_redis_adds(a, r->owner);

    for (i = 0; i < n; i++) {
        ngx_s3_redis_adds(a, fields[i].name);
        ngx_s3_redis_add(a, fields[i].value.data, fields[i].value.len);
    }

    return ngx_s3_redis_command(op, a);
}


static ngx_int_t
ngx_s3_redis_format_read(ngx_s3_redis_conf_t *conf, ngx_s3_redis_op_t *op,
    ngx_s3_redis_args_t *a)
{
    u_char  key[512], *p;

    p = ngx_snprintf(key, sizeof(key), "%V%V", &conf->prefix, &op->read->id);

    ngx_s3_redis_adds(a, "HGETALL");
    ngx_s3_redis_add(a, key, p - key);

    return ngx_s3_redis_command(op, a);
}


/* with its whole text: it is seldom run, and is not lost with Redis' cache */

static ngx_int_t
ngx_s3_redis_format_script(ngx_s3_redis_conf_t *conf, ngx_s3_redis_op_t *op,
    ngx_s3_redis_args_t *a)
{
    u_char                  keys[NGX_S3_STORE_KEYS][512], n[NGX_INT_T_LEN];
    u_char                 *p;
    ngx_uint_t              i;
    ngx_s3_store_script_t  *script;

    script = op->script;

    if (script->nargs + NGX_S3_STORE_KEYS + 3 > NGX_S3_REDIS_ARGS) {
        return NGX_DECLINED;
    }

    ngx_s3_redis_adds(a, "EVAL");
    ngx_s3_redis_adds(a, script->text);
    ngx_s3_redis_add(a, n, ngx_sprintf(n, "%ui", script->nkeys) - n);

    for (i = 0; i < script->nkeys; i++) {
        p = ngx_snprintf(keys[i], sizeof(keys[i]), "%V%V", &conf->prefix,
                         &script->keys[i]);
        ngx_s3_redis_add(a, keys[i], p - keys[i]);
    }

    for (i = 0; i < script->nargs; i++) {
        ngx_s3_redis_add(a, script->args[i].data, script->args[i].len);
    }

    return ngx_s3_redis_command(op, a);
}


static void
ngx_s3_redis_add(ngx_s3_redis_args_t *a, const void *data, size_t len)
{
    a->args[a->n] = len ? data : "";
    a->lens[a->n] = len;
    a->n++;
}


static void
ngx_s3_redis_adds(ngx_s3_redis_args_t *a, const char *s)
{
    ngx_s3_redis_add(a, s, ngx_strlen(s));
}


static ngx_int_t
ngx_s3_redis_command(ngx_s3_redis_op_t *op, ngx_s3_redis_args_t *a)
{
    ngx_int_t  len;

    op->command = NULL;

    len = redisFormatCommandArgv(&op->command, a->n, a->args, a->lens);

    if (len <= 0 || op->command == NULL) {
        op->command = NULL;
        return NGX_ERROR;
    }

    op->len = len;
    op->sent = 0;

    return NGX_OK;
}


/* hiredis makes room for as many elements as a reply announces */

#if (HIREDIS_MAJOR >= 1)

redisReader *
ngx_s3_redis_reader(void)
{
    redisReader  *reader;

    reader = redisReaderCreate();

    if (reader) {
        reader->maxelements = NGX_S3_REDIS_ELEMENTS;
    }

    return reader;
}

#else

static redisReplyObjectFunctions  ngx_s3_redis_functions;
static void *(*ngx_s3_redis_create_array)(const redisReadTask *, int);


static void *
ngx_s3_redis_array(const redisReadTask *task, int elements)
{
    if (elements > NGX_S3_REDIS_ELEMENTS) {
        return NULL;
    }

    return ngx_s3_redis_create_array(task, elements);
}


redisReader *
ngx_s3_redis_reader(void)
{
    redisReader  *reader;

    reader = redisReaderCreate();

    if (reader) {
        ngx_s3_redis_functions = *reader->fn;
        ngx_s3_redis_create_array = reader->fn->createArray;
        ngx_s3_redis_functions.createArray = ngx_s3_redis_array;

        reader->fn = &ngx_s3_redis_functions;
    }

    return reader;
}

#endif


ngx_int_t
ngx_s3_redis_parse(redisReply *reply, ngx_str_t *id, s3_record_t *record)
{
    size_t       i;
    s3_str_t     name, value;
    redisReply  *n, *v;

    if (reply->type != REDIS_REPLY_ARRAY) {
        return ngx_s3_redis_has(reply, "WRONGTYPE") ? NGX_DECLINED : NGX_ERROR;
    }

    s3_record_init(record);

    for (i = 0; i + 1 < reply->elements; i += 2) {
        n = reply->element[i];
        v = reply->element[i + 1];

        if (n->type != REDIS_REPLY_STRING || v->type != REDIS_REPLY_STRING) {
            return NGX_ERROR;
        }

        name = (s3_str_t) { n->len, (u_char *) n->str };
        value = (s3_str_t) { v->len, (u_char *) v->str };

        if (s3_record_set(record, name, value) != S3_OK) {
            return NGX_DECLINED;
        }
    }

    if (!s3_str_eqs(ngx_s3_to_str(*id), record->id)
        || record->attempt == 0
        || record->expires_at <= ngx_s3_store_now())
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_s3_redis_has(redisReply *reply, const char *s)
{
    return reply->type == REDIS_REPLY_ERROR && strstr(reply->str, s) != NULL;
}


/* Redis before 7 wraps what a command in the script said: the word that
   matters then stands in the middle */

ngx_s3_redis_error_e
ngx_s3_redis_error(redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR) {
        return NGX_S3_REDIS_E_STORE;
    }

    if (ngx_strncmp(reply->str, "NOSCRIPT", 8) == 0) {
        return NGX_S3_REDIS_E_NOSCRIPT;
    }

    if (ngx_s3_redis_has(reply, "WRONGTYPE")) {
        return NGX_S3_REDIS_E_RECORD;
    }

    return NGX_S3_REDIS_E_STORE;
}


/* what is said of an unknown command repeats its arguments */

void
ngx_s3_redis_said(redisReply *reply, const char *what, char *reason)
{
    char       *end;
    ngx_str_t   text;

    if (reply->type != REDIS_REPLY_ERROR) {
        ngx_s3_reason(reason, "not the reply to a %s", what);
        return;
    }

    end = strstr(reply->str, ", with args");

    text.data = (u_char *) reply->str;
    text.len = end ? (size_t) (end - reply->str) : ngx_strlen(reply->str);

    ngx_s3_reason(reason, "a %s was refused (%V)", what, &text);
}


ngx_int_t
ngx_s3_redis_greeted(ngx_s3_redis_op_t *op, redisReply *reply, char *reason)
{
    ngx_str_t  word;

    if (reply->type != REDIS_REPLY_ERROR) {
        return NGX_OK;
    }

    /* of what is said about a password the first word is repeated at most */

    word.data = (u_char *) reply->str;
    word.len = strcspn(reply->str, " ");
    word.len = ngx_min(word.len, 32);

    switch (op->type) {

    case NGX_S3_REDIS_AUTH:
        ngx_s3_reason(reason, "the user or password was refused (%V)", &word);
        return NGX_ERROR;

    case NGX_S3_REDIS_SETNAME:
        return NGX_OK;

    case NGX_S3_REDIS_PING:

        if (ngx_s3_redis_has(reply, "NOPERM")) {
            return NGX_OK;
        }

        break;

    default:
        break;
    }

    ngx_s3_reason(reason, "%s", reply->str);

    return NGX_ERROR;
}
