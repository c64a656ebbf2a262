#!/usr/bin/env bash
# Trains every row of Testing/RESULTS.md from nothing and evaluates them all on `test`:
#   Testing/comparison.sh DATA_FOLDER OUTPUT_FOLDER
# Each training takes about twelve minutes of one core; one that was interrupted goes on where it was.
set -euo pipefail
data=$1 output=$2
mkdir -p "$output"

train() { # NAME, then what `lesiondecomp train` takes
    local run="$output/$1" resume=()
    [[ -d $run/bundle ]] && return
    [[ -f $run/checkpoint.pt ]] && resume=(--resume)
    lesiondecomp train --data "$data" -o "$run" --name "$1" --device cpu --threads 1 "${resume[@]}" "${@:2}"
}

train classifier --preset classifier
train biomarker --preset biomarker
train va-gan --preset va-gan
train default --set steps=1090 --set self_steps=545
train without-critic --set critic=false --set steps=1340 --set self_steps=670
train without-normal-fidelity --set alpha_normal=0 --set steps=1090 --set self_steps=545
# Without G2 no gate: all terms that need one fall away, and equation 1 would ask G1 to copy the lesions.
train without-lesion-decoder --set network.lesion_decoder=false --set network.gated=false --set alpha_reconstruction=0 \
    --set alpha_image=0 --set alpha_sparse=0 --set alpha_self=0 --set steps=1470

bundles=()
for name in classifier va-gan biomarker default without-critic without-normal-fidelity without-lesion-decoder; do
    bundles+=("$output/$name/bundle")
done
lesiondecomp evaluate --data "$data" --split test --models lesions-decomposition "${bundles[@]}" \
    -o "$output/evaluation" --overwrite
