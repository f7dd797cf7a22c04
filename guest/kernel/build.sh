#!/bin/bash
# build.sh OUTDIR [VARIANT]: put vmlinux (stripped), bzImage, kernel.config and System.map
# (for the addresses in a panic's trace) in OUTDIR; of a variant, vmlinux-VARIANT.
#
# The kernel is Debian's linux-source-6.1 with patches/, configured by trvmm.config, and
# that of a variant with patches-VARIANT/ and VARIANT.config besides. What was built
# is kept in the user's cache under a digest of everything that can change it, so
# a second clone or a cleaned build directory only copies. V=1 shows the build,
# JOBS=N sets its parallelism.
set -euo pipefail
export LC_ALL=C

package=linux-source-6.1
tarball=/usr/src/$package.tar.xz
packages=("$package" gcc make flex bison bc xz-utils libelf-dev binutils perl patch)

here=$(cd "$(dirname "$0")" && pwd)
variant=${2:-}
fragments=("$here/trvmm.config" ${variant:+"$here/$variant.config"})
patches=("$here"/patches/*.patch ${variant:+"$here/patches-$variant"/*.patch})
images=(vmlinux)
[ -n "$variant" ] || images+=(bzImage)

exec 3>&2 # stays the user's while the build writes to its log
say() { echo "kernel: $*" >&3; }
die() { say "$*"; exit 1; }

digest() {
    {
        cat "${fragments[@]}" "$here/build.sh" "$here/sort-jump-labels" "${patches[@]}"
        dpkg-query -W -f '${Version}\n' $package
        gcc --version | head -n 1
        ld --version | head -n 1
    } | sha256sum | cut -c 1-16
}

# Each line of the fragments must have reached the final configuration $1.
verify_config() {
    local line name bad=0
    while read -r line; do
        case $line in
        CONFIG_*=n) name=${line%=n} ;;
        CONFIG_*)
            grep -qxF -- "$line" "$1" && continue
            say "$line did not stick: $(grep -E "^(# )?${line%%=*}[ =]" "$1" ||
                echo 'no such option, or a dependency is missing')"
            bad=1
            continue ;;
        *) continue ;;
        esac
        grep -q "^$name=" "$1" || continue
        say "$name did not stay off: something selects it"
        bad=1
    done < <(cat "${fragments[@]}")
    return $bad
}

# Build in $1, leave the results in $1/result.
build() {
    local src=$1/$package result=$1/result
    say "building the guest kernel from $package, once; this takes some minutes"
    mkdir "$result"
    # Of the sources' 1.5 GB, what no configuration for x86 can reach stays packed.
    tar -xf $tarball -C "$1" --exclude="$package/arch/[!Kx]*.[chS]" --exclude="$package/arch/[!Kx]*.dts*" \
        --exclude="$package/Documentation/[!K]*" --exclude="$package/tools/testing/*" \
        --exclude="$package/tools/perf/*" --exclude="$package/drivers/gpu/*.[ch]" --exclude="$package/sound/*.[ch]"

    local change
    for change in "${patches[@]}"; do
        patch --quiet --fuzz=0 -p1 -d "$src" <"$change" || { say "$change does not apply"; return 1; }
    done

    # Nothing of the machine, the user, the caller or the hour may reach the image.
    local make=(nice env -i PATH="$PATH" LC_ALL=C KBUILD_BUILD_USER=trvmm KBUILD_BUILD_HOST=trvmm
        KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC'
        make -C "$src" -s -j"${JOBS:-$(nproc)}")
    [ "${V:-0}" = 1 ] && make+=(V=1)

    cat "${fragments[@]}" >"$1/fragment"
    "${make[@]}" KCONFIG_ALLCONFIG="$1/fragment" allnoconfig
    verify_config "$src/.config" || return 1
    "${make[@]}" "${images[@]}"
    # The program headers stay, and with them the PVH entry's note.
    objcopy --strip-all --remove-section=.comment "$src/vmlinux" "$result/vmlinux"
    "$here/sort-jump-labels" "$result/vmlinux" "$src/System.map"
    readelf -n "$result/vmlinux" | grep -q '^ *Xen' || { say "the PVH note is lost"; return 1; }
    [ -n "$variant" ] || cp "$src/arch/x86/boot/bzImage" "$result/bzImage"
    cp "$src/.config" "$result/kernel.config"
    cp "$src/System.map" "$result/System.map"
    chmod 644 "$result"/*
}

[ $# -eq 1 ] || { [ $# -eq 2 ] && [ -f "$here/$variant.config" ]; } || die "usage: build.sh OUTDIR [VARIANT]"
out=$1
"$here/../../scripts/need-packages" "${packages[@]}"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/trvmm-build
kept=$cache/kernel-$(digest)
mkdir -p "$cache" "$out"
if [ ! -d "$kept" ]; then
    exec 9>"$cache/kernel.lock"
    flock -n 9 || { say "waiting for another build"; flock 9; }
    if [ ! -d "$kept" ]; then
        rm -rf "$cache"/kernel.tmp.* # of builds that were killed
        tmp=$(mktemp -d "$cache/kernel.tmp.XXXXXX")
        trap 'rm -rf "$tmp"' EXIT
        log=$cache/kernel.log
        [ "${V:-0}" = 1 ] && log=/dev/stderr
        # Not `if build`: that would switch errexit off inside.
        set +e
        (set -e; build "$tmp") >"$log" 2>&1
        status=$?
        set -e
        if [ $status -ne 0 ]; then
            [ "${V:-0}" = 1 ] || tail -n 20 "$log" >&2
            die "the build failed; V=1 shows all of it"
        fi
        mv "$tmp/result" "$kept"
    fi
    flock -u 9
fi

if [ -n "$variant" ]; then
    files=(vmlinux)
else
    files=("${images[@]}" kernel.config System.map)
fi
for file in "${files[@]}"; do
    cp --reflink=auto "$kept/$file" "$out/.$file.$$"
    mv "$out/.$file.$$" "$out/$file${variant:+-$variant}"
done
