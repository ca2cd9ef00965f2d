# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# PostgreSQL as the distribution packages it. It is installed, not cached: `--where` names the
# directory of its programs. The tests start their own servers; the package's own cluster is
# neither made nor started.
version=debian
disk_mib=500

# find_part: the newest installed server.
find_part() {
  local newest=''
  for newest in $(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort --version-sort --reverse); do
    [[ -x $newest && -x ${newest%/*}/initdb ]] || continue
    printf '%s\n' "${newest%/*}"
    return 0
  done
  return 1
}

make_part() {
  can_install postgresql
  # Read by the package's maintainer scripts: no "main" cluster, so there is nothing to start.
  local settings=/etc/postgresql-common/createcluster.conf
  if [[ ! -e $settings ]]; then
    mkdir -p "${settings%/*}"
    printf '%s\n' '# Written by hack/testbed/build: tests start servers of their own.' \
      'create_main_cluster = false' >"$settings"
  fi
  install_packages postgresql
}
