# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# sushy-emulator, a Redfish BMC that nobody here wrote, in a virtual environment of its own.
# requirements.txt pins every package: make it anew with
#   python3 -m venv V && V/bin/pip install sushy-tools==2.2.0 && V/bin/pip freeze
version=2.2.0
disk_mib=300

make_part() {
  need_tool python3 "Python 3.9 or newer with venv, to run sushy-emulator"
  python3 -m venv "$1/venv" || fail "python3 cannot make a virtual environment (Debian: install python3-venv)"
  "$1/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$recipe_dir/requirements.txt"
  # pip writes this directory's temporary name into the scripts that it makes, so ours starts the
  # same entry point by a path of its own.
  mkdir "$1/bin"
  cat >"$1/bin/sushy-emulator" <<'SCRIPT'
#!/bin/sh
exec "$(dirname "$0")/../venv/bin/python" -c \
  'import sys; from sushy_tools.emulator.main import main; sys.exit(main())' "$@"
SCRIPT
  chmod +x "$1/bin/sushy-emulator"
  find "$1/venv/bin" -type f ! -name 'python*' -delete
}
