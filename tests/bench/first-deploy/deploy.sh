#!/usr/bin/env bash
# First deploy of the demo's site by hand: all hosts at once, each in one SSH session, waiting only for what it needs.
# Arguments: SSH client configuration, folder with CONFIG-HOST.tar of each host (owners by name), hosts in the order of the site.
# The configuration files are those that Nightshift wrote on the same hosts, so both install, write and start the same.
set -euo pipefail
ssh_config=$1 configs=$2
shift 2
here=$(dirname "$0")
hosts=("$@")
pids=()
previous=
for host in "${hosts[@]}"; do
    (
        ssh -F "$ssh_config" "$host" 'cat > /root/config.tar' < "$configs/$host.tar"
        ssh -F "$ssh_config" "$host" bash -s -- "${hosts[0]}" "$host" "${previous:-none}" "${#hosts[@]}" < "$here/host.sh"
    ) &
    pids+=($!)
    previous=$host
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
