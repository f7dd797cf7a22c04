# shellcheck shell=bash
# Sourced by run and setup: where the lab lives in the cache, and how it reports trouble.

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trvmm-build

die() {
	printf 'lab: %s\n' "$*" >&2
	exit 125
}

# Nothing fails without a word.
trap 'die "internal error in line $LINENO of ${BASH_SOURCE[0]##*/}"' ERR

# The newest kernel package that was fetched; nothing when none was. A fetched package is kept until `setup --upgrade`,
# so that figures do not change because somebody ran apt-get update.
kernel_package() {
	local found
	found=$(printf '%s\n' "$cache"/linux-image-*.deb | sort -V | tail -n 1)
	[ -f "$found" ] && printf '%s\n' "$found"
}

# The folder of the lab that belongs to kernel package $1 and to these scripts.
lab_folder() {
	local digest
	digest=$({ basename "$1"; cat "$lab/init" "$lab/modules" "$lab/setup"; } | sha256sum)
	printf '%s/lab-%s\n' "$cache" "${digest:0:16}"
}

# The folder of the QEMU that was built by these scripts: see qemu/build.
qemu_folder() {
	local digest
	digest=$(cat "$lab/qemu/build" "$lab"/qemu/*.patch | sha256sum)
	printf '%s/qemu-%s\n' "$cache" "${digest:0:16}"
}
