# Process 1 of a node's own process and mount namespaces: whatever starts here ends with it, and what is
# mounted here is seen by nobody else. The directory that it runs in holds all of the node's files.
set -eu
trap 'exit 0' TERM
part=$1 system_uuid=$2
shift 2

# As systemd leaves it: containers may ask for the mounts that come later.
mount --make-rshared /
# Sockets of shims and state of runc have fixed places below /run, links to logs below /var/log.
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
# Configuration and state of everything else, at its usual places too.
[ -d etc ] || cp -a /etc etc
mount --bind etc /etc
mount --bind lib /var/lib
mkdir /run/cdi
mount --bind cdi /run/cdi
while [ "$1" != -- ]; do
  mkdir -p "$2"
  mount --bind "$1" "$2"
  shift 2
done
shift
# The kubelet takes the system UUID from DMI, or where the machine has none from this file.
if [ -n "$system_uuid" ] && [ -d /sys/class/dmi/id ]; then
  mount -t tmpfs tmpfs /sys/class/dmi/id
  echo "$system_uuid" >/sys/class/dmi/id/product_uuid
elif [ -n "$system_uuid" ]; then
  echo "$system_uuid" >/etc/machine-id
fi

containerd --config containerd.toml >containerd.log 2>&1 &
containerd=$!
until ctr --address "$PWD/containerd.sock" version >/dev/null 2>&1; do
  kill -0 "$containerd" || { cat containerd.log; exit 1; }
  sleep 0.05
done
for image in pause busybox; do
  ctr --address "$PWD/containerd.sock" --namespace k8s.io images import --local --snapshotter native \
    "$part/$image.tar" >>containerd.log 2>&1 || { cat containerd.log; exit 1; }
done

# Each line here is a signal for the kubelet; after KILL another starts.
[ -p control ] || mkfifo control
while read -r signal <control; do
  [ "$signal" != KILL ] || touch again
  kill "-$signal" "$(cat kubelet.pid)"
done &

touch started
while :; do
  kubelet "$@" &
  echo $! >kubelet.pid
  status=0
  wait $! || status=$?
  [ -e again ] || exit "$status"
  rm again
done
