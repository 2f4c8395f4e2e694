# Sourced by the docker-*.sh beside it: which container engine there is, and which images are made.
#
#   ENGINE    docker, podman or buildah (else the first of them that works here)
#   IMAGE     name of the images, a tag for each target: roarline:train-cls

# shellcheck shell=sh disable=SC2034  # used by what sources this
root=$(CDPATH='' cd "$(dirname "$0")/.." && pwd -P)
image=${IMAGE:-roarline}
stages="prepare-data train-cls train-explainer extract-attribution-maps evaluate-roar evaluate-f-fidelity evaluate-idsds evaluate-perturbation evaluate-localization evaluate-sanity aggregate-scores report"

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
die() {
    say "$*"
    exit 2
}

find_engine() {
    if [ -n "${ENGINE:-}" ]; then
        engine=$ENGINE
    elif docker info >/dev/null 2>&1; then
        engine=docker
    elif command -v podman >/dev/null 2>&1; then
        engine=podman
    elif command -v buildah >/dev/null 2>&1; then
        engine=buildah
    else
        die "no container engine answers: neither docker (is its daemon running, and may you use it?) nor podman nor buildah"
    fi
    [ "$engine" = buildah ] || return 0
    # Without an engine's privileges: no namespaces, and vfs, which copies every layer whole, only where it must be.
    export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
    if [ -z "${STORAGE_DRIVER:-}" ]; then
        STORAGE_DRIVER=vfs
        ! grep -qw overlay /proc/filesystems 2>/dev/null || STORAGE_DRIVER=overlay
        export STORAGE_DRIVER
    fi
}
