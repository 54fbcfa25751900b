#!/bin/bash
# docker.sh: builds the image where no registry is reached, from a Debian that
# debootstrap makes with this machine's apt settings, and uploads through the
# nginx in it. As root; some minutes the first time, which make the base. TAP on
# stdout.
#
#   DOCKER_STATE=dir   where base and images are kept (build/docker)

set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
state=$(realpath -m "${DOCKER_STATE:-$top/build/docker}")
base=localhost/debian-minbase
image=localhost/nginx-s3-transfer
size=35000000
null=
nginx=
container=
count=0
failed=0

unset AWS_CA_BUNDLE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE

export STORAGE_DRIVER=vfs
export BUILDAH_ISOLATION=chroot


b()
{
    buildah --root "$state/storage" --runroot "$state/run" "$@"
}

# ok NAME COMMAND...: a test
ok()
{
    local name=$1
    shift
    count=$((count + 1))

    if "$@" >> "$state/log" 2>&1; then
        echo "ok $count - $name"

    else
        echo "not ok $count - $name"
        failed=$((failed + 1))
    fi
}

# step COMMAND...: what the tests cannot do without
step()
{
    "$@" >> "$state/log" 2>&1 || {
        echo "Bail out! $*"
        tail -n 20 "$state/log" >&2
        exit 1
    }
}

finish()
{
    local pid

    for pid in $nginx $null; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done

    if [ -n "$container" ]; then
        b umount "$container" > /dev/null || true
        b rm "$container" > /dev/null || true
    fi

    # the image that this one replaces
    b rmi --prune > /dev/null 2>&1 || true
}

install_tools()
{
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends debootstrap buildah jq
}

# the base: what debian:bookworm-slim is, as far as the Dockerfile cares, and
# with what this machine needs to reach its packages
make_base()
{
    local root=$state/base uri suite c

    read -r uri suite < <(
        apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' \
            'Created-By: Packages' |
            awk '$2 == "bookworm" && $3 == "main" { print $1, $2; exit }')

    [ -n "$uri" ] || { echo "no bookworm in apt's sources"; return 1; }

    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase "$suite" "$root" "$uri"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

    # this machine's sources, keys, certificates and names
    cp -a /etc/apt/. "$root/etc/apt/"
    [ -e /etc/apt/sources.list ] || rm -f "$root/etc/apt/sources.list"
    mkdir -p "$root/etc/ssl/certs" "$root/usr/local/share/ca-certificates"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp -a /usr/local/share/ca-certificates/. \
        "$root/usr/local/share/ca-certificates/"

    # as in Debian's images: packages start no servers
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"

    tar -C "$root" --one-file-system -cf "$state/base.tar" .
    c=$(b from scratch)
    b add "$c" "$state/base.tar" /
    b config --env PATH="$(root_path)" "$c"
    b commit --rm "$c" "$base"
    rm -rf --one-file-system "$root" "$state/base.tar"
}

root_path()
{
    echo /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

inspect()
{
    b inspect --type image --format "{{.OCIv1.Config.$1}}" "$image"
}

# the image's own command, in its root, as a container runtime starts it: with
# pipes for its output and a view of mounts of its own
run_image()
{
    local -a command
    mapfile -t command < <(
        b inspect --type image "$image" | jq -r '.OCIv1.config.Cmd[]')

    exec unshare --mount bash -c '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" env -i "$@"' run "$1" \
        PATH="$(root_path)" AWS_ACCESS_KEY_ID=container \
        AWS_SECRET_ACCESS_KEY=container-secret "${command[@]}" \
        > >(cat > "$state/stdout") 2> >(cat > "$state/stderr")
}

free_port()
{
    perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1,
        LocalAddr => "127.0.0.1")->sockport'
}

# until the command succeeds, ten seconds at most
until_ok()
{
    local i
    for ((i = 0; i < 100; i++)); do
        "$@" > /dev/null 2>&1 && return 0
        sleep 0.1
    done
    return 1
}

stat_is()
{
    curl -sS "http://127.0.0.1:$null_port/__stats" |
        jq -e --arg name "$1" --argjson value "$2" '.[$name] == $value'
}

upload()
{
    "$top/build/body_gen" "$@" > "$state/reply" 2>> "$state/log"
}

main()
{
    local root port null_port

    mkdir -p "$state"
    : > "$state/log"
    trap finish EXIT
    trap 'exit 1' INT TERM

    command -v debootstrap buildah jq > "$state/tools" || true
    [ "$(wc -l < "$state/tools")" = 3 ] || step install_tools

    step make -s -C "$top" -f t/lib/tools.mk

    b inspect --type image "$base" > /dev/null 2>&1 || step make_base

    ok 'the image is built' b bud --isolation chroot --pull-never \
        --build-arg BASE=$base -t $image "$top"
    [ $failed = 0 ] || { tail -n 30 "$state/log" >&2; exit 1; }

    ok 'SIGQUIT stops it' [ "$(inspect StopSignal)" = SIGQUIT ]

    step eval 'container=$(b from --pull-never $image)'
    root=$(b mount "$container")

    ok 'no compiler in it' [ ! -e "$root/usr/bin/gcc" ]
    ok 'no package lists in it' [ -z "$(ls "$root/var/lib/apt/lists")" ]
    ok 'no sources in it' [ ! -e "$root/src" ]

    rm -f "$state/ports"
    "$top/build/s3_null" --port 0 --verify --sha256 \
        --port-file "$state/ports" > /dev/null &
    null=$!
    step until_ok test -e "$state/ports"
    null_port=$(awk '$1 == "port" { print $2 }' "$state/ports")

    port=$(free_port)
    cat > "$root/etc/nginx/conf.d/upload.conf" <<END
server {
    listen 127.0.0.1:$port;

    location /upload/ {
        client_max_body_size 0;
        s3_endpoint http://127.0.0.1:$null_port;
        s3_bucket incoming;
        s3_upload;
    }
}
END

    run_image "$root" &
    nginx=$!

    ok 'its nginx starts' \
        until_ok curl -s "http://127.0.0.1:$port/"

    ok 'an upload is answered with 201' \
        upload "http://127.0.0.1:$port/upload/file" $size
    ok '... as a record' \
        grep -q '"state": *"completed"' "$state/reply"
    ok 'a chunked upload as well' \
        upload --chunk 8192 "http://127.0.0.1:$port/upload/chunked" $size
    ok 'an empty one as well' \
        upload "http://127.0.0.1:$port/upload/empty" 0
    ok 'S3 got all the bytes' stat_is bytes $((2 * size))
    ok '... as three objects' stat_is objects 3
    ok '... each byte in its place' stat_is bad 0
    ok 'no multipart upload is left open' stat_is open_uploads 0

    kill -QUIT $nginx
    ok 'it ends gracefully' wait $nginx
    nginx=

    ok 'the access log goes to stdout' \
        grep -q 'PUT /upload/file HTTP/1.1" 201' "$state/stdout"
    ok 'nothing is wrong in the error log' \
        [ -z "$(grep -E '\[(warn|error|crit|alert|emerg)\]' "$state/stderr")" ]

    echo "1..$count"
    du -sm "$root" | sed 's/\([0-9]*\).*/# image: \1 MiB/'
    [ $failed = 0 ] || { tail -n 40 "$state/log" "$state/stderr" >&2; exit 1; }
}

main "$@"
