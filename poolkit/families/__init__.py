"""What pool types of one kind share: directories, block devices, LVM, partitions, mounts."""
