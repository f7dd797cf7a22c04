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

# The image's own init as process 1, which shuts the machine down in the end; a limit of processes, for the command but not for the init.
vm --init --pids-limit 6 -- sh -c 'readlink /proc/1/exe; echo $PPID; sed -n "s/^PPid:.//p" /proc/$PPID/status; cat /proc/self/cgroup /proc/1/cgroup
	(sleep 0.2 &); sleep 0.5; grep -l "^State:.Z" /proc/[0-9]*/status
	for i in 1 2 3 4 5 6 7 8; do sleep 20 & done; echo not reached'
check "--init: it is process 1, the command's parent is the agent, its child" [ "$(sed -n '1p;3p' "$work/out" | tr '\n' ' ')" = "/bin/busybox 1 " ]
check "--init: orphans are reaped" [ "$(grep -c /proc/ "$work/out")" = 0 ]
check "--pids-limit: the command's group, not process 1's" [ "$(grep '^0::' "$work/out" | tr '\n' ' ')" = "0::/trvmm 0::/ " ]
check "--pids-limit: one more is an error" [ "$status $(cat "$work/out" "$work/err" | grep -c "can't fork: Resource temporarily unavailable")" = "2 1" ]
exits "--init: a machine that its init shuts down ends the command by SIGTERM" 143 --init -- sh -c 'poweroff; sleep 60'
refuses "an init that is not there" 'init "/no/such" is not in the image' --init=/no/such -- true

refuses "a tmpfs on a folder that is not there and cannot be made" 'make the folder of the tmpfs "/nowhere": Read-only file system' \
	--read-only --tmpfs /nowhere -- true
refuses "a limit above what the kernel takes" 'set the limits of resources: Operation not permitted' --ulimit nofile=99999999999 -- true
refuses "a bad line of --env-file" "line 2: blanks in the name 'b c'" --env-file <(printf 'a=1\nb c\n') -- true
refuses "a kept disk that is read-only" '--read-only with --rw-disk' --read-only --rw-disk "$work/kept" -- true

# trvmm cp, with one machine.
export XDG_RUNTIME_DIR=$work/runtime
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
on() {
	timeout 60 "$trvmm" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
said() { [ "$status $(tr '\n' ' ' <"$work/out")" = "$1 " ]; }
listing() { (cd "$1" && find . -printf '%P %y %m %U %G %T@ %n %l\n' | sort); }
mkdir -p "$work/tree/sub/empty" && head -c 3000000 /dev/urandom >"$work/tree/big" && echo text >"$work/tree/sub/file" &&
	ln "$work/tree/big" "$work/tree/sub/twin" && ln -s ../big "$work/tree/sub/link" && ln -s /etc/passwd "$work/tree/absolute" &&
	chmod 640 "$work/tree/sub/file" && chown 12:34 "$work/tree/sub/file" && chmod 1777 "$work/tree/sub/empty" &&
	truncate -s 50M "$work/tree/sparse" && echo end >>"$work/tree/sparse" &&
	touch -h -d '1999-12-31 23:59:59.123456789Z' "$work/tree/sub/file" "$work/tree/sub/link" "$work/tree/sub"
vm -d --name box --user 1000 --pids-limit 30 --ulimit nofile=55:66 -- sleep 1000
on exec box sh -c 'cat /proc/self/cgroup; ulimit -Sn; ulimit -Hn; id -u'
check "exec: in the group of --pids-limit, with the limits and the user of the machine" said "0 0::/trvmm 55 66 1000"
on cp "$work/tree" box:/srv
check "cp: a tree into a machine" [ "$status $(cat "$work/err")" = "0 " ]
on exec -u 0 box sh -c 'cat /srv/sub/link | wc -c; stat -c "%a %u:%g" /srv/sub/file; [ /srv/big -ef /srv/sub/twin ] && echo linked
	stat -c %s /srv/sparse; [ $(du -k /srv/sparse | cut -f 1) -lt 100 ] && echo sparse'
check "... with its attributes and links" [ "$(tr '\n' ' ' <"$work/out")" = "3000000 640 12:34 linked 52428804 sparse " ]
on cp box:/srv "$work/back"
check "cp: a tree out of a machine" [ "$status $(cat "$work/err")" = "0 " ]
check "... is what went in" [ "$(listing "$work/tree")" = "$(listing "$work/back")" ]
check "... holes, too" [ "$(stat -c %s "$work/back/sparse") $(($(du -k "$work/back/sparse" | cut -f 1) < 100))" = "52428804 1" ]
check "... byte by byte" diff -r --no-dereference "$work/tree" "$work/back"
on cp box:/srv/sub/file "$work/back/"
check "cp: a file into a directory" cmp -s "$work/tree/sub/file" "$work/back/file"
on cp "$work/tree/sub/file" box:/tmp/renamed
on cp box:/tmp/renamed "$work/renamed"
check "cp: a file by another name" cmp -s "$work/tree/sub/file" "$work/renamed"
on cp box:/no/such "$work/x"
check "cp: what is not there: 125 and one line" [ "$status $(wc -l <"$work/err") $(grep -c 'open: No such file' "$work/err")" = "125 1 1" ]
on cp "$work/tree" box:/no/such/folder
check "cp: a folder that is not there: 125 and one line" [ "$status $(wc -l <"$work/err") $(grep -c 'No such file' "$work/err")" = "125 1 1" ]
on cp box:/dev/null "$work/node"
check "cp: no device node without --archive" [ "$status $(grep -c 'give --archive' "$work/err")" = "125 1" ]
on cp "$work/tree" nobody:/srv
check "cp: no such machine" [ "$status $(wc -l <"$work/err")" = "125 1" ]
on cp "$work/tree" "$work/x"
check "cp: no machine at all" [ "$status $(wc -l <"$work/err")" = "125 1" ]
# A guest whose copier is not ours.
on exec -u 0 box sh -c 'rm /.trvmm-copy && printf "#!/bin/sh\nyes bad | head -c 100000\n" >/.trvmm-copy && chmod 755 /.trvmm-copy'
on cp box:/srv "$work/hostile"
check "cp: a guest that lies: 125, one line, nothing made" [ "$status $(wc -l <"$work/err") $(ls -d "$work/hostile" 2>/dev/null)" = "125 1 " ]
on rm box
check "rm: not what runs" [ "$status $(grep -c 'is running; end it first' "$work/err")" = "125 1" ]
on rm -f box
check "rm -f: ends it first" [ "$status $(ls "$XDG_RUNTIME_DIR/trvmm")" = "0 " ]
unset XDG_RUNTIME_DIR
