#!/bin/bash
# Start sanlock and lvmlockd in a guest, as host number $1; nothing where they run. No watchdog, and sanlock's time-out for a
# read or write, from which all others follow (sanlock(8), "io_timeout"), is $2 seconds: 1 by default, for a machine at rest.
set -eu
lvmlockctl --info >/dev/null 2>&1 && exit 0
printf 'local {\n host_id = %s\n}\n' "$1" > /etc/lvm/lvmlocal.conf
mkdir -p /etc/sanlock /run/sanlock /run/lvm
printf 'use_watchdog = 0\nhigh_priority = 0\nmlock_level = 0\n' > /etc/sanlock/sanlock.conf
sanlock daemon
lvmlockd --sanlock-timeout "${2:-1}"
for _ in $(seq 100); do
    lvmlockctl --info && exit 0
    sleep 0.2
done
exit 1
