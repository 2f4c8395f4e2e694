#!/bin/sh
# Builds every image and sends an experiment from container to container, joined by nothing but the artifact folder:
#   scripts/docker-check.sh [words for roarline …]        e.g. --set evaluate-roar.repeats=1
#
# A container for each stage that the experiment has; each must write artifacts of its own stage and of no other: one
# that made up for a predecessor's missing result would hide that the two do not share it. At the end there must be a
# report.
#
#   CONFIG        the experiment (else configs/digits.yaml)
#   BASE_IMAGE    another base image, e.g. one that is already on this machine
#   KEEP          a folder that is to hold the artifacts (else a temporary one, removed at the end)
#   ENGINE, IMAGE    see engine.sh; GPUS, SHM_SIZE and the like: see docker-run.sh
#
# Where no docker engine runs, buildah serves (Debian: apt-get install buildah debootstrap), also without a
# registry, on a base image of one's own:
#   debootstrap --variant=minbase --include=ca-certificates trixie ROOT
#   export STORAGE_DRIVER=overlay      # as the scripts here do where the kernel has it
#   c=$(buildah from scratch) && buildah copy $c ROOT / && buildah commit $c localhost/base && buildah rm $c
#   BASE_IMAGE=localhost/base ENGINE=buildah task docker-check
set -eu
. "$(dirname "$0")/engine.sh"
here=$(dirname "$0")
config=${CONFIG:-$root/configs/digits.yaml}

find_engine
export ENGINE="$engine"
"$here/docker-build.sh"

work=${KEEP:-$(mktemp -d)}
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
mkdir -p "$work/artifacts" "$work/cache" "$work/data"
if [ "$(id -u)" = 0 ] && [ -z "${RUN_AS:-}" ]; then # as the image's own user: a stage that needs root must fail here
    RUN_AS=10001:10001
    chmod 755 "$work"
    chown "$RUN_AS" "$work/artifacts" "$work/cache"
fi
export RUN_AS="${RUN_AS:-$(id -u):$(id -g)}"
export ARTIFACTS="$work/artifacts" CACHE="$work/cache" DATA="${DATA:-$work/data}"

made() { (cd "$ARTIFACTS" && find . -path './*/*/manifest.json' ! -path './.*/*' | sort); }

# the stages that the experiment asks for, in the order of the pipeline: each starts a line of `status`
asked=$("$here/docker-run.sh" status "$config" "$@")
wanted=""
for stage in $stages; do
    ! echo "$asked" | grep -q "^$stage " || wanted="$wanted $stage"
done
[ -n "$wanted" ] || die "$config asks for no stage: $asked"

for stage in $wanted; do
    say "container $image:$stage"
    made >"$work/before"
    "$here/docker-run.sh" "$stage" "$config" "$@"
    made | comm -13 "$work/before" - >"$work/new"
    [ -s "$work/new" ] || die "$stage wrote no artifact"
    ! grep -v "^./$stage/" "$work/new" >&2 || die "$stage wrote artifacts of another stage (above): it did not see what the containers before it made"
done

report=$(find "$ARTIFACTS/experiments" -path '*/report/index.html' -size +0 | head -n 1)
[ -n "$report" ] || die "no report in $ARTIFACTS/experiments"
"$here/docker-run.sh" status "$config" "$@"
say "$(wc -c <"$report") bytes of report came through $(echo "$wanted" | wc -w) containers${KEEP:+: $report}"
