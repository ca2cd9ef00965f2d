# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with hack/testbed/build
# cargo-deny holds the dependencies against deny.toml: bans, licences, sources.
version=0.20.2
disk_mib=1500

make_part() {
  need_tool cargo "Rust 1.95, to build cargo-deny"
  # It runs for seconds: optimising it would take three times as long as all else here.
  CARGO_TARGET_DIR="$work/target" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 nice -n 5 \
    cargo install --quiet --locked --root "$1" --version "$version" cargo-deny
}
