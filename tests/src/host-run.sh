# Supervisor of one lab host, run by `unshare --mount`: disk, overlay root, then systemd-nspawn until the host is off.
# Arguments: folder of the host, lower layers, host name, network namespace, control group folders.
# All mounts live in this mount namespace: when the last process of the host ends, nothing stays mounted.
set -eu
dir=$1 lower=$2 name=$3 netns=$4
shift 4
for group; do echo 0 > "$group/supervisor/cgroup.procs"; done
mkdir -p "$dir/disk" "$dir/root"
# No barriers: a lab does not outlive the machine's own power, and a power cut of a host keeps the machine's page cache.
mount -t ext4 -o loop,noatime,nobarrier "$dir/disk.img" "$dir/disk"
if [ ! -d "$dir/disk/upper" ]; then
    rm -rf "$dir/disk/new"
    cp -a "$dir/seed" "$dir/disk/new"
    mkdir -p "$dir/disk/work"
    mv "$dir/disk/new" "$dir/disk/upper"
fi
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
# nspawn's own folder must be on a tmpfs, else a reboot of the host fails.
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
while :; do
    code=0
    (
        for group; do echo 0 > "$group/host/cgroup.procs"; done
        exec systemd-nspawn --quiet --boot --directory="$dir/root" --machine="$name" --register=no --keep-unit \
            --network-namespace-path="$netns" --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_IPC_LOCK \
            --resolv-conf=off --timezone=off --link-journal=no --console=read-only
    ) || code=$?
    # 133: the host asked for a reboot.
    [ "$code" = 133 ] || exit "$code"
done
