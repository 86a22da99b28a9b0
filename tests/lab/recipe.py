"""What the guest consists of. Its text is part of the image's key: a change here builds a new image."""

from __future__ import annotations

SUITE = "bookworm"

#: Debian packages of the guest; the kernel is added by the builder, pytest and poolkit's dependencies by ``python_layer``.
PACKAGES = (
    # the machine itself
    "busybox-static",
    "udev",
    "kmod",
    "iproute2",
    "iputils-ping",
    "procps",
    "psmisc",
    "strace",
    "dbus",
    "netbase",
    "acl",
    "attr",
    "python3",
    # block devices and file systems
    "lvm2",
    "lvm2-lockd",
    "sanlock",
    "thin-provisioning-tools",
    "dmsetup",
    "parted",
    "fdisk",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "dosfstools",
    "udftools",
    "xorriso",
    "qemu-utils",
    "zstd",
    # servers and clients of network storage
    "nfs-kernel-server",
    "nfs-common",
    "rpcbind",
    "samba",
    "smbclient",
    "cifs-utils",
    "glusterfs-server",
    "glusterfs-client",
    "open-iscsi",
    "tgt",
    "targetcli-fb",
    "multipath-tools",
    "sg3-utils",
    "lsscsi",
    # what benchmarks compare with
    "libvirt-daemon",
    "libvirt-clients",
)

#: The generic kernel of the suite: the only one of bookworm's with 9p, dlm, ALUA and FCoE, and with unpacked modules.
KERNEL = "linux-image-amd64"

#: Kernel modules the tiny first root needs to find and mount the image; the packaged kernel has none of them built in.
INITRD_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")

#: Folders of kernel/ in the module tree that no storage test uses (about 230 MB).
UNUSED_MODULES = (
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/staging",
    "drivers/usb",
    "drivers/iio",
    "drivers/input",
    "drivers/hid",
    "drivers/isdn",
    "drivers/hwmon",
    "drivers/platform",
    "drivers/bluetooth",
    "drivers/net/wireless",
    "drivers/net/ethernet",
)

#: Programs the builder needs on the machine and the Debian packages that bring them.
BUILD_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "zstd": "zstd",
}

#: Programs needed to boot a guest.
BOOT_TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux"}

#: Python distributions of the guest. They get the version that the outer interpreter has, because reports and coverage
#: data travel between the two. The first group must be there; the second is copied where it is installed.
PYTHON = ("pytest", "pytest-timeout", "lxml", "xmlschema", "rich", "hypothesis")
PYTHON_OPTIONAL = ("coverage",)

#: The guest's Python (bookworm has 3.11.2) and the wheel platforms that its glibc 2.36 can load.
PYTHON_VERSION = "3.11"
WHEEL_PLATFORMS = (
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 26, 27, 28, 31, 34)),
)
