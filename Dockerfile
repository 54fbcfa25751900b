# Debian's nginx with the module loaded. Its server blocks are those that are
# mounted, its keys come from the environment:
#
#   docker build -t nginx-s3-transfer .
#   docker run -p 8080:8080 -v "$PWD/conf.d:/etc/nginx/conf.d" \
#       -e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY nginx-s3-transfer
#
# isa-l is there for some processors and left out on others.
#
# A module serves the one nginx that it was built for, so both stages take
# theirs from the same base.

ARG BASE=debian:bookworm-slim


FROM $BASE AS build

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends gcc libc6-dev make nginx-dev libssl-dev \
        libpcre2-dev zlib1g-dev libexpat1-dev libjansson-dev libinih-dev \
        libhiredis-dev pkg-config \
        $(apt-cache search --names-only '^libisal-dev$' | cut -d ' ' -f 1)

WORKDIR /src
COPY config Makefile ./
COPY t/lib/build t/lib/
COPY lib lib
COPY ngx_module ngx_module
RUN make module && strip --strip-unneeded \
        build/ngx_http_s3_transfer_module.so


FROM $BASE

COPY --from=build /src/build/ngx_http_s3_transfer_module.so \
    /usr/lib/nginx/modules/

# the certificates are those that S3's is held against

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends nginx libexpat1 libjansson4 libinih1 zlib1g \
        libssl3 ca-certificates \
        $(apt-cache search --names-only '^libisal2$' | cut -d ' ' -f 1) \
    && rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/default \
    && echo 'load_module modules/ngx_http_s3_transfer_module.so;' \
        > /etc/nginx/modules-enabled/50-mod-http-s3-transfer.conf \
    && ln -sf /dev/stdout /var/log/nginx/access.log \
    && ln -sf /dev/stderr /var/log/nginx/error.log \
    && nginx -t

STOPSIGNAL SIGQUIT

CMD ["nginx", "-g", "daemon off;"]
