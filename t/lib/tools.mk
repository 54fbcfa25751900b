# The null S3 and the uploader of the large tests and the benchmark.
# From the top: make -f t/lib/tools.mk, or included by the Makefile there.

TOOLS_CC     ?= $(if $(filter default,$(origin CC)),cc,$(CC))
TOOLS_CFLAGS ?= -O2 -g -Wall -Wextra -Werror

S3_NULL_SRCS = t/lib/s3_null.c t/lib/s3_null_http.c t/lib/s3_null_ops.c \
    t/lib/s3_null_store.c t/lib/s3_null_complete.c t/lib/s3_null_dynamodb.c

.PHONY: tools
tools: build/s3_null build/body_gen

build/s3_null: $(S3_NULL_SRCS) t/lib/s3_null.h t/lib/s3_null_store.h \
    t/lib/pattern.h
	@mkdir -p build
	$(TOOLS_CC) $(TOOLS_CFLAGS) -pthread -o $@.new $(S3_NULL_SRCS) \
	    -lssl -lcrypto -lexpat -ljansson -lz
	@mv $@.new $@

build/body_gen: t/lib/body_gen.c t/lib/pattern.h
	@mkdir -p build
	$(TOOLS_CC) $(TOOLS_CFLAGS) -o $@.new t/lib/body_gen.c -lssl -lcrypto
	@mv $@.new $@
