"""The classes of XenAPI that the peer has, and each field's type, qualifier and default.

A line of a class is ``QUALIFIER TYPE [= DEFAULT]: NAMES``. The qualifiers are ``ro`` (only the server sets it), ``new`` (a
constructor sets it, later nobody) and ``rw``; the types are spelled as in the published datamodel.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

NULL = "OpaqueRef:NULL"


class Date(str):
    """A time as XenAPI writes it, such as 20240131T12:00:00Z; a type of its own for the wire."""

    __slots__ = ()


EPOCH = Date("19700101T00:00:00Z")


class Real(float):
    """A float, which XML-RPC must not write as an int."""

    __slots__ = ()


@dataclass(frozen=True)
class Field:
    """A field of a class."""

    name: str
    type: str
    qualifier: str
    default: Any

    @property
    def refers(self) -> str:
        """The class that the field refers to; empty for a value."""
        words = self.type.split()
        return words[0] if len(words) > 1 and words[1] == "ref" else ""


ENUMS = {
    "storage_operations": "scan destroy forget plug unplug update vdi_create vdi_introduce vdi_destroy vdi_resize vdi_clone"
    " vdi_snapshot vdi_mirror vdi_enable_cbt vdi_disable_cbt vdi_data_destroy vdi_list_changed_blocks vdi_set_on_boot"
    " pbd_create pbd_destroy",
    "vdi_operations": "clone copy resize resize_online snapshot mirror destroy forget update force_unlock generate_config"
    " enable_cbt disable_cbt data_destroy list_changed_blocks set_on_boot blocked",
    "vdi_type": "system user ephemeral suspend crashdump ha_statefile metadata redo_log rrd pvs_cache cbt_metadata",
    "on_boot": "persist reset",
    "vbd_operations": "attach eject insert plug unplug unplug_force pause unpause",
    "vbd_type": "Disk CD Floppy",
    "vbd_mode": "RW RO",
    "task_allowed_operations": "cancel destroy",
    "task_status_type": "pending success failure cancelling cancelled",
    "pool_allowed_operations": "ha_enable ha_disable designate_new_master",
    "telemetry_frequency": "weekly daily monthly",
    "update_sync_frequency": "weekly daily",
    "host_allowed_operations": "provision evacuate shutdown reboot power_on vm_start vm_resume vm_migrate",
    "host_display": "enabled disable_on_reboot disabled enable_on_reboot",
    "latest_synced_updates_applied_state": "unknown yes no",
    "host_numa_affinity_policy": "default_policy any best_effort",
    "update_guidances": "reboot_host restart_toolstack restart_device_model restart_vm",
    "vm_operations": "start clean_shutdown hard_shutdown destroy",
    "vm_power_state": "Halted Paused Running Suspended",
    "on_softreboot_behavior": "soft_reboot destroy restart preserve",
    "on_normal_exit": "restart destroy",
    "on_crash_behaviour": "restart destroy preserve",
    "domain_type": "unspecified hvm pv pv_in_pvh pvh",
    "sr_health": "healthy recovering",
}

TABLES = {
    "session": """
        ro string: uuid auth_user_sid auth_user_name originator
        ro host ref: this_host
        ro user ref: this_user
        ro datetime: last_active validation_time
        ro bool: pool is_local_superuser client_certificate
        rw (string -> string) map: other_config
        ro subject ref: subject
        new string set: rbac_permissions
        ro task ref set: tasks
        new session ref: parent
        """,
    "task": """
        ro string: uuid name_label name_description type result
        ro string = (): backtrace
        ro enum task_allowed_operations set: allowed_operations
        ro (string -> enum task_allowed_operations) map: current_operations
        ro datetime: created finished
        ro enum task_status_type: status
        ro host ref: resident_on
        ro float: progress
        ro string set: error_info
        rw (string -> string) map: other_config
        ro task ref: subtask_of
        ro task ref set: subtasks
        """,
    "SM": """
        ro string: uuid name_label name_description type vendor copyright version required_api_version driver_filename
        ro (string -> string) map: configuration
        ro string set: capabilities required_cluster_stack
        ro (string -> int) map: features
        rw (string -> string) map: other_config
        """,
    "SR": """
        ro string: uuid
        new string: name_label name_description type content_type
        ro enum storage_operations set: allowed_operations
        ro (string -> enum storage_operations) map: current_operations
        ro VDI ref set: VDIs
        ro PBD ref set: PBDs
        ro int: virtual_allocation physical_utilisation
        new int: physical_size
        ro bool: shared local_cache_enabled clustered is_tools_sr
        rw (string -> string) map: other_config sm_config
        rw string set: tags
        ro (string -> blob ref) map: blobs
        ro DR_task ref: introduced_by
        """,
    "PBD": """
        ro string: uuid
        new host ref: host
        new SR ref: SR
        new (string -> string) map: device_config
        ro bool: currently_attached
        rw (string -> string) map: other_config
        """,
    "VDI": """
        ro string: uuid location
        new string: name_label name_description
        ro enum vdi_operations set: allowed_operations
        ro (string -> enum vdi_operations) map: current_operations
        new SR ref: SR
        ro VBD ref set: VBDs
        ro crashdump ref set: crash_dumps
        new int: virtual_size
        ro int: physical_utilisation
        new enum vdi_type: type
        new bool: sharable read_only
        rw (string -> string) map: other_config xenstore_data sm_config
        ro bool: storage_lock managed missing is_a_snapshot allow_caching metadata_latest is_tools_iso cbt_enabled
        ro VDI ref: parent snapshot_of
        ro VDI ref set: snapshots
        ro datetime: snapshot_time
        rw string set: tags
        ro enum on_boot: on_boot
        ro pool ref: metadata_of_pool
        """,
    "VBD": """
        ro string: uuid status_detail
        ro enum vbd_operations set: allowed_operations
        ro (string -> enum vbd_operations) map: current_operations
        new VM ref: VM
        new VDI ref: VDI
        new string: device
        rw string: userdevice qos_algorithm_type
        rw bool: bootable
        new enum vbd_mode: mode
        rw enum vbd_type: type
        rw bool = true: unpluggable
        ro bool: storage_lock
        new bool: empty currently_attached
        rw (string -> string) map: other_config qos_algorithm_params
        ro int: status_code
        ro (string -> string) map: runtime_properties
        ro string set: qos_supported_algorithms
        ro VBD_metrics ref: metrics
        """,
    "secret": """
        ro string: uuid
        rw string: value
        rw (string -> string) map: other_config
        """,
    "pool": """
        ro string: uuid wlb_url wlb_username vswitch_controller ha_cluster_stack client_certificate_auth_name
        ro string: repository_proxy_url repository_proxy_username
        rw string: name_label name_description
        ro host ref: master
        rw SR ref: default_SR suspend_image_SR crash_dump_SR
        rw (string -> string) map: other_config gui_config health_check_config
        ro bool: ha_enabled ha_overcommitted redo_log_enabled igmp_snooping_enabled tls_verification_enabled
        ro bool: client_certificate_auth_enabled update_sync_enabled
        rw bool: ha_allow_overcommit wlb_enabled wlb_verify_cert policy_no_vendor_device live_patching_disabled
        rw bool: is_psr_pending migration_compression
        rw bool = true: coordinator_bias
        ro (string -> string) map: ha_configuration restrictions guest_agent_config cpu_info
        ro string set: ha_statefiles
        ro int: ha_host_failures_to_tolerate ha_plan_exists_for update_sync_day
        new int = 8: local_auth_max_threads
        new int = 1: ext_auth_max_threads
        ro (string -> blob ref) map: blobs
        rw string set: tags
        ro VDI ref: redo_log_vdi
        ro VDI ref set: metadata_VDIs
        ro enum pool_allowed_operations set: allowed_operations
        ro (string -> enum pool_allowed_operations) map: current_operations
        new string: uefi_certificates custom_uefi_certificates
        ro Repository ref set: repositories
        ro secret ref: repository_proxy_password telemetry_uuid
        ro enum telemetry_frequency: telemetry_frequency
        ro enum update_sync_frequency: update_sync_frequency
        ro datetime: telemetry_next_collection last_update_sync
        """,
    "host": """
        ro string: uuid API_version_vendor sched_policy external_auth_type external_auth_service_name edition power_on_mode
        ro string: last_update_hash
        rw string: name_label name_description hostname address
        ro int: memory_overhead API_version_major API_version_minor
        ro enum host_allowed_operations set: allowed_operations
        ro (string -> enum host_allowed_operations) map: current_operations
        ro (string -> string) map: API_version_vendor_implementation cpu_configuration cpu_info license_params
        ro (string -> string) map: external_auth_configuration bios_strings power_on_config chipset_info
        ro bool: enabled tls_verification_enabled https_only
        new bool: ssl_legacy multipathing
        new (string -> string) map: software_version
        rw (string -> string) map: other_config logging license_server guest_VCPUs_params
        new string set: capabilities
        ro string set: supported_bootloaders ha_statefiles ha_network_peers editions
        rw string set: tags
        ro VM ref set: resident_VMs
        ro PIF ref set: PIFs
        rw SR ref: suspend_image_sr crash_dump_sr
        new SR ref: local_cache_sr
        ro host_crashdump ref set: crashdumps
        ro host_patch ref set: patches
        ro pool_update ref set: updates updates_requiring_reboot
        ro PBD ref set: PBDs
        ro host_cpu ref set: host_CPUs
        ro host_metrics ref: metrics
        ro (string -> blob ref) map: blobs
        ro PCI ref set: PCIs
        ro PGPU ref set: PGPUs
        ro PUSB ref set: PUSBs
        rw enum host_display: display
        ro int set: virtual_hardware_platform_versions
        ro VM ref: control_domain
        ro Feature ref set: features
        new string: iscsi_iqn uefi_certificates
        ro Certificate ref set: certificates
        ro enum update_guidances set: pending_guidances pending_guidances_recommended pending_guidances_full
        ro datetime: last_software_update
        ro enum latest_synced_updates_applied_state: latest_synced_updates_applied
        ro enum host_numa_affinity_policy: numa_affinity_policy
        """,
    "VM": """
        ro string: uuid domarch transportable_snapshot_id snapshot_metadata
        rw string: name_label name_description PV_bootloader PV_kernel PV_ramdisk PV_args PV_bootloader_args
        rw string: PV_legacy_args PCI_bus recommendations
        new string: HVM_boot_policy last_booted_record ha_restart_priority reference_label
        new string = 0:0: generation_id
        ro enum vm_operations set: allowed_operations
        ro (string -> enum vm_operations) map: current_operations
        new enum vm_power_state: power_state
        rw int: user_version hardware_platform_version
        ro int: memory_overhead
        ro int = -1: domid
        new int: memory_target memory_static_max memory_dynamic_max memory_dynamic_min memory_static_min version
        new int: start_delay shutdown_delay order
        new int = 1: VCPUs_max VCPUs_at_startup
        rw bool: is_a_template
        ro bool: is_default_template is_control_domain is_a_snapshot requires_reboot
        new bool: ha_always_run is_snapshot_from_vmpp is_vmss_snapshot has_vendor_device
        new VDI ref: suspend_VDI
        ro host ref: resident_on scheduled_to_be_resident_on
        rw host ref: affinity
        rw (string -> string) map: VCPUs_params HVM_boot_params platform other_config xenstore_data
        rw enum on_softreboot_behavior: actions_after_softreboot
        rw enum on_normal_exit: actions_after_shutdown actions_after_reboot
        new enum on_crash_behaviour: actions_after_crash
        ro console ref set: consoles
        ro VIF ref set: VIFs
        ro VBD ref set: VBDs
        ro VUSB ref set: VUSBs
        ro crashdump ref set: crash_dumps
        ro VTPM ref set: VTPMs
        new float = 1: HVM_shadow_multiplier
        new (string -> string) map: last_boot_CPU_flags NVRAM
        ro VM_metrics ref: metrics
        ro VM_guest_metrics ref: guest_metrics
        ro VM ref: snapshot_of parent
        ro VM ref set: snapshots children
        ro datetime: snapshot_time
        ro (string -> blob ref) map: blobs
        rw string set: tags
        rw (enum vm_operations -> string) map: blocked_operations
        ro (string -> string) map: snapshot_info bios_strings
        new VMPP ref: protection_policy
        new VMSS ref: snapshot_schedule
        new VM_appliance ref: appliance
        ro VGPU ref set: VGPUs
        ro PCI ref set: attached_PCIs
        rw SR ref: suspend_SR
        new enum domain_type: domain_type
        ro enum update_guidances set: pending_guidances pending_guidances_recommended pending_guidances_full
        """,
}

# What the server keeps by itself: a field that refers -> the set of the other side. Fields of another name than their set's.
BACK = {
    ("PBD", "SR"): "PBDs",
    ("PBD", "host"): "PBDs",
    ("VDI", "SR"): "VDIs",
    ("VDI", "snapshot_of"): "snapshots",
    ("VBD", "VDI"): "VBDs",
    ("VBD", "VM"): "VBDs",
    ("VM", "resident_on"): "resident_VMs",
    ("task", "subtask_of"): "subtasks",
}


def _default(type: str, text: str) -> Any:
    if type == "int":
        return int(text or 0)
    if type == "bool":
        return text == "true"
    if type == "float":
        return Real(text or 0)
    if type == "datetime":
        return EPOCH
    if type.endswith(" set"):
        return []
    if type.endswith(" map"):
        return {}
    if type.endswith(" ref"):
        return NULL
    if type.startswith("enum "):
        return ENUMS[type.split()[1]].split()[0]
    return text


def _class(table: str) -> dict[str, Field]:
    fields = {}
    for line in table.strip().splitlines():
        head, _, names = line.strip().rpartition(": ")
        head, _, default = head.partition(" = ")
        qualifier, _, type = head.partition(" ")
        for name in names.split():
            fields[name] = Field(name, type, qualifier, _default(type, default))
    return fields


CLASSES: dict[str, dict[str, Field]] = {name: _class(table) for name, table in TABLES.items()}


def blank(cls: str) -> dict[str, Any]:
    """A record of ``cls`` with nothing but defaults."""
    return {name: copy.copy(field.default) for name, field in CLASSES[cls].items()}
