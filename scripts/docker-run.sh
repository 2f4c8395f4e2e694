#!/bin/sh
# Runs one stage in its container: scripts/docker-run.sh STAGE CONFIG [words for roarline …]
# `run`, `plan` and `status` serve as STAGE too; `bash` opens a shell and asks for no CONFIG.
#
#   ARTIFACTS    where results go (else artifacts/)
#   DATA         raw data, mounted read-only (else data/); DATA_MODE=rw lets prepare-data download into it
#   CACHE        downloaded weights and other caches (else ~/.cache/roarline)
#   CODE         a folder with your own methods, put on python's path
#   GPUS         auto (all, where nvidia-smi finds one), none, or a word for --gpus such as device=0
#   SHM_SIZE     shared memory of the container (else 8g)
#   RUN_AS       uid:gid (else yours), the owner of what is written
#   ENGINE, IMAGE    see engine.sh
set -eu
. "$(dirname "$0")/engine.sh"

stage=${1:-}
[ "$stage" != lerf ] || stage=evaluate-perturbation
config=${2:-}
case " $stages " in
    *" $stage "*) target=$stage ;;
    *)
        target=roarline
        case $stage in
            run | plan | status | bash) ;;
            '') die "which stage? task docker-run STAGE=train-cls CONFIG=configs/digits.yaml" ;;
            *) die "no stage is called $stage; there are: $stages, and run, plan, status" ;;
        esac
        ;;
esac

artifacts=${ARTIFACTS:-$root/artifacts}
data=${DATA:-$root/data}
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/roarline}
mkdir -p "$artifacts" "$data" "$cache"
absolute() { (CDPATH='' cd "$1" && pwd -P); }

# What roarline is called with, and the folder of the configuration: edited files need no new image.
configs=$root/configs
if [ "$stage" = bash ]; then
    set --
else
    [ -n "$config" ] || die "which experiment? Name its file: task docker-run STAGE=$stage CONFIG=configs/digits.yaml"
    [ -f "$config" ] || die "CONFIG=$config: no such file"
    configs=$(absolute "$(dirname "$config")")
    shift 2
    set -- "configs/$(basename "$config")" "$@"
    [ "$target" != roarline ] || set -- "$stage" "$@"
fi

find_engine
run_as=${RUN_AS:-$(id -u):$(id -g)}
code=${CODE:+$(absolute "$CODE")}
artifacts=$(absolute "$artifacts")
data=$(absolute "$data")
cache=$(absolute "$cache")

# Runs the engine's `run` with the mounts; the words are further options, the image and what it is called with.
with_mounts() {
    "$engine" run --user "$run_as" \
        --volume "$artifacts:/app/artifacts" --volume "$data:/app/data:${DATA_MODE:-ro}" \
        --volume "$cache:/cache" --volume "$configs:/app/configs:ro" \
        ${code:+--volume "$code:/app/code:ro" --env PYTHONPATH=/app/code} "$@"
}

if [ "$engine" = buildah ]; then
    # buildah runs a command in a working container, and leaves the entry point to us.
    if [ "$stage" = bash ]; then
        set -- bash
    else
        entry=$(buildah inspect --type image --format '{{range .OCIv1.Config.Entrypoint}}{{.}} {{end}}' "$image:$target")
        # shellcheck disable=SC2086  # a word for each part of the entry point
        set -- $entry "$@"
    fi
    container=$(buildah from --pull=false "$image:$target")
    trap 'buildah rm "$container" >/dev/null' EXIT
    trap 'exit 130' HUP INT TERM
    # A volume that the image declares would cover what is mounted there.
    buildah config --volume /app/artifacts- --volume /app/data- --volume /cache- "$container"
    with_mounts "$container" -- "$@"
    exit
fi

gpus=${GPUS:-auto}
if [ "$gpus" = auto ]; then
    if nvidia-smi -L >/dev/null 2>&1; then gpus=all; else gpus=none; fi
fi
set -- "$image:$target" "$@"
[ "$stage" != bash ] || set -- --entrypoint bash "$@"
# Without root podman gives your files to another id, unless told to keep yours.
[ "$engine" != podman ] || [ "$(id -u)" = 0 ] || set -- --userns keep-id "$@"
[ "$gpus" = none ] || set -- --gpus "$gpus" "$@"
if [ -t 0 ] && [ -t 1 ]; then set -- --interactive --tty "$@"; fi
with_mounts --rm --init --shm-size "${SHM_SIZE:-8g}" "$@"
