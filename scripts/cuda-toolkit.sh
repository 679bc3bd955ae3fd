#!/usr/bin/env bash
# Lays out what `--features cuda` needs to build, below target/cuda: NVIDIA's compiler and headers
# out of pinned wheels of PyPI, and import libraries of our own, so that one binary serves machines
# with and without CUDA. Needs no GPU, no driver and no root. Nothing of it is ever committed: the
# wheels have NVIDIA's licence.
set -euo pipefail

case "${1-}" in
"") ;;
-h | --help)
    cat <<'HELP'
Usage: scripts/cuda-toolkit.sh

Prints the lines of shell that a build with CUDA needs, after it has fetched the toolkit (some
130 MB) where it is not there yet. Builds for NVIDIA's compute capability 9.0 (H100, H200) unless
CUDA_COMPUTE_CAP says otherwise.

Example:
  eval "$(scripts/cuda-toolkit.sh)"
  cargo build --release --locked --features cuda
HELP
    exit 0
    ;;
*)
    echo "scripts/cuda-toolkit.sh: takes no argument, got '$1'; see scripts/cuda-toolkit.sh --help" >&2
    exit 2
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# 13.0 and no later: cudarc 0.19.10 refuses 13.5, and PTX of 13.1 is too new for driver 580.
wheels=(
    "nvidia-cuda-nvcc==13.0.88 56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"
    "nvidia-cuda-crt==13.0.88 2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"
    "nvidia-nvvm==13.0.88 c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"
    "nvidia-cuda-runtime==13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
    "nvidia-cuda-cccl==13.0.85 e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"
)

home=$PWD/target/cuda/toolkit
stamp=$home/complete

fetch() {
    local download requirements
    download=$(mktemp -d)
    # shellcheck disable=SC2064 # as it is now
    trap "rm -rf '$download'" EXIT
    requirements=$download/requirements.txt
    printf '%s\n' "${wheels[@]}" | sed 's/ / --hash=sha256:/' >"$requirements"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes \
        --dest "$download" --requirement "$requirements" >&2
    rm -rf "$home"
    mkdir -p "$home"
    for wheel in "$download"/*.whl; do
        python3 -m zipfile -e "$wheel" "$download/unpacked"
    done
    mv "$download"/unpacked/nvidia/cu13/{bin,include,lib,nvvm} "$home"
    # Python's zipfile drops the mode.
    find "$home/bin" "$home/nvvm/bin" -type f -exec chmod +x {} +
    ln -sfn lib "$home/lib64"                             # where nvcc.profile and cudarc look
    ln -sfn libcudart_static.a "$home/lib/libcudart.a"    # and no .so: `-lcudart` links statically
}

import_libraries() {
    local cudarc
    cudarc=$(cargo metadata --format-version 1 --locked --features cuda \
        --manifest-path models/Cargo.toml | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(next(os.path.dirname(p["manifest_path"]) for p in packages if p["name"] == "cudarc"))')
    python3 scripts/cuda-import-libs.py "$cudarc" "$home/lib"
}

if [ ! -f "$stamp" ]; then
    fetch
    import_libraries
    touch "$stamp"
fi

# Apart from the other target folder: changing CUDA_HOME or the feature would rebuild candle there.
cat <<ENV
export CUDA_HOME=$home CUDA_PATH=$home PATH=$home/bin:\$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}
export CARGO_TARGET_DIR=$PWD/target/cuda/build LIBRARY_PATH=$home/lib\${LIBRARY_PATH:+:\$LIBRARY_PATH}
ENV
