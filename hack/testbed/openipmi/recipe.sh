# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# ipmi_sim of OpenIPMI, an IPMI BMC that nobody here wrote, with sdrcomp, which compiles its sensor
# records; and ipmitool, a client that nobody here wrote. As the distribution packages them:
# installed, not cached.
version=debian
disk_mib=50

# find_part: where all three are.
find_part() {
  local program
  for program in ipmi_sim sdrcomp ipmitool; do
    [[ -x /usr/bin/$program ]] || return 1
  done
  printf '/usr\n'
}

make_part() {
  install_packages openipmi ipmitool
}
