#!/bin/sh
# Runs on the host: notes when it began, then does what a repair does. $1: for whom.
date +%s.%N >> "/run/react-$1"
exec systemctl start memcached.service
