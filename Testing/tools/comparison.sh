#!/usr/bin/env bash
# Trains every row of Documentation/results.md from nothing, then evaluates them all on `test`, and on CT volumes where a folder is given:
#   Testing/tools/comparison.sh DATA_FOLDER OUTPUT_FOLDER [CT_FOLDER]
# Up to 28 hours of one core; DEVICE=cuda trains on a GPU, and the paper's method in its full size too. Start it again at
# any time: a row that is finished is left alone, one that was interrupted goes on where it was.
# A few steps of everything, to see that it runs: STEPS=20 SEEDS=0 Testing/tools/comparison.sh ...
set -euo pipefail
data=$1 output=$2 volumes=${3:-}
read -ra seeds <<< "${SEEDS:-0 1 2}"
mkdir -p "$output"
methods=() ablations=()

train() { # NAME, then what `lesiondecomp train` takes
    local run="$output/$1" resume=() few=()
    case $1 in
        *-seed* | *-without-* | *-matched) ablations+=("$run/bundle") ;;
        *) methods+=("$run/bundle") ;;
    esac
    [[ -d $run/bundle ]] && return
    [[ -f $run/checkpoint.pt ]] && resume=(--resume)
    if [[ -n ${STEPS:-} ]]; then
        case $1 in
            va-gan) few=(--set "steps=$STEPS" --set "val_every=$STEPS" --set often_first=0 --set critic_steps_often=5) ;;
            classifier | biomarker) few=(--set "steps=$STEPS" --set "val_every=$STEPS") ;;
            *) few=(--set "schedule.steps=$STEPS" --set "schedule.val_every=$STEPS" --set "schedule.judge_steps=$STEPS") ;;
        esac
    fi
    lesiondecomp train --data "$data" -o "$run" --name "$1" --device "${DEVICE:-cpu}" --threads 1 "${resume[@]}" "${@:2}" "${few[@]}"
}

# The paper's method and its rivals, each until it gains no more on `val`.
train paper --preset paper
[[ ${DEVICE:-cpu} == cpu ]] || train paper-large --preset paper-large --set seed=1
train va-gan --preset va-gan
train classifier --preset classifier
train biomarker --preset biomarker

# What each part of the paper's method is for. Without G2 equation 1 would ask G1 to copy the lesions.
for seed in "${seeds[@]}"; do
    same=(--preset paper --set schedule.steps=10000 --set "seed=$seed")
    train "paper-10k-seed$seed" "${same[@]}"
    train "paper-without-D-seed$seed" "${same[@]}" --set critic.enabled=false
    train "paper-without-Ln-seed$seed" "${same[@]}" --set weights.normal=0
    train "paper-without-G2-seed$seed" "${same[@]}" --set network.lesion_decoder=false --set weights.reconstruction=0
done

# The same of the `default` preset, in twelve minutes each. Without G2 there is no gate: all terms that need one fall away.
train default --set schedule.steps=1090 --set self_training.start=545
train default-without-D --set critic.enabled=false --set schedule.steps=1340 --set self_training.start=670
train default-without-Ln --set weights.normal=0 --set schedule.steps=1090 --set self_training.start=545
train default-without-G2 --set network.lesion_decoder=false --set network.gated=false --set weights.reconstruction=0 \
    --set weights.image=0 --set weights.sparse=0 --set self_training.weight=0 --set schedule.steps=1470
# Does a critic that cannot go by the lungs' shape help it?
train default-matched --set batch.matched_normals=24 --set schedule.steps=1090 --set self_training.start=545

# One row for each model; the parts of the decompositions' heat are left out.
models=(--models lesions-decomposition "${methods[@]}" --methods heat cam grad-cam va-gan biomarker grey blurred_grey)
lesiondecomp evaluate --data "$data" --split test "${models[@]}" -o "$output/evaluation" --overwrite
lesiondecomp evaluate --data "$data" --split test --models "$output/default/bundle" "${ablations[@]}" \
    --methods heat blurred_grey -o "$output/ablations" --overwrite
if [[ -n $volumes ]]; then
    lesiondecomp evaluate --data "$volumes" "${models[@]}" -o "$output/volumes" --overwrite
fi
