#!/bin/sh
# Run by mmdebstrap when the packages are in: makes a whole computer's system of the tree $1, and leaves beside this script a
# file system of it, its kernel, and what that starts with. The kernel's package is there, too, taken apart.
#
# All of its start is translated, so what a start does not need is left out: most modules, devices, units and generators,
# Debian's own initrd, and what cloud-init does for other clouds.
set -eu
here=$(dirname "$0")
root=$1
units=$root/etc/systemd/system
kernel=$(basename "$here"/kernel/lib/modules/*)

# The modules for what QEMU has on it, and no others.
modules=$root/lib/modules/$kernel
early="virtio_pci virtio_blk"
late="virtio_net virtio_console virtio_balloon virtio-rng button evdev isofs nls_utf8 nls_iso8859-1"
# The kernel asks for this one when files of the host are mounted.
asked="virtiofs"
needed() {
    for module in "$@"; do chroot "$root" modprobe -S "$kernel" --show-depends "$module"; done |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}
mkdir -p "$modules"
cp -r "$here/kernel/lib/modules/$kernel/." "$modules"
chroot "$root" depmod "$kernel"
needed $early >"$here/early"
needed $early $late $asked | sed "s,^,$root," >"$here/all"
find "$modules" -name '*.ko' | grep -vxFf "$here/all" | xargs rm
chroot "$root" depmod "$kernel"
printf '%s\n' $late >"$root/etc/modules-load.d/stead.conf"

# What the kernel starts with finds the root, and hands over.
initrd=$root/tmp/initrd
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/root" "$initrd/modules"
cp "$root/bin/busybox" "$initrd/bin"
while read -r module; do
    cp "$root$module" "$initrd/modules"
    basename "$module" >>"$initrd/modules/order"
done <"$here/early"
cat >"$initrd/init" <<'END'
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t devtmpfs dev /dev
while read -r module; do $busybox insmod "/modules/$module"; done </modules/order
until disk=$($busybox findfs LABEL=root); do $busybox usleep 20000; done
$busybox mount -t ext4 "$disk" /root
exec $busybox switch_root /root /sbin/init
END
chmod 755 "$initrd/init"
chroot "$root" sh -c 'cd /tmp/initrd && find . | busybox cpio -o -H newc | gzip -1' >"$here/initrd.img"
rm -r "$initrd"
cp "$here"/kernel/boot/vmlinuz-* "$here/vmlinuz"
cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$here/boot.efi"

# cloud-init is there as in images for clouds, with one source of data, and its first two stages: what is written, who
# is to log in, names, addresses, the disk's room.
cat >"$root/etc/cloud/cloud.cfg.d/91-stead.cfg" <<'END'
datasource_list: [NoCloud]
cloud_init_modules: [growpart, resizefs, set_hostname, update_hostname, users-groups, write-files]
END
ln -s /lib/systemd/system/cloud-init.target "$units/multi-user.target.wants/cloud-init.target"
rm "$units"/cloud-init.target.wants/cloud-config.service "$units"/cloud-init.target.wants/cloud-final.service \
    "$units"/cloud-init.target.wants/cloud-init-hotplugd.socket

# Nothing that goes by the clock disturbs what is tested.
rm -f "$units"/timers.target.wants/* "$units"/getty.target.wants/* "$units/sysinit.target.wants/systemd-pstore.service"
mkdir -p "$units/systemd-udev-trigger.service.d" "$root/etc/systemd/system-generators" \
    "$root/etc/systemd/system.conf.d" "$root/etc/systemd/journald.conf.d"
for generator in "$root"/lib/systemd/system-generators/*; do
    name=$(basename "$generator")
    case $name in
    systemd-fstab-generator | systemd-getty-generator) ;;
    *) ln -s /dev/null "$root/etc/systemd/system-generators/$name" ;;
    esac
done
for unit in dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount \
    kmod-static-nodes.service modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service \
    modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service systemd-binfmt.service \
    systemd-journal-flush.service systemd-random-seed.service systemd-sysctl.service systemd-sysusers.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-tmpfiles-clean.timer \
    systemd-ask-password-console.path systemd-ask-password-wall.path e2scrub_reap.service; do
    ln -sf /dev/null "$units/$unit"
done
cat >"$units/systemd-udev-trigger.service.d/stead.conf" <<'END'
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=block --subsystem-match=net --subsystem-match=virtio-ports --subsystem-match=input
ExecStart=udevadm trigger --action=add --subsystem-match=tty --sysname-match=ttyS0
END
ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/systemd-networkd.service"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
printf '[Manager]\nDefaultTimeoutStartSec=10min\nDefaultDeviceTimeoutSec=10min\n' \
    >"$root/etc/systemd/system.conf.d/stead.conf"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/stead.conf"
echo "LABEL=root / ext4 errors=remount-ro 0 0" >"$root/etc/fstab"

rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/doc "$root"/usr/share/man \
    "$root"/usr/share/locale
mkdir -p "$root/var/lib/apt/lists" "$root/var/cache/apt"
# The tree without what is mounted in it.
mkdir "$here/plain"
mount --bind "$root" "$here/plain"
mkfs.ext4 -q -F -m 0 -L root -d "$here/plain" "$here/root.ext4" 400M >/dev/null
umount "$here/plain"
