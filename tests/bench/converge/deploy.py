"""The same forty resources for pyinfra; `greeting` is given with --data."""

from io import StringIO

from pyinfra import host
from pyinfra.operations import apt, files, server, systemd

for name in ["curl", "rsync", "socat", "sudo"]:
    apt.packages(name=f"package {name}", packages=[name])
for name in ["one", "two"]:
    server.group(name=f"group {name}", group=f"bench{name}", system=True)
for name in ["one", "two"]:
    server.user(
        name=f"user {name}", user=f"bench{name}", group=f"bench{name}", home=f"/opt/bench/{name}",
        shell="/usr/sbin/nologin", system=True, ensure_home=False,
    )
for path in ['/opt/bench', '/opt/bench/one', '/opt/bench/two', '/opt/bench/conf', '/opt/bench/conf/a', '/opt/bench/conf/b']:
    files.directory(name=path, path=path, mode="755", user="root", group="root")
for number in range(1, 24):
    path = f"/opt/bench/conf/{'ab'[number % 2]}/app{number:02d}.conf"
    files.put(name=path, src="app.conf", dest=path, mode="644", user="root", group="root")
files.put(
    name="greeting", src=StringIO(host.data.greeting + "\n"), dest="/opt/bench/greeting", mode="644", user="root", group="root",
)
for name in ["cron", "ssh"]:
    systemd.service(name=f"unit {name}", service=f"{name}.service", running=True, enabled=True)
