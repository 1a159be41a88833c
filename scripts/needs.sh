# shellcheck shell=bash
# What pando needs from the machine: finds what is missing, says why each thing is needed, and
# installs it from the distribution. Sourced after lib.sh.
#
# A need is looked for as a program or a file, not as a package, so that what was installed in
# another way counts.

readonly LEAST_QEMU=8.2
readonly LEAST_RUST=1.95
# Where apt is configured; scripts/selftest.sh has its own.
readonly APT_DIR=${APT_DIR:-/etc/apt}
readonly BACKPORTS_FILE=$APT_DIR/sources.list.d/pando-backports.sources

# class | what must be there | Debian and Ubuntu package | why
# Classes: build (compiling), run (machines, images), test (what only some machines use).
NEEDS=(
  "build|program:cc|gcc|links Rust programs and compiles SQLite"
  "build|file:/usr/include/stdlib.h|libc6-dev|the C library that programs are linked with"
  "build|file:/etc/ssl/certs/ca-certificates.crt|ca-certificates|fetching crates over TLS"
  "run|program:qemu-system-x86_64|qemu-system-x86|runs the virtual machines"
  "run|program:qemu-img|qemu-utils|converts and checks disk images"
  "run|file:/usr/share/OVMF/OVMF_CODE*.fd|ovmf|UEFI firmware for imported cloud images"
  "run|program:mmdebstrap|mmdebstrap|assembles the default image from packages, without root"
  "run|program:fakeroot|fakeroot|keeps the owners of an image's files, without root"
  "run|program:mkfs.ext4|e2fsprogs|makes an image's file system"
  "run|program:depmod|kmod|lists an image's kernel modules"
  "run|program:mount|mount|gives an image being assembled its /proc"
  "run|program:setpriv|util-linux|ties helper programs to pando's life"
  "run|program:xz|xz-utils|unpacks kernels and modules"
  "run|program:zstd|zstd|unpacks kernels and modules"
  "run|program:ssh|openssh-client|pando ssh"
  "test|program:passt|passt|connects machines to the outside, where they are to have an uplink"
  "test|program:npm|npm|fetches the programs of others that check the MCP server"
  "test|file:/usr/lib/python3.*/ensurepip|python3-venv|holds the protocol's Python client"
  "test|program:ip|iproute2|makes the networks that tests use"
  "test|program:nft|nftables|filters bridges, for networks that the kernel carries"
  "test|program:sfdisk|fdisk|partitions the cloud image that tests import"
  "test|program:mcopy|mtools|fills that image's boot partition, without root"
  "test|program:syslinux|syslinux|boots that image under BIOS"
  "test|file:/usr/lib/syslinux/mbr/gptmbr.bin|syslinux-common|begins that boot"
)
# Root maps no user ids. (fakechroot, which mmdebstrap could do with, cannot install systemd.)
if ((EUID != 0)); then
  NEEDS+=("run|program:newuidmap|uidmap|user namespaces, in which images are assembled without root")
fi

# Filled by find_missing: packages, and for each the reason.
MISSING=()
REASONS=()
# The suite that QEMU must come from, if not the plain one, and whether it must be added first.
QEMU_SUITE=''
QEMU_SUITE_IS_NEW=''

find_program() {
  # A user's PATH lacks the directories of the system's own programs on Debian.
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1"
}

is_there() {
  local kind=${1%%:*} what=${1#*:} path
  if [[ $kind == program ]]; then
    find_program "$what" >/dev/null
    return
  fi
  # The pattern is meant to be expanded.
  # shellcheck disable=SC2086
  for path in $what; do
    [[ -e $path ]] && return 0
  done
  return 1
}

# Whether version $1 is at least $2, each of the form N.N….
at_least() {
  [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

read_distribution() {
  # shellcheck source=/dev/null
  . <(sed -n -E 's/^(ID|VERSION_ID|VERSION_CODENAME|PRETTY_NAME)=/OS_\1=/p' /etc/os-release 2>/dev/null)
  OS_ID=${OS_ID:-unknown}
  OS_VERSION_ID=${OS_VERSION_ID:-}
  OS_VERSION_CODENAME=${OS_VERSION_CODENAME:-}
  OS_PRETTY_NAME=${OS_PRETTY_NAME:-an unknown system}
  case $OS_ID-$OS_VERSION_ID in
    debian-12 | ubuntu-24.04) ;;
    *) note "$OS_PRETTY_NAME is untested: pando is tried on Debian 12 and Ubuntu 24.04" ;;
  esac
  if [[ $(uname -m) != x86_64 ]]; then
    fail "this machine is $(uname -m)" "pando runs on x86_64 only for now"
  fi
}

qemu_version() {
  qemu-system-x86_64 --version 2>/dev/null | sed -n -E '1s/^.* version ([0-9]+(\.[0-9]+)*).*/\1/p'
}

# Fills MISSING and REASONS with what the classes given need.
find_missing() {
  local row class what package why found
  MISSING=()
  REASONS=()
  for row in "${NEEDS[@]}"; do
    IFS='|' read -r class what package why <<<"$row"
    [[ " $* " == *" $class "* ]] || continue
    if ! is_there "$what"; then
      MISSING+=("$package")
      REASONS+=("$why")
    elif [[ $package == qemu-system-x86 ]]; then
      found=$(qemu_version)
      if ! at_least "${found:-0}" "$LEAST_QEMU"; then
        MISSING+=("$package")
        REASONS+=("$why; ${found:-an unknown version} is there, $LEAST_QEMU or newer is needed")
      fi
    fi
  done
  if [[ " ${MISSING[*]} " == *" qemu-"* ]]; then
    choose_qemu_suite
  fi
}

# Prints the stanzas of this machine's apt sources that name the suite $1, as they would read for
# the suite $2: same mirror, same key, same options.
sources_for_suite() {
  local suite=$1 wanted=$2 file
  for file in "$APT_DIR/sources.list" "$APT_DIR"/sources.list.d/*.list; do
    [[ -r $file ]] || continue
    awk -v suite="$suite" -v wanted="$wanted" '
      $1 == "deb" {
        options = ""; first = 2
        if ($2 ~ /^\[/) {
          while (first <= NF) {
            options = options " " $first
            if ($(first++) ~ /\]$/) break
          }
          gsub(/[][]/, "", options)
        }
        if ($(first + 1) != suite || $first ~ /^cdrom:/) next
        print "Types: deb\nURIs: " $first "\nSuites: " wanted
        components = ""
        for (i = first + 2; i <= NF && $i !~ /^#/; i++) components = components " " $i
        print "Components:" components
        count = split(options, pairs, " ")
        for (i = 1; i <= count; i++) {
          name = pairs[i]; sub(/=.*/, "", name)
          value = pairs[i]; sub(/^[^=]*=/, "", value)
          if (name == "signed-by") print "Signed-By: " value
          else if (name == "arch") print "Architectures: " value
          else if (name == "trusted") print "Trusted: " value
          else if (name == "check-valid-until") print "Check-Valid-Until: " value
        }
        print ""
      }' "$file"
  done
  for file in "$APT_DIR"/sources.list.d/*.sources; do
    [[ -r $file ]] || continue
    awk -v suite="$suite" -v wanted="$wanted" '
      BEGIN { RS = ""; FS = "\n" }
      {
        kept = ""; name = ""; binary = 0; named = 0; off = 0
        for (i = 1; i <= NF; i++) {
          if ($i ~ /^#/) continue
          if ($i !~ /^[ \t]/) { name = tolower($i); sub(/[ \t]*:.*/, "", name) }
          value = $i; if ($i !~ /^[ \t]/) sub(/^[^:]*:/, "", value)
          count = split(value, words, /[ \t]+/)
          for (j = 1; j <= count; j++) {
            if (name == "suites" && words[j] == suite) named = 1
            if (name == "types" && words[j] == "deb") binary = 1
            if (name == "enabled" && tolower(words[j]) == "no") off = 1
            if (name == "uris" && words[j] ~ /^cdrom:/) off = 1
          }
          if (name != "suites" && name != "types" && name != "enabled") kept = kept $i "\n"
        }
        if (named && binary && !off) printf "Types: deb\nSuites: %s\n%s\n", wanted, kept
      }' "$file"
  done
}

# Decides where a QEMU that is new enough comes from.
choose_qemu_suite() {
  local candidate
  command -v apt-get >/dev/null || return 0
  candidate=$(apt-cache policy qemu-system-x86 2>/dev/null |
    sed -n -E 's/^ *Candidate: ([0-9]+:)?([0-9]+(\.[0-9]+)*).*/\2/p')
  if [[ $candidate ]] && at_least "$candidate" "$LEAST_QEMU"; then
    # An installed backport is a candidate as well, and its companions must be of the same version.
    if [[ $OS_ID-$OS_VERSION_CODENAME != debian-bookworm ]]; then
      return 0
    fi
  fi
  if [[ $OS_ID-$OS_VERSION_CODENAME == debian-bookworm ]]; then
    QEMU_SUITE=bookworm-backports
    if [[ -z $(sources_for_suite "$QEMU_SUITE" "$QEMU_SUITE") ]]; then
      QEMU_SUITE_IS_NEW=yes
    fi
    return 0
  fi
  # Without package lists nothing is known until they are fetched; apt will tell.
  if [[ -z $candidate ]]; then
    return 0
  fi
  fail "$OS_PRETTY_NAME offers QEMU $candidate only, and pando needs $LEAST_QEMU or newer" \
    "use Debian 12 or Ubuntu 24.04 or newer, or put a newer qemu-system-x86_64 on your PATH"
}

list_missing() {
  local i
  for i in "${!MISSING[@]}"; do
    printf '  %s%-18s%s %s\n' "$BOLD" "${MISSING[i]}" "$PLAIN" "${REASONS[i]}"
  done
  if [[ $QEMU_SUITE_IS_NEW ]]; then
    say "  This release's own QEMU is too old. A newer one is in $QEMU_SUITE, a suite that must be"
    say "  added to apt first, on the mirror and with the key that this machine already uses."
  fi
}

# Prints what a person would type to install what is missing.
explain_install() {
  local packages=("${MISSING[@]}") sudo=''
  ((EUID == 0)) || sudo='sudo '
  if [[ $QEMU_SUITE_IS_NEW ]]; then
    say "  # $BACKPORTS_FILE:"
    sources_for_suite "$OS_VERSION_CODENAME" "$QEMU_SUITE" | sed '/^$/d; s/^/  #   /'
  fi
  say "  ${sudo}apt-get update"
  if [[ $QEMU_SUITE ]]; then
    mapfile -t packages < <(other_packages)
    say "  ${sudo}apt-get install -t $QEMU_SUITE qemu-system-x86 qemu-utils"
  fi
  if ((${#packages[@]} > 0)); then
    say "  ${sudo}apt-get install --no-install-recommends ${packages[*]}"
  fi
}

other_packages() {
  printf '%s\n' "${MISSING[@]}" | grep -v '^qemu-' || true
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  else
    sudo -n -- "$@"
  fi
}

# Makes sure that as_root will not ask for a password while its output goes to a log.
get_root() {
  ((EUID == 0)) && return 0
  command -v sudo >/dev/null ||
    fail "installing packages needs root, and there is no sudo" "as root, run:" "$(explain_install)"
  sudo -n true 2>/dev/null && return 0
  if [[ $ANSWER == none || ! -t 0 ]]; then
    fail "installing packages needs root, and sudo would ask for a password" \
      "run this first:" "$(explain_install)"
  fi
  sudo -v || fail "sudo refused" "as root, run:" "$(explain_install)"
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get -y -o DPkg::Lock::Timeout=300 "$@"
}

add_qemu_suite() {
  local text
  text=$(sources_for_suite "$OS_VERSION_CODENAME" "$QEMU_SUITE")
  if [[ -z $text ]]; then
    fail "no source of apt names the suite $OS_VERSION_CODENAME, so its mirror is not known" \
      "add $QEMU_SUITE to /etc/apt/sources.list.d yourself and run this again"
  fi
  printf '# Added by pando for a QEMU that is new enough; apt prefers other suites to it.\n%s\n' \
    "$text" | as_root tee "$BACKPORTS_FILE" >/dev/null
}

update_lists() {
  apt_get update && return 0
  # Everything else on this machine must go on working.
  if [[ $QEMU_SUITE_IS_NEW ]]; then
    as_root rm -f "$BACKPORTS_FILE"
  fi
  return 1
}

install_others() {
  apt_get install --no-install-recommends "${others[@]}"
}

install_qemu() {
  # Both at once: their versions must be equal, and the other may be there already in an older one.
  apt_get install --no-install-recommends ${QEMU_SUITE:+-t "$QEMU_SUITE"} \
    qemu-system-x86 qemu-utils
}

# Installs what find_missing found for the classes given, after asking as ANSWER says.
install_missing() {
  local others
  ((${#MISSING[@]} > 0)) || return 0
  command -v apt-get >/dev/null ||
    fail "there is no apt-get here to install these with" \
      "install the programs above with your system's package manager and run this again"
  confirm "Install these ${#MISSING[@]} packages?" ||
    fail "nothing was installed" "to let this script install them: $0 --yes" "or by hand:" \
      "$(explain_install)"
  get_root
  if [[ $QEMU_SUITE_IS_NEW ]]; then
    confirm "Add the suite $QEMU_SUITE to apt ($BACKPORTS_FILE)?" ||
      fail "nothing was installed" "by hand:" "$(explain_install)"
    add_qemu_suite
  fi
  run_stage "reading package lists" \
    "check that this machine reaches its mirror: apt-get update" update_lists
  mapfile -t others < <(other_packages)
  if ((${#others[@]} > 0)); then
    run_stage "installing ${others[*]}" \
      "if packages are not found, enable this distribution's full set (Ubuntu: universe)" \
      install_others
  fi
  if [[ " ${MISSING[*]} " == *" qemu-"* ]]; then
    run_stage "installing QEMU${QEMU_SUITE:+ from $QEMU_SUITE}" \
      "see what apt says above; a held or pinned qemu package is the usual reason" install_qemu
  fi
  # A mirror may offer less than is needed; this is where that shows.
  find_missing "$@"
  if ((${#MISSING[@]} > 0)); then
    list_missing
    fail "these are still missing after apt installed what it has"
  fi
}

# Makes cargo callable. Sets RUST_VERSION, or RUST_PROBLEM and RUST_REMEDY.
find_rust() {
  RUST_PROBLEM='' RUST_REMEDY=''
  if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  RUST_VERSION=$(rustc --version 2>/dev/null | sed -n -E 's/^rustc ([0-9]+(\.[0-9]+)*).*/\1/p') || true
  if command -v cargo >/dev/null && at_least "${RUST_VERSION:-0}" "$LEAST_RUST"; then
    return 0
  fi
  RUST_PROBLEM="Rust ${RUST_VERSION:+$RUST_VERSION is there, but }$LEAST_RUST or newer is needed"
  if command -v rustup >/dev/null; then
    RUST_REMEDY='rustup update stable && rustup default stable'
  elif command -v apt-cache >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
    RUST_REMEDY='sudo apt-get install rustup && rustup default stable'
  else
    RUST_REMEDY="install Rust $LEAST_RUST or newer with rustup, as the Rust project's web site shows"
  fi
}

require_rust() {
  find_rust
  if [[ $RUST_PROBLEM ]]; then
    fail "$RUST_PROBLEM" "$RUST_REMEDY" "then run this again, in a new shell if cargo is new"
  fi
}

check_disk_space() {
  local free_gib
  free_gib=$(df -Pk "$1" | awk 'NR == 2 { printf "%d", $4 / 1048576 }')
  if ((free_gib < $2)); then
    note "only $free_gib GiB are free for $1; building and running takes about $2"
  fi
}
