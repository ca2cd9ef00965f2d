# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# The definitions of Cluster API's resources (core, kubeadm bootstrap and control plane), out of its Go module.
# Those of its Metal3 provider are left out: of github.com/metal3-io/cluster-api-provider-metal3 the module
# proxy serves no version that the checksum database knows (asked for: 1.9.0, 1.10.0, 1.11.0, 1.12.0-4,
# 1.13.0-2, 1.14.0, api/1.13.0, api/1.13.2). Once it does, name it in go.mod and copy its config/crd/bases.
version=1.14.2
disk_mib=100

make_part() {
  need_tool go "Go 1.26, to download the module"
  local folder
  for folder in core bootstrap/kubeadm controlplane/kubeadm; do
    go_module_files sigs.k8s.io/cluster-api "$folder/config/crd/bases" "$1/crds"
  done
}
