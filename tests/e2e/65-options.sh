# What the agent does for a command, and a disk that nobody can write to.

# An image that has nothing but one program: the folders of mounts are not in it.
mkdir -p "$work/bare/bin" && tar -xOf build/guest/busybox.tar ./bin/busybox >"$work/bare/bin/busybox" && chmod 755 "$work/bare/bin/busybox"
printf 'FROM_FILE=a b\n# comment\nBOTH=file\nCALLER\n' >"$work/env"
CALLER=mine vm --layers "$work/bare" --read-only --tmpfs /tmp/deep/er:size=1M,mode=700 --env-file "$work/env" -e BOTH=option \
	--ulimit nofile=77:88 --ulimit core=0 -- busybox sh -c '
	echo "$FROM_FILE|$BOTH|$CALLER|$(ulimit -Sn)|$(ulimit -Hn)|$(ulimit -c)"
	busybox touch /new 2>&1; busybox mount -o remount,rw / 2>&1; busybox dd if=/dev/zero of=/dev/vda count=1 2>&1 | busybox head -n 1
	busybox stat -c "%a %n" /tmp/deep/er; busybox dd if=/dev/zero of=/tmp/deep/er/x bs=1M count=2 2>/dev/null || busybox wc -c </tmp/deep/er/x
	busybox awk "\$2 ~ /^.(proc|sys|dev|run|tmp)?\$/ { print \$2, substr(\$4, 1, 2) }" /proc/mounts; echo x >/tmp/y && echo x >/run/y && echo x >/dev/null && echo done'
check "variables of a file, limits" [ "$(head -n 1 "$work/out")" = "a b|option|mine|77|88|0" ]
check "--read-only: no file can be made" grep -q 'touch: /new: Read-only file system' "$work/out"
check "--read-only: the disk cannot be made writable" grep -qE 'mount: .*(write-protected|Read-only|Permission denied)' "$work/out"
check "--read-only: the device cannot be written to" grep -qE "dd: .*/dev/vda.*(Read-only|not permitted)|dd: can't open '/dev/vda'" "$work/out"
check "--tmpfs: made, with its mode and size" [ "$(grep -A1 '^700 ' "$work/out" | tr '\n' ' ')" = "700 /tmp/deep/er 1048576 " ]
check "--read-only: an image without folders for mounts" [ "$(grep -E '^/[a-z]* r[ow]$' "$work/out" | sort | tr '\n' ' ')" = \
	"/ ro /dev rw /proc rw /run rw /sys rw /tmp rw " ]
check "... and what is no disk can be written to" [ "$(tail -n 1 "$work/out")" = "done" ]

refuses "a tmpfs on a folder that is not there and cannot be made" 'make the folder of the tmpfs "/nowhere": Read-only file system' \
	--read-only --tmpfs /nowhere -- true
refuses "a limit above what the kernel takes" 'set the limits of resources: Operation not permitted' --ulimit nofile=99999999999 -- true
refuses "a bad line of --env-file" "line 2: blanks in the name 'b c'" --env-file <(printf 'a=1\nb c\n') -- true
refuses "a kept disk that is read-only" '--read-only with --rw-disk' --read-only --rw-disk "$work/kept" -- true
