#!/bin/bash
# The guest's first process: mounts what tests expect, starts udev, then serves commands (or a shell) on ttyS1.
# The host leaves NAME, IP, SOURCES, SHELL_SIZE and the like in /lab/setup.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=linux

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock/iscsi /run/lvm /run/dbus /run/sanlock /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modprobe -a loop 9p 9pnet_virtio dm_mod sd_mod fuse configfs
mount -t configfs configfs /sys/kernel/config
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none lab /lab
. /lab/setup

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

# Only disks are announced: announcing every device costs 6 s. Tests load the drivers they need.
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add --subsystem-match=block --subsystem-match=misc
udevadm settle -t 30
mount -t ext4 -o ro /dev/disk/by-id/virtio-python /opt/lab

ip link set lo up
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
stty -F /dev/ttyS1 raw -echo -hupcl clocal
exec 3<>/dev/ttyS1
: >/lab/ready # not before: what arrives while the line is closed is lost
while :; do
  read -r -u3 job || { sleep 0.2; continue; }
  (
    setsid bash "/lab/$job.sh" >"/lab/$job.out" 2>&1 3<&- </dev/null
    echo $? >"/lab/$job.rc.new"
    mv "/lab/$job.rc.new" "/lab/$job.rc"
  ) &
done
