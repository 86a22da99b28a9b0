#!/bin/bash
# The guest's first process: mounts what tests expect, starts udev, then serves commands (or a shell) on ttyS1.
# The host leaves NAME, IP, SOURCES, SHELL_SIZE and the like in /lab/setup.
# With lab.save on the kernel's command line it stops half-way to be saved: what comes before must know nothing of what is in
# /lab, and write to memory alone (the root is read-only until then).
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=linux

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock/iscsi /run/lvm /run/dbus /run/sanlock /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modprobe -a loop 9p 9pnet_virtio dm_mod sd_mod fuse configfs
mount -t configfs configfs /sys/kernel/config

# Only disks are announced: announcing every device costs 6 s. Tests load the drivers they need.
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle -t 30
mount -t ext4 -o ro /dev/disk/by-id/virtio-python /opt/lab
ip link set lo up

if grep -q lab.save /proc/cmdline; then
  # A test run that does nothing loads the libraries into memory and compiles what pytest rewrites.
  mkdir /tmp/bytecode
  cp -a /usr/share/lab/bytecode/. /tmp/bytecode/
  cp -a /opt/lab/.bytecode/. /tmp/bytecode/ 2>/dev/null
  mkdir /tmp/warm && cd /tmp/warm && echo 'def test(): pass' >test_warm.py
  export PYTHONPYCACHEPREFIX=/tmp/bytecode HYPOTHESIS_STORAGE_DIRECTORY=/tmp/warm/hypothesis
  python3 -m coverage run -m pytest -q -p no:cacheprovider test_warm.py >/tmp/warm/out 2>&1
  python3 -c 'import asyncio, concurrent.futures, hypothesis.stateful, json.tool, lxml.etree, multiprocessing, pydoc, sqlite3, xmlschema
import rich.console, rich.live, rich.progress, rich.table, rich.tree' >>/tmp/warm/out 2>&1
  unset PYTHONPYCACHEPREFIX HYPOTHESIS_STORAGE_DIRECTORY
  cd / && rm -rf /tmp/warm
  stty -F /dev/ttyS1 raw -echo -hupcl clocal
  exec 3<>/dev/ttyS1
  echo 'lab: waits to be told its name' >/dev/console
  read -r -u3
  saved=yes
fi

mount -o remount,rw /
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none lab /lab
. /lab/setup
if [ -n "$saved" ]; then
  date -s "@$NOW" >/dev/null
  # All that go on from one state would draw the same numbers. 0x5207 is RNDRESEEDCRNG (linux/random.h).
  cat /lab/entropy >/dev/urandom
  python3 -I -S -c 'import fcntl; fcntl.ioctl(open("/dev/urandom", "wb"), 0x5207)'
fi

# The source tree lies at the path it has on the host, so that tracebacks and coverage speak of the same files.
pth=/usr/local/lib/python3.11/dist-packages/lab-source.pth
: >$pth
tag=0
for source in "${SOURCES[@]}"; do
  mkdir -p "$source"
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro src$tag "$source"
  echo "$source" >>$pth
  tag=$((tag + 1))
done
echo /lab/site >>$pth

hostname "$NAME"
printf '127.0.0.1 localhost %s\n' "$NAME" >/etc/hosts
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
echo "InitiatorName=iqn.2004-10.com.example:$NAME" >/etc/iscsi/initiatorname.iscsi
if [ -n "$IP" ]; then
  modprobe virtio_net
  udevadm settle
  for address in /sys/class/net/*/address; do
    device=${address%/address} device=${device##*/}
    if [ "$(cat "$address")" = "$MAC" ]; then ip addr add "$IP" dev "$device"; ip link set "$device" up; fi
  done
fi
cd /root || exit 1

if [ -n "$SHELL_SIZE" ]; then
  stty -F /dev/ttyS1 sane rows "${SHELL_SIZE%x*}" cols "${SHELL_SIZE#*x}"
  cd "${SOURCES[0]:-/root}" || exit 1
  : >/lab/ready
  TERM=$SHELL_TERM PS1='lab:\w\$ ' setsid -c bash --norc -i </dev/ttyS1 >/dev/ttyS1 2>&1
  sync
  echo o >/proc/sysrq-trigger
  sleep 60
fi

# A line on ttyS1 names a script in the share; its output and its exit status go back through the share.
if [ -z "$saved" ]; then
  stty -F /dev/ttyS1 raw -echo -hupcl clocal
  exec 3<>/dev/ttyS1
fi
: >/lab/ready # not before: what arrives while the line is closed is lost
while :; do
  read -r -u3 job || { sleep 0.2; continue; }
  [ -n "$job" ] || continue
  (
    setsid bash "/lab/$job.sh" >"/lab/$job.out" 2>&1 3<&- </dev/null
    echo $? >"/lab/$job.rc.new"
    mv "/lab/$job.rc.new" "/lab/$job.rc"
  ) &
done
