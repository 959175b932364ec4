# One host's part of deploy.sh, read by bash on the host. Arguments: first host, this host, the one before it (or none), number of hosts.
set -euo pipefail
first=$1 me=$2 previous=$3 count=$4
limit=$((SECONDS + 300))

# until_true WHAT COMMAND…: again and again until it succeeds.
until_true() {
    local what=$1
    shift
    until "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || { echo "$me: waited too long for $what" >&2; exit 1; }
        sleep 0.2
    done
}
open() { (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; }
status() { mariadb -Ne "SHOW STATUS LIKE 'wsrep_$1'" | grep -qx "wsrep_$1[[:space:]]$2"; }

packages="mariadb-server rabbitmq-server memcached haproxy keepalived socat
    prometheus-node-exporter prometheus-mysqld-exporter"
[ "$count" = 1 ] || packages="$packages galera-4 mariadb-backup rsync"
[ "$me" != "$first" ] || packages="$packages prometheus prometheus-alertmanager"

# Nothing starts before it is configured.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Options::=--force-confold install -y --no-install-recommends $packages > /dev/null
rm /usr/sbin/policy-rc.d
groupadd --system nightshift-signs
useradd --system --gid nightshift-signs --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin nightshift-signs
tar -C / -xf /root/config.tar
systemctl daemon-reload
sysctl -q --system > /dev/null 2>&1 || true

systemctl enable -q memcached haproxy keepalived mariadb rabbitmq-server prometheus-node-exporter prometheus-mysqld-exporter nightshift-signs
systemctl restart memcached prometheus-node-exporter &
others=$!

database() {
    if [ "$count" = 1 ]; then
        systemctl restart mariadb
    elif [ "$me" = "$first" ]; then
        galera_new_cluster
    else
        until_true "MariaDB on $previous" open "$previous" 3306
        systemctl start mariadb
    fi
    [ "$count" = 1 ] || until_true "Synced" status local_state_comment Synced
    [ "$count" = 1 ] || until_true "all members of MariaDB" status cluster_size "$count"
    # Only now: a change of the schema while a member still joins can leave that member out for good.
    if [ "$me" = "$first" ]; then
        password=$(sed -n 's/^DATA_SOURCE_NAME="nightshift_exporter:\(.*\)@unix.*/\1/p' /etc/default/prometheus-mysqld-exporter)
        mariadb <<SQL
CREATE USER IF NOT EXISTS nightshift_exporter@localhost IDENTIFIED BY '$password';
GRANT PROCESS, SLAVE MONITOR, SELECT ON *.* TO nightshift_exporter@localhost;
SQL
    fi
    systemctl restart prometheus-mysqld-exporter
}

broker() {
    [ "$me" = "$first" ] || until_true "RabbitMQ on $first" open "$first" 5672
    systemctl start rabbitmq-server
    # One process that waits, on one host: asking again and again costs a second of processor each time.
    [ "$me" != "$first" ] || rabbitmqctl -q await_online_nodes "$count" --timeout 600
}

balancer() {
    systemctl restart haproxy
    systemctl restart keepalived
}

monitoring() {
    [ "$me" = "$first" ] || return 0
    systemctl enable -q prometheus prometheus-alertmanager
    systemctl restart prometheus prometheus-alertmanager
    until_true "Prometheus" curl -fsS "http://$me:9090/-/ready"
    until_true "Alertmanager" curl -fsS "http://$me:9093/-/ready"
}

pids=("$others")
for part in database broker balancer monitoring; do
    "$part" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
systemctl restart nightshift-signs
until_true "HAProxy" curl -fsS "http://$me:61313/"
until_true "memcached" open "$me" 11211
