# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# sushy-emulator, a Redfish BMC that nobody here wrote, in a virtual environment of its own.
# requirements.txt pins every package: make it anew with
#   python3 -m venv V && V/bin/pip install sushy-tools==2.2.0 && V/bin/pip freeze
version=2.2.0
disk_mib=300

make_part() {
  need_tool python3 "Python 3.9 or newer with venv, to run sushy-emulator"
  python_environment "$1"
  python_program "$1" sushy-emulator sushy_tools.emulator.main
}
