# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# Kubernetes from its Go module: no package registry holds these programs, and `go install` refuses
# a module with `replace`, so go.mod and tools.go beside this file are a module of ours.
# To add a program: name it in tools.go and below, then `go mod tidy`.
version=1.36.3
disk_mib=5500 # measured: 4.2 GiB of build cache at its peak, 0.3 of programs, 0.6 of modules

make_part() {
  need_tool go "Go 1.26, to build Kubernetes"
  local programs=(kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet)
  local set=k8s.io/component-base/version pairs=() program
  for program in "${programs[@]}"; do
    pairs+=("k8s.io/kubernetes/cmd/$program=$program")
  done
  # Without these the programs call themselves v0.0.0-master, and kubectl warns of skew.
  go_build "$1/bin" \
    "-X $set.gitVersion=v$version -X $set.gitMajor=1 -X $set.gitMinor=36 -X $set.gitTreeState=clean" "${pairs[@]}"
}
