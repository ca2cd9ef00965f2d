# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# systemd-analyze, which checks units without a systemd that runs. As the distribution packages it: installed, not cached.
version=debian
disk_mib=50

# find_part: where its programs are.
find_part() {
  [[ -x /usr/bin/systemd-analyze ]] || return 1
  printf '/usr\n'
}

make_part() {
  install_packages systemd
}
