#!/bin/sh
# The shelf of methods on real images: artifacts/gallery/<name>.png for every pair of gallery configurations whose images
# are there. `<name>-all` holds the methods of a few passes for all test images, `<name>-16` the slow ones for 16 of them.
set -eu
cd "$(dirname "$0")/.."
drawn=0
for all in configs/gallery/*-all.yaml; do
    name=$(basename "$all" -all.yaml)
    root=$(sed -n 's/^ *root: *\([^ ]*\).*/\1/p' "$all" | head -n 1)
    if [ ! -e "$root" ]; then
        echo "gallery: skipping $name: its images are not at $root" >&2
        continue
    fi
    .venv/bin/roarline gallery "$all" "configs/gallery/$name-16.yaml" --output "artifacts/gallery/$name.png" "$@"
    drawn=$((drawn + 1))
done
if [ "$drawn" = 0 ]; then
    echo "gallery: none of the real images are here; drawing the demo's digits instead" >&2
    .venv/bin/roarline gallery configs/digits.yaml --output artifacts/gallery/digits.png "$@"
fi
