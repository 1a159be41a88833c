#!/usr/bin/env bash
# Makes a cloud image as a distribution would, of this machine's own release and from its own mirror:
# cloud-init, openssh, systemd, the distribution's kernel with its initramfs, on a GPT disk that boots
# under UEFI (systemd-boot) and under BIOS (syslinux). No pando in it: tests import it. What costs a
# boot under translation much and shows nothing is left out.
#
# No root is needed where the distribution lets users have namespaces. Prints the path of the image,
# which is made once for each version of this script.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$ROOT/scripts/lib.sh"
# shellcheck source=scripts/needs.sh
. "$ROOT/scripts/needs.sh"

readonly CACHE="$ROOT/target/test-assets/cloud"
readonly IMAGE="$CACHE/cloud.qcow2" STAMP="$CACHE/cloud.stamp"
readonly MIB=1048576
readonly BOOT_MIB=192 ROOT_MIB=1600
# Partitions begin at whole MiB; the second GPT needs the last.
readonly BOOT_AT_MIB=1 ROOT_AT_MIB=$((1 + BOOT_MIB)) DISK_MIB=$((2 + BOOT_MIB + ROOT_MIB))
# The disk's drivers only: loading all that exist takes seconds.
# shellcheck disable=SC2016 # mmdebstrap expands it
readonly QUICK_INITRAMFS='cd "$1" && mkdir -p etc/initramfs-tools/conf.d usr/share/initramfs-tools/modules.d
  printf "MODULES=list\n" >etc/initramfs-tools/conf.d/test
  printf "%s\n" virtio_pci virtio_blk ext4 >usr/share/initramfs-tools/modules.d/test'
readonly KERNEL_OPTIONS='root=LABEL=root ro console=ttyS0 quiet'

# A user's PATH lacks the directories of the system's own programs on Debian.
PATH="$PATH:/usr/sbin:/sbin"

make_tree() {
  local tree=$1 kernel=linux-image-cloud-amd64 sources=$1.sources line
  local arguments=() confine=()
  [[ $OS_ID == debian ]] || kernel=linux-image-virtual
  sources_for_suite "$OS_VERSION_CODENAME" "$OS_VERSION_CODENAME" >"$sources"
  [[ -s $sources ]] || fail "no source of apt names the suite $OS_VERSION_CODENAME"
  while read -r line; do
    arguments+=(--aptopt="$line")
  done < <(apt-config dump | grep -E '^Acquire::https?::' || true)
  if [[ -d /usr/share/mmdebstrap/hooks/maybe-merged-usr ]]; then
    arguments+=(--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr)
  fi
  # Root's mounts and processes end with the script.
  if ((EUID == 0)) && unshare --mount-proc --pid --fork true 2>/dev/null; then
    confine=(unshare --mount-proc --pid --fork --kill-child)
  fi
  TMPDIR=$(dirname "$tree") "${confine[@]}" mmdebstrap --mode=auto --variant=minbase --format=tar \
    "${arguments[@]}" \
    --include="systemd-sysv,udev,dbus,openssh-server,cloud-init,cloud-guest-utils,fdisk" \
    --include="netplan.io,iproute2,e2fsprogs,$kernel,initramfs-tools,zstd,systemd-boot-efi" \
    --essential-hook="$QUICK_INITRAMFS" \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io \
    --dpkgopt=path-exclude='/usr/share/doc/*' \
    --dpkgopt=path-exclude='/usr/share/man/*' \
    --dpkgopt=path-exclude='/usr/share/locale/*' \
    "$OS_VERSION_CODENAME" "$tree" "$sources" >&2
}

# The modules of cloud-init that a data source on a disk has work for, and units that have none in a
# virtual machine.
thin_out() {
  local root=$1 unit
  cat >"$root/etc/cloud/cloud.cfg.d/10_test.cfg" <<'CONFIG'
datasource_list: [NoCloud, None]
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-vendor, scripts-user, final-message]
CONFIG
  for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer getty@tty1.service systemd-binfmt.service \
    cloud-init-hotplugd.socket sys-kernel-debug.mount sys-kernel-tracing.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
}

# Makes the root file system's partition, and takes out what boots. Runs under fakeroot, which knows
# the files' owners only as long as it runs.
fill_root() {
  local work=$1 disk=$2 root=$1/root
  mkdir "$root"
  tar -C "$root" -xf "$work/tree.tar" --exclude='./dev/*'
  # What makes each machine itself is made when it boots first.
  rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/var/lib/dbus/machine-id"
  : >"$root/etc/machine-id"
  : >"$root/etc/resolv.conf"
  thin_out "$root"
  printf 'LABEL=root / ext4 defaults 0 1\n' >"$root/etc/fstab"
  mkdir "$work/boot"
  mv "$root"/boot/vmlinuz-* "$work/boot/vmlinuz"
  mv "$root"/boot/initrd.img-* "$work/boot/initrd.img"
  cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$work/boot/"
  mkfs.ext4 -q -F -L root -d "$root" -E "offset=$((ROOT_AT_MIB * MIB))" "$disk" "${ROOT_MIB}M"
}

fill_boot() {
  local work=$1 disk=$2
  export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
  local partition="$disk@@$((BOOT_AT_MIB * MIB))" boot=$work/boot
  printf 'timeout 0\ndefault linux.conf\n' >"$boot/loader.conf"
  printf 'title Linux\nlinux /vmlinuz\ninitrd /initrd.img\noptions %s\n' "$KERNEL_OPTIONS" \
    >"$boot/linux.conf"
  printf 'DEFAULT linux\nLABEL linux\nLINUX /vmlinuz\nINITRD /initrd.img\nAPPEND %s\n' \
    "$KERNEL_OPTIONS" >"$boot/syslinux.cfg"
  mformat -i "$partition" -F -v ESP -H $((BOOT_AT_MIB * MIB / 512)) -T $((BOOT_MIB * MIB / 512)) ::
  mmd -i "$partition" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
  mcopy -i "$partition" "$boot/systemd-bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
  mcopy -i "$partition" "$boot/loader.conf" ::/loader/loader.conf
  mcopy -i "$partition" "$boot/linux.conf" ::/loader/entries/linux.conf
  mcopy -i "$partition" "$boot/syslinux.cfg" "$boot/vmlinuz" "$boot/initrd.img" ::/
  syslinux --install --offset $((BOOT_AT_MIB * MIB)) "$disk"
  dd if=/usr/lib/syslinux/mbr/gptmbr.bin of="$disk" conv=notrunc status=none
}

make_image() {
  local work=$1 disk=$1/disk.raw
  make_tree "$work/tree.tar"
  truncate -s "${DISK_MIB}M" "$disk"
  sfdisk -q "$disk" >&2 <<PARTITIONS
label: gpt
start=${BOOT_AT_MIB}MiB, size=${BOOT_MIB}MiB, type=U, attrs=LegacyBIOSBootable, name=boot
start=${ROOT_AT_MIB}MiB, size=${ROOT_MIB}MiB, type=L, name=root
PARTITIONS
  fakeroot -- "$0" --fill-root "$work" "$disk" >&2
  fill_boot "$work" "$disk" >&2
  qemu-img convert -f raw -O qcow2 "$disk" "$work/cloud.qcow2" >&2
  mv "$work/cloud.qcow2" "$IMAGE"
}

if [[ ${1:-} == --fill-root ]]; then
  fill_root "$2" "$3"
  exit
fi
mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9
made_of=$(sha256sum <"$0")
if [[ ! -e $IMAGE || $(cat "$STAMP" 2>/dev/null) != "$made_of" ]]; then
  read_distribution >&2
  find_missing run test
  ((${#MISSING[@]} == 0)) || fail "missing: ${MISSING[*]}" "./test installs it, or by hand:" \
    "$(explain_install)"
  WORK=$(mktemp -d "$CACHE/work.XXXXXX")
  # mmdebstrap works in it, as another user where it is not root.
  chmod 755 "$WORK"
  trap 'rm -rf "$WORK"' EXIT
  make_image "$WORK"
  printf '%s\n' "$made_of" >"$STAMP"
fi
printf '%s\n' "$IMAGE"
