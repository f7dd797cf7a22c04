# A distribution's own kernel, whose drivers are modules.
if [ -z "${DEBIAN_KERNEL:-}" ]; then
	echo "skip - a kernel with modules: Debian's kernel package could not be fetched"
	return 0
fi
vmlinuz=$(echo "$DEBIAN_KERNEL"/boot/vmlinuz-*)
modules=$(echo "$DEBIAN_KERNEL"/lib/modules/*)
vm --kernel "$vmlinuz" --modules "$modules" -- sh -c 'uname -r; touch /new && echo written; ls -d /modules /plan /init 2>/dev/null; echo err >&2; exit 7'
check "Debian's kernel with --modules: the command's output and status" [ "$status $(tr '\n' ' ' <"$work/out")$(cat "$work/err")" = \
	"7 ${modules##*/} written err" ]
mkdir "$work/shared" && echo shared >"$work/shared/file"
vm --kernel "$vmlinuz" --modules "$modules" --boot pvh --read-only --cpus 2 -v "$work/shared:/home" -- sh -c 'nproc; cat /home/file; touch /new'
check "... by PVH, read-only, with two processors and a share" [ "$status $(tr '\n' ' ' <"$work/out")" = "1 2 shared " ]

refuses "modules that are not there" "modules '/nowhere': No such file" --kernel "$vmlinuz" --modules /nowhere -- true
refuses "a directory without modules" "modules '/etc': there is no modules.dep" --kernel "$vmlinuz" --modules /etc -- true
refuses "--modules without --kernel" "--modules without --kernel" --modules "$modules" -- true
mkdir "$work/modules" && cp -r "$modules/." "$work/modules/"
sed -i '/virtio_blk/d' "$work/modules/modules.dep"
refuses "modules without a driver" "there is no virtio_blk, which drives the root disk" --kernel "$vmlinuz" --modules "$work/modules" -- true
cp "$modules/modules.dep" "$work/modules/"
find "$work/modules" -name 'virtio_ring.ko' -exec sed -i "s/vermagic=${modules##*/}/vermagic=6.1.0-99-amd64/" {} +
refuses "modules of another kernel" "are of kernel 6.1.0-99-amd64, but --kernel is ${modules##*/}; give /lib/modules/${modules##*/}" \
	--kernel "$vmlinuz" --modules "$work/modules" -- true
