"""The lab: a small virtual machine in which tests meet real LVM, NFS, iSCSI, SCSI and multipath (see README.md)."""
