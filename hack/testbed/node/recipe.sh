# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# What a kubelet needs beside itself: containerd and runc from their Go modules (Debian's know no CDI, or are
# too old), Debian's CNI plugins, and two images that no registry has to serve.
version=2.4.2
disk_mib=2500

make_part() {
  need_tool go "Go 1.26, to build containerd and runc"
  need_tool cc "a C compiler, to build runc and the image of sandboxes"
  need_tool python3 "Python 3, to pack images"
  need_packages /usr/include/seccomp.h=libseccomp-dev pkg-config=pkg-config
  local containerd=github.com/containerd/containerd/v2/cmd
  go_tags=no_btrfs,no_devmapper go_build "$1/bin" "-X github.com/containerd/containerd/v2/version.Version=v$version" \
    "$containerd/containerd=containerd" "$containerd/containerd-shim-runc-v2=containerd-shim-runc-v2" "$containerd/ctr=ctr"
  # Static, so that it runs where libseccomp is not installed.
  go_tags=seccomp,netgo,osusergo go_cgo=1 go_build "$1/bin" "-linkmode external -extldflags -static" \
    github.com/opencontainers/runc=runc

  unpack_package containernetworking-plugins "$work/cni"
  mkdir "$1/cni"
  cp -- "$work/cni/usr/lib/cni/"{ptp,host-local,loopback} "$1/cni"

  mkdir -p "$work/pause" "$work/busybox/bin"
  cc -static -Os -s -o "$work/pause/pause" "$recipe_dir/pause.c"
  python3 "$recipe_dir/image.py" localhost/pause:1 "$work/pause" /pause >"$1/pause.tar"
  unpack_package busybox-static "$work/busybox-static"
  cp -- "$work/busybox-static/bin/busybox" "$work/busybox/bin"
  local applet
  for applet in sh cat echo env false httpd ls nc sleep true wget; do
    ln -s busybox "$work/busybox/bin/$applet"
  done
  python3 "$recipe_dir/image.py" localhost/busybox:1 "$work/busybox" /bin/sh >"$1/busybox.tar"
}
