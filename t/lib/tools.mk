# The null S3, the uploaders, the load and the downloader of the large tests and
# the benchmark, and what t/70-torture.t and t/31-names.t preload, and what
# kills a process at a place of its code.
# From the top: make -f t/lib/tools.mk, also several at a time.

TOOLS_CFLAGS ?= -O2 -g -Wall -Wextra -Werror

S3_NULL_SRCS = t/lib/s3_null.c t/lib/s3_null_http.c t/lib/s3_null_ops.c \
    t/lib/s3_null_store.c t/lib/s3_null_complete.c t/lib/s3_null_dynamodb.c \
    t/lib/s3_null_origin.c

.PHONY: tools
tools: build/s3_null build/body_gen build/body_h2 build/body_load \
    build/body_sink build/body_crowd build/torture.so build/die_at build/etc.so

build/s3_null: $(S3_NULL_SRCS) t/lib/s3_null.h t/lib/s3_null_store.h \
    t/lib/pattern.h t/lib/tools.mk
	@mkdir -p build
	@$(CC) $(TOOLS_CFLAGS) -pthread -o $@.$$$$ $(S3_NULL_SRCS) \
	    -lssl -lcrypto -lexpat -ljansson -lz && mv $@.$$$$ $@

build/body_gen build/body_h2 build/body_load build/body_sink \
    build/body_crowd: build/%: t/lib/%.c t/lib/body_conn.c t/lib/body_conn.h \
    t/lib/pattern.h t/lib/tools.mk
	@mkdir -p build
	@$(CC) $(TOOLS_CFLAGS) -o $@.$$$$ t/lib/$*.c t/lib/body_conn.c \
	    -lssl -lcrypto && mv $@.$$$$ $@

build/torture.so: t/lib/torture.c t/lib/tools.mk
	@mkdir -p build
	@$(CC) $(TOOLS_CFLAGS) -fno-builtin -fPIC -shared -o $@.$$$$ \
	    t/lib/torture.c -ldl -pthread && mv $@.$$$$ $@

build/die_at: t/lib/die_at.c t/lib/tools.mk
	@mkdir -p build
	@$(CC) $(TOOLS_CFLAGS) -o $@.$$$$ t/lib/die_at.c && mv $@.$$$$ $@

build/etc.so: t/lib/etc.c t/lib/tools.mk
	@mkdir -p build
	@$(CC) $(TOOLS_CFLAGS) -fPIC -shared -o $@.$$$$ t/lib/etc.c -ldl \
	    && mv $@.$$$$ $@
