# shellcheck shell=bash disable=SC2034 # variables are shared with hack/testbed/build
# etcd from its Go module; the server's main package is the module's root.
version=3.6.8
disk_mib=800

make_part() {
  need_tool go "Go 1.26, to build etcd"
  go_build "$1/bin" "" "go.etcd.io/etcd/server/v3=etcd"
}
