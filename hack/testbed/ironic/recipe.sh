# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# Ironic in a virtual environment of its own, with the schema of its database: making that takes as
# long as starting. requirements.txt pins every package: make it anew with
#   python3 -m venv V && V/bin/pip install ironic==39.0.0 && V/bin/pip freeze
version=39.0.0
disk_mib=700
packages=(xorrisofs=xorriso ipmitool=ipmitool) # for config drives; for the ipmi hardware type

make_part() {
  need_tool python3 "Python 3.11 or newer with venv, to run Ironic"
  python_environment "$1"
  python_program "$1" ironic ironic.command.singleprocess
  python_program "$1" ironic-dbsync ironic.command.dbsync
  printf '[database]\nconnection = sqlite:///%s\n' "$1/schema.sqlite" >"$work/ironic.conf"
  "$1/bin/ironic-dbsync" --config-file "$work/ironic.conf" create_schema >"$work/dbsync.log" 2>&1 || {
    tail -n 20 "$work/dbsync.log" >&2
    fail "Ironic's database schema could not be made"
  }
}
