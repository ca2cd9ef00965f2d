# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# Metal3's baremetal-operator from its Go module, with the definitions of its resources (crds/).
version=0.13.2
disk_mib=2500

make_part() {
  need_tool go "Go 1.26, to build baremetal-operator"
  go_build "$1/bin" "" "github.com/metal3-io/baremetal-operator=baremetal-operator"
  go_module_files github.com/metal3-io/baremetal-operator config/base/crds/bases "$1/crds"
}
