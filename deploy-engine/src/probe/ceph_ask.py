"""Asks a Ceph cluster several questions with one start of a program.

`ceph` takes ten times the processor's time, most of it to learn which commands there are. On a host with much to do that was
longer than a gate may wait. `rados` comes with it (package ceph-common).

  monitors COMMAND...     to the monitors
  manager COMMAND...      to the active manager
  ok-to-stop HOST         may all OSDs of the host be stopped?
  osds                    state of the host's own OSDs, each by its socket
  blocked                 requests that wait too long in the host's own OSDs, and for which OSD they wait
  damage                  placement groups whose copies differ, and what the last scrub found

A command is an object in JSON. Every answer is one document in JSON on a line of its own. Ends with 0, with the number of the
error that Ceph gave a command, or with 110 when no manager answered in time; with 1 when the monitors cannot be reached or
do not answer.
"""

import errno
import glob
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading

# Seconds, for reaching the monitors and for each answer. A gate waits 7 s for all answers of a host.
PATIENCE = 3
# Seconds: an OSD answers by itself, at once.
SOCKET_PATIENCE = 2
# Damaged placement groups and objects in each that are shown: with more of them nothing is repaired.
GROUPS = 3
OBJECTS = 20
# Kinds of waiting of one OSD that are shown.
WAITS = 50
SOCKETS = ("/var/run/ceph/ceph-osd.*.asok", "/var/run/ceph/*/ceph-osd.*.asok")


def end(status, why=""):
    """Ends now: taking leave of a cluster that does not answer would wait for it."""
    if why:
        print(why, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def connected():
    import rados

    limits = {"client_mount_timeout": str(PATIENCE), "rados_mon_op_timeout": str(PATIENCE)}
    try:
        cluster = rados.Rados(conffile="", name="client.admin", conf=limits)
        cluster.connect()
        return cluster
    except rados.Error as error:
        end(1, f"{error} (error connecting to the cluster)")


def answer(send, command, may_refuse=(), silent=errno.ETIMEDOUT):
    """The answer to a command. `silent`: how to end when none comes; only the silence of a manager has a status of its own."""
    status, said, words = send(json.dumps(dict(command, format="json")), b"")
    # A refusal of Ceph is negative, a manager's silence is not.
    status = abs(status)
    if status == errno.ETIMEDOUT:
        end(silent, f"no answer within {PATIENCE} s: {command['prefix']}")
    if status and status not in may_refuse:
        name = errno.errorcode.get(status, str(status))
        end(status, f"Error {name}: {words or command['prefix']}")
    return status, said.decode()


def ask(send, commands, silent):
    """All at once: a monitor that is busy with its map takes a second for each."""
    said = {}

    def one(command):
        said[command] = answer(send, json.loads(command), silent=silent)[1].strip()

    asking = [threading.Thread(target=one, args=(command,)) for command in commands]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    if len(said) < len(commands):
        end(1, "not every question was answered")
    for command in commands:
        print(said[command])


def ok_to_stop(cluster, host):
    _, tree = answer(cluster.mon_command, {"prefix": "osd ls-tree", "name": host}, silent=1)
    numbers = [str(number) for number in json.loads(tree)]
    if not numbers:
        print('{"ok_to_stop": true}')
        return 0
    question = {"prefix": "osd ok-to-stop", "ids": numbers}
    status, said = answer(cluster.mgr_command, question, (errno.EBUSY,))
    print(said.strip())
    return status


def say(path, prefix):
    """What the OSD with this socket answers; nothing, where it does not answer."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(SOCKET_PATIENCE)
        try:
            peer.connect(path)
            peer.sendall(json.dumps({"prefix": prefix, "format": "json"}).encode() + b"\0")
            with peer.makefile("rb") as said:
                (length,) = struct.unpack(">I", said.read(4))
                return json.loads(said.read(length))
        except (OSError, ValueError, struct.error) as error:
            print(f"{path}: {error}", file=sys.stderr)


def own_osds():
    return sorted(path for pattern in SOCKETS for path in glob.glob(pattern))


def osds():
    for path in own_osds():
        said = say(path, "status")
        if said is not None:
            print(json.dumps(said))


def waits_for(osd, request):
    """Which OSDs have to speak before the request goes on, and how many of them have not spoken yet."""
    asked, silent = set(), 0
    for event in request.get("type_data", {}).get("events", []):
        words = event.get("event", "")
        copies = re.fullmatch(r"waiting for subops from ([0-9,]+)", words)
        if copies:
            asked = {int(number) for number in copies[1].split(",")}
            silent = len(asked)
        elif words.startswith("sub_op_commit_rec"):
            silent -= 1
    # All copies are written, or none was asked yet: it waits for the OSD that holds it.
    return (tuple(sorted(asked)), silent) if silent > 0 else ((osd,), 1)


def blocked():
    for path in own_osds():
        osd = int(path.rsplit(".", 2)[-2])
        said = say(path, "dump_blocked_ops")
        requests = (said or {}).get("ops", [])
        waits = sorted({waits_for(osd, request) for request in requests})
        print(json.dumps({
            "osd": osd,
            "answers": said is not None,
            "blocked": len(requests),
            "oldest_seconds": max((request["age"] for request in requests), default=0),
            "waits": [{"on": on, "silent": silent} for on, silent in waits[:WAITS]],
            "more": len(waits) > WAITS,
        }))


def copy(shard):
    wanted = ("osd", "errors", "size", "data_digest")
    return {name: shard[name] for name in wanted if name in shard}


def damaged_group(group):
    told = subprocess.run(
        ["rados", "list-inconsistent-obj", group["pgid"], "--format=json"],
        capture_output=True, text=True, timeout=PATIENCE,
    )
    found = {"group": group["pgid"], "state": group["state"], "objects": [], "count": 0}
    if told.returncode:
        return dict(found, why=told.stderr.strip().splitlines()[-1:])
    objects = json.loads(told.stdout)["inconsistents"]
    found["count"] = len(objects)
    for one in objects[:OBJECTS]:
        found["objects"].append({
            "name": one["object"]["name"],
            "head": one["object"]["snap"] == "head",
            "errors": one["errors"],
            "authority": bool(one.get("selected_object_info")),
            "copies": [copy(shard) for shard in one["shards"]],
        })
    return found


def damage(cluster):
    _, listed = answer(cluster.mgr_command, {"prefix": "pg ls", "states": ["inconsistent"]})
    _, dumped = answer(cluster.mgr_command, {"prefix": "pg dump", "dumpcontents": ["osds"]})
    _, described = answer(cluster.mon_command, {"prefix": "osd metadata"}, silent=1)
    heard = json.loads(listed)
    if not heard["pg_ready"]:
        end(1, "the active manager has not heard of all placement groups yet")
    # Where none is damaged there is no list.
    groups = heard.get("pg_stats", [])
    repaired = {one["osd"]: one.get("num_shards_repaired") for one in json.loads(dumped)["osd_stats"]}
    osds = {
        str(one["id"]): {"store": one.get("osd_objectstore"), "repaired": repaired.get(one["id"])}
        for one in json.loads(described)
    }
    shown = [damaged_group(group) for group in groups[:GROUPS]]
    print(json.dumps({"count": len(groups), "groups": shown, "osds": osds}))


def main(to, *words):
    if to in ("osds", "blocked"):
        {"osds": osds, "blocked": blocked}[to]()
        return 0
    cluster = connected()
    if to == "ok-to-stop":
        return ok_to_stop(cluster, *words)
    if to == "damage":
        damage(cluster)
        return 0
    if to == "monitors":
        ask(cluster.mon_command, words, silent=1)
    else:
        ask(cluster.mgr_command, words, silent=errno.ETIMEDOUT)
    return 0


end(main(*sys.argv[1:]))
