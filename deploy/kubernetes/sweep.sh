#!/usr/bin/env bash
# Writes a kustomization with a run for each task, preset and seed:
#
#   deploy/kubernetes/sweep.sh OVERLAY OUT TASKS PRESETS SEEDS
#   deploy/kubernetes/sweep.sh deploy/kubernetes/overlays/cpu-small my-sweep walker-walk,cheetah-run pompc,tdmpc2 1,2,3
#   kubectl apply -k my-sweep
#
# Each run has a namespace of its own, e.g. walker-walk-pompc-s1, so that all names in it stay what they
# are in the overlay, and labels pompc/task, pompc/preset and pompc/seed:
#
#   kubectl get jobs -A -l pompc/preset=tdmpc2
#   kubectl delete -k my-sweep        the runs, with their volumes
set -euo pipefail
[ $# = 5 ] || { sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3- >&2; exit 2; }
[ -f "$1/kustomization.yaml" ] || { echo "sweep.sh: no kustomization.yaml in $1" >&2; exit 2; }
out=$2
mkdir -p "$out"
overlay=$(realpath --relative-to="$out/run" "$1")
IFS=, read -ra tasks <<<"$3"
IFS=, read -ra presets <<<"$4"
IFS=, read -ra seeds <<<"$5"

all=$out/kustomization.yaml
cat >"$all" <<EOF
# Made by deploy/kubernetes/sweep.sh.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
EOF
for task in "${tasks[@]}"; do
  for preset in "${presets[@]}"; do
    for seed in "${seeds[@]}"; do
      name=$task-${preset//_/-}-s$seed
      mkdir -p "$out/$name"
      echo "- $name" >>"$all"
      printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n' "$name" >"$out/$name/namespace.yaml"
      cat >"$out/$name/kustomization.yaml" <<EOF
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $name
resources:
- namespace.yaml
- $overlay
labels:
- pairs: {pompc/task: $task, pompc/preset: $preset, pompc/seed: "$seed"}
  includeTemplates: true
generatorOptions:
  disableNameSuffixHash: true
configMapGenerator:
- name: pompc-settings
  behavior: merge
  literals:
  - POMPC_TASK=$task
  - POMPC_PRESET=$preset
  - POMPC_SEED=$seed
EOF
    done
  done
done
