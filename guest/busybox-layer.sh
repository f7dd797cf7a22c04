#!/bin/bash
# busybox-layer.sh OUT.tar: a container layer with Debian's static busybox.
#
# It is what trvmm runs when it is given no layers. The tar depends on nothing but
# the busybox binary: sorted names, time 0, root's, ustar. Needs no root.
set -euo pipefail
export LC_ALL=C
umask 022

die() { echo "busybox-layer: $*" >&2; exit 1; }

[ $# -eq 1 ] || die "usage: busybox-layer.sh OUT.tar"
out=$1
busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ! dpkg-query -W busybox-static >/dev/null 2>&1; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "busybox-static is missing; run: sudo apt-get install busybox-static"
    fi
    apt-get -o DPkg::Lock::Timeout=300 install -y busybox-static >/dev/null ||
        die "could not install busybox-static"
    busybox=$(command -v busybox)
fi

mkdir -p "$(dirname "$out")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "$out.$$"' EXIT
root=$tmp/root

mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,root,tmp,proc,sys,dev,run,var,home}
chmod 755 "$root" "$root"/* "$root"/usr/*
chmod 700 "$root/root"
chmod 1777 "$root/tmp"
install -m 755 "$busybox" "$root/bin/busybox"

# linuxrc is for initial ramdisks; the agent is this root's process 1.
busybox --list-full | while read -r applet; do
    case $applet in
    bin/busybox | linuxrc) ;;
    *) ln -s /bin/busybox "$root/$applet" ;;
    esac
done

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
END
cat >"$root/etc/group" <<'END'
root:x:0:
tty:x:5:
nogroup:x:65534:
END
cat >"$root/etc/profile" <<'END'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PS1='\w \$ '
END
chmod 644 "$root"/etc/*

tar -C "$root" --format=ustar --sort=name --mtime=@0 --owner=root:0 --group=root:0 --numeric-owner \
    -cf "$out.$$" .
mv "$out.$$" "$out"
