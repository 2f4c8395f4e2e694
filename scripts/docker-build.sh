#!/bin/sh
# Builds the image of STAGE, or of every stage: scripts/docker-build.sh [STAGE] [words for the engine's build …]
#
#   BASE_IMAGE    another base than the Dockerfile's, e.g. one pinned by digest, or one for runs on a CPU
#   ENGINE, IMAGE    see engine.sh
set -eu
. "$(dirname "$0")/engine.sh"

wanted=${1:-}
[ $# -eq 0 ] || shift
# shellcheck disable=SC2086  # a word for each stage
case " $stages roarline ray " in
    *" ${wanted:-roarline} "*) set -- "${wanted:-$stages roarline}" "$@" ;;
    *) die "no stage is called $wanted; there are: $stages, roarline for all else, and ray for nodes of a cluster" ;;
esac
targets=$1
shift

find_engine
commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || true)
set -- --build-arg "ROARLINE_GIT_COMMIT=$commit" "$@"
[ -z "${BASE_IMAGE:-}" ] || set -- --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"
[ "$engine" = docker ] || set -- --layers "$@" # docker shares layers between targets by itself
for target in $targets; do
    say "$image:$target"
    "$engine" build "$@" --file "$root/Dockerfile" --target "$target" --tag "$image:$target" "$root"
done
