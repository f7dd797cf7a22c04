# Shares: -v and --root. What programs expect of a file system is in fs-check.c; here it runs in guests, on shares of several kinds.

fs_check=$PWD/build/tests/fs-check
# A file system of the host that keeps users' xattrs: what is at /tmp may not.
host=$work/host
mkdir "$host" && truncate -s 8G "$work/host.img" && mke2fs -q -F -t ext4 "$work/host.img" && mount -o loop "$work/host.img" "$host" ||
	not_ok "an ext4 file system for the shares"
share=$host/share
mkdir -p "$share/sub" "$host/nested" "$work/tools" && cp "$fs_check" "$work/tools/"
echo hello >"$share/file" && echo inner >"$host/nested/inner" && echo 'one line' >"$host/one.conf"
chown 12:34 "$share/file" && ln -s /etc/passwd "$share/absolute" && ln -s ../../../etc/passwd "$share/climbs"
expect_lines() { # name, lines that have to be in $work/out, in this order
	check "$1" [ "$(tr '\n' '|' <"$work/out")" = "$2" ]
}

vm -v "$share:/mnt/deep/share" -v "$host/nested:/mnt/deep/share/sub/nested:ro" -v "$host/one.conf:/etc/one.conf:ro" -v "$work/tools:/tools:ro" -- sh -c '
	cat /mnt/deep/share/file /mnt/deep/share/sub/nested/inner /etc/one.conf; stat -c "%u:%g" /mnt/deep/share/file
	echo x 2>/dev/null >/mnt/deep/share/sub/nested/x || echo refused; echo x 2>/dev/null >/etc/one.conf || echo refused
	readlink /mnt/deep/share/climbs; wc -l </mnt/deep/share/absolute; wc -l </etc/passwd
	cd /mnt/deep/share && echo made >made && mkdir -p a/b && mv made a/b/moved && ln a/b/moved a/twin && chown 77:88 a/twin && chmod 4755 a/twin
	mknod dev c 1 3 && mkfifo fifo && ls -l /run/.trvmm-share 2>/dev/null'
passwd=$(sed -n 8p "$work/out")
expect_lines "a directory, one in another, and a file" "hello|inner|one line|12:34|refused|refused|../../../etc/passwd|$passwd|$passwd|"
check "... what the guest made is on the host, with its owner" [ "$(stat -c '%u:%g %h' "$share/a/twin") $(cat "$share/a/b/moved")" = "77:88 2 made" ]
check "... no device node was made on the host" [ "$(find "$share" \( -type b -o -type c \) | wc -l)" = 0 ]
check "... nor any file beside the shares" [ "$(ls "$host/nested") $(cat "$host/one.conf")" = "inner one line" ]
rm -rf "$share" && mkdir -p "$share"

vm --memory 512M -v "$share:/s" -v "$work/tools:/tools:ro" -- sh -c 'mkdir /s/d && /tools/fs-check semantics /s/d; for seed in 1 2 3; do /tools/fs-check random /s $seed 1000; done
	/tools/fs-check walk /s/d 3000; /tools/fs-check leave /s >/tmp/left & until grep -q ok /tmp/left; do sleep 0.1; done'
results "a share"
check "what a process had mapped when the command ended is on the host" [ "$(tr -d L <"$share/left" | wc -c) $(stat -c %s "$share/left")" = "0 1048576" ]
check "a share: all of fs-check ran" [ "$status $(grep -cE '^ok (random|walk)' "$work/out")" = "0 4" ]
mkdir "$host/private"
vm --memory 512M -v "$host/private:/s:cache=always,writeback" -v "$work/tools:/tools:ro" -- sh -c '/tools/fs-check random /s 4 1000
	cp /s/random-4 /tmp/r && md5sum </tmp/r; dd if=/dev/urandom of=/s/late bs=64k count=40 2>/dev/null; md5sum </s/late'
results "write-back"
check "write-back: what was written last is on the host" [ "$(grep -E '^[0-9a-f]{32}' "$work/out" | tr '\n' ' ')" = "$(cat "$host/private/random-4" | md5sum) $(md5sum <"$host/private/late") " ]
vm -v "$host/private:/s:cache=none" -v "$work/tools:/tools:ro" -- /tools/fs-check random /s 5 500
check "no cache: random operations" [ "$(cat "$work/out")" = "ok random" ]

# Files of the host mapped into the guest, of which the host cuts one off while a program there uses it.
mkdir "$host/mapped" && perl -e 'print pack("C x4095", $_ % 251) for 0 .. 1279' >"$host/mapped/big"
asked() { # the name of what the guest waits for
	local i
	for ((i = 0; i < 1000; i++)); do
		[ ! -e "$host/mapped/$1" ] || return 0
		sleep 0.1
	done
	return 1
}
(
	asked cut && printf H | dd of="$host/mapped/big" bs=1 seek=5 conv=notrunc status=none && truncate -s 1M "$host/mapped/big" && rm "$host/mapped/cut" &&
		asked regrow && truncate -s 5M "$host/mapped/big" && rm "$host/mapped/regrow"
) &
asked=$!
vm -v "$host/mapped:/s:dax" -v "$work/tools:/tools:ro" -- sh -c '/tools/fs-check shrink /s; /tools/fs-check random /s 6 300; grep -o "dax=[a-z]*" /proc/mounts'
kill $asked 2>/dev/null
results "dax"
check "dax: a file that shrinks under its mapping is an error in the guest, which lives" [ "$status $(grep -c '^ok' "$work/out") $(tail -n 1 "$work/out")" = "0 5 dax=always" ]
check "... and what the guest wrote is on the host" [ "$(od -An -tx1 -N8 "$host/mapped/big") $(tail -c +3145729 "$host/mapped/big" | head -c 1)" = \
	" 00 47 00 00 00 48 00 00 x" ]

# Host and guest, and two guests, on one tree.
export XDG_RUNTIME_DIR=$work/runtime
mkdir -p -m 700 "$XDG_RUNTIME_DIR" "$share/both"
on() {
	timeout 60 "$trvmm" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
vm -d --name first -v "$share/both:/s" -- sleep 1000
vm -d --name second -v "$share/both:/s" -- sleep 1000
echo 1 >"$share/both/from-host"
on exec first sh -c 'cat /s/from-host; echo first >/s/from-first'
on exec second sh -c 'cat /s/from-host /s/from-first; echo 2 >/s/from-host'
check "two guests and the host see one another's files" [ "$(tr '\n' ' ' <"$work/out") $(cat "$share/both/from-host")" = "1 first  2" ]
echo 'longer than before' >"$share/both/from-host"
sleep 1.2
on exec first cat /s/from-host
check "... and what the host changes, after a second" [ "$(cat "$work/out")" = 'longer than before' ]
for name in first second; do
	"$trvmm" exec $name sh -c "i=0; while [ \$i -lt 100 ]; do echo $name \$i >>/s/log; i=\$((i + 1)); done" >/dev/null 2>&1 &
	writers+=($!)
done
wait "${writers[@]}"
check "... and lines that both append" [ "$(grep -cE '^(first|second) [0-9]+$' "$share/both/log") $(wc -l <"$share/both/log")" = "200 200" ]
on stats first
check "stats counts requests to shares" grep -qE '^requests to shares +[1-9]' "$work/out"
mv "$share/both" "$share/away"
on exec second sh -c 'cat /s/from-first && echo x >/s/after'
check "a share that is moved is still there" [ "$status $(cat "$share/away/after")" = "0 x" ]
rm -rf "$share/away"
on exec second sh -c 'echo x >/s/new; echo alive'
check "a share that is removed: errors in the guest, which lives" [ "$(cat "$work/out")" = alive ]
for name in first second; do on kill $name; on rm $name; done
unset XDG_RUNTIME_DIR

# A disk that fills up.
mkdir "$work/small" && mount -t tmpfs -o size=1m tmpfs "$work/small"
vm -v "$work/small:/s" -- sh -c 'dd if=/dev/zero of=/s/x bs=64k count=40 2>&1 | grep -o "No space left on device"; rm /s/x && echo ok >/s/y && cat /s/y'
expect_lines "a full host disk is ENOSPC, and the guest goes on" "No space left on device|ok|"
umount "$work/small"

# An ordinary user of the host.
mkdir -m 777 "$host/user" /tmp/trvmm-user-guest && chmod 711 "$work" && cp "$trvmm" /tmp/trvmm-user-guest/trvmm && chmod 755 /tmp/trvmm-user-guest/trvmm &&
	cp build/guest/vmlinux build/guest/busybox.tar /tmp/trvmm-user-guest/ && chmod 644 /tmp/trvmm-user-guest/{vmlinux,busybox.tar}
TRVMM_DATA=/tmp/trvmm-user-guest HOME=/nonexistent setpriv --reuid 12345 --regid 12345 --clear-groups timeout 100 /tmp/trvmm-user-guest/trvmm \
	-v "$host/user:/s" -- sh -c 'echo x >/s/file; chown 5:6 /s/file; mkdir /s/dir; stat -c %u /s/file; cat /s/file' >"$work/out" 2>"$work/err"
check "an ordinary user: files on the host are this user's" [ "$(stat -c %u "$host/user/file" "$host/user/dir" | tr '\n' ' ')" = "12345 12345 " ]
check "an ordinary user: the guest can use them" [ "$(tail -n 1 "$work/out")" = x ]
rm -rf /tmp/trvmm-user-guest

# A directory of the host as the root.
mkdir "$host/root" && tar -C "$host/root" -xf build/guest/busybox.tar && mkdir -p "$host/root"/{dev,proc,sys,run,tmp}
vm --root "$host/root" -- sh -c 'echo written >/root-file; awk "\$2 == \"/\" { print \$3, substr(\$4, 1, 2) }" /proc/mounts; id -u; ls -A / | grep -c trvmm'
expect_lines "--root: the root is the directory" "virtiofs rw|0|0|"
check "... and what is written there stays" [ "$(cat "$host/root/root-file") $(ls -A "$host/root" | grep -c trvmm)" = "written 0" ]
vm --root "$host/root" --read-only -v "$share:/tmp/s" -- sh -c 'echo x 2>/dev/null >/new || echo refused; rm -f /root-file 2>/dev/null || echo refused; cat /root-file'
expect_lines "--root --read-only" "refused|refused|written|"
export XDG_RUNTIME_DIR=$work/runtime
vm -d --name rooted --root "$host/root" -- sleep 1000
timeout 60 "$trvmm" cp rooted:/root-file "$work/copied" 2>"$work/err"
timeout 60 "$trvmm" cp "$work/copied" rooted:/copied 2>>"$work/err"
check "--root: trvmm cp both ways" [ "$(cat "$work/copied" "$host/root/copied" "$work/err" | tr '\n' ' ')" = "written written " ]
timeout 60 "$trvmm" rm -f rooted 2>"$work/err"
unset XDG_RUNTIME_DIR

# What cannot be.
refuses "a share that is not there" "/no/such" -v /no/such:/x -- true
refuses "a share without a place" "-v '/etc'.*HOST:GUEST" -v /etc -- true
refuses "two shares at one place" "/mnt" -v "$share:/mnt" -v "$host/nested:/mnt/" -- true
refuses "a share on a file" 'the share at "/etc/passwd": this is a file in the guest' -v "$share:/etc/passwd" -- true
refuses "a file on a folder" 'the share at "/etc": this is a folder in the guest' -v "$host/one.conf:/etc" -- true
refuses "a share in a root that is read-only" 'make the mount point of a share "/nowhere": Read-only file system' --read-only -v "$share:/nowhere" -- true
refuses "--root with layers" "--root with --layers" --root "$host/root" --layers build/guest/busybox.tar -- true
refuses "--root that is no directory" "--root" --root "$host/one.conf" -- true
vm -v /:/host -- sh -c '[ -d /host/proc ] && echo there'
check "-v /:/host is allowed, with a warning" [ "$(cat "$work/out") $(grep -c 'every file of this host' "$work/err")" = "there 1" ]
umount "$host" && rm -f "$work/host.img"
