# make help lists the targets. Everything that is made goes to build/ and
# node_modules/.

MAKEFLAGS += --no-print-directory

.PHONY: all deps module module-asan unit test test-asan torture soak \
    test-docker fuzz demo bench services-start services-stop clean help

all: module

deps:			## install what the build and the tests need (root)
	@t/lib/deps

module:			## build/ngx_http_s3_transfer_module.so
	@t/lib/build plain

module-asan:		## the same, and nginx, with the sanitizers, in build/asan
	@t/lib/build asan

unit:			## unit tests of lib/
	@$(MAKE) -C t/unit check

test: deps module	## all tests; TESTS="t/x.t t/y.t" for some
	@t/lib/run-tests $(TESTS)

test-asan: deps module-asan	## all tests, nginx, module and units under ASan, UBSan
	@T_ASAN=1 t/lib/run-tests $(TESTS)

torture: deps module	## the N-th allocation or call of a worker fails; T_TORTURE=times as many (5)
	@T_TORTURE=$${T_TORTURE:-5} t/lib/run-tests t/70-torture.t \
	    t/71-torture-downloads.t

soak: deps module	## mixed uploads with faults, reloads, kills; SOAK_TIME=minutes (15)
	@t/lib/run-tests t/soak/soak.t

test-docker: deps	## build the image and upload through it (root, slow)
	@t/docker.sh

fuzz:			## fuzz the parsers of lib/ (clang); FUZZ_TIME=seconds each
	@$(MAKE) -C t/unit fuzz

demo: deps module	## upload 1 GiB into a real S3 and watch; ONCE=1 ends
	@demo/run

bench: deps module	## the costs, against proxy_pass, rclone, awscli and tus
	@bench/deps
	@bench/all

services-start:		## S3, Redis and DynamoDB for tests run by hand
	@t/lib/services start

services-stop:		## end them
	@t/lib/services stop

clean:			## remove all that was made
	@t/lib/services clean
	@$(MAKE) -s -C t/unit clean
	@rm -rf build node_modules

help:
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' $(firstword $(MAKEFILE_LIST)) | \
	    expand -t 20
