# Bad input: one line that names the thing, 125, no guest started, nothing left behind.

printf 'this is no kernel' >"$work/text"
: >"$work/empty"
mkdir "$work/directory"
head -c 100000 build/guest/bzImage >"$work/short-bzImage"
head -c 100000 build/guest/vmlinux >"$work/short-vmlinux"
cp build/guest/bzImage "$work/corrupt-bzImage"
dd if=/dev/zero of="$work/corrupt-bzImage" bs=4096 seek=100 count=4 conv=notrunc 2>/dev/null
# e_machine is at 18.
cp build/guest/vmlinux "$work/arm64-vmlinux"
printf '\267\000' | dd of="$work/arm64-vmlinux" bs=1 seek=18 conv=notrunc 2>/dev/null
head -c 1000000 build/guest/busybox.tar >"$work/short.tar"
gzip -c build/guest/busybox.tar | head -c 300000 >"$work/short.tar.gz"
gzip -c build/guest/busybox.tar >"$work/corrupt.tar.gz"
dd if=/dev/zero of="$work/corrupt.tar.gz" bs=1000 seek=200 count=4 conv=notrunc 2>/dev/null
head -c 100000 /dev/urandom >"$work/noise.tar"
cp build/guest/busybox.tar "$work/corrupt.tar"
printf 'XXXX' | dd of="$work/corrupt.tar" bs=1 seek=120 conv=notrunc 2>/dev/null

refuses "a file that is no kernel" "kernel '$work/text'.*no kernel" --kernel "$work/text" -- true
refuses "an empty kernel" "kernel '$work/empty'.*no kernel" --kernel "$work/empty" -- true
refuses "a missing kernel" "kernel '/no/such'.*No such file" --kernel /no/such -- true
refuses "a directory as kernel" "kernel '$work/directory'.*directory" --kernel "$work/directory" -- true
refuses "a kernel for another architecture" "kernel '.*ARM64" --kernel "$work/arm64-vmlinux" -- true
refuses "a truncated vmlinux" "kernel '.*truncated" --kernel "$work/short-vmlinux" -- true
refuses "a truncated bzImage" "kernel '.*truncated" --kernel "$work/short-bzImage" -- true
refuses "a corrupt bzImage" "kernel '.*corrupt" --kernel "$work/corrupt-bzImage" -- true
refuses "a missing layer" "layer .*/no/such.*no such file" --layers /no/such -- true
refuses "--add of a missing file" "--add /no/such: there is no such file" --add /no/such:/x -- true
refuses "--add without a path in the guest" "--add '/etc/passwd': give HOST:GUEST" --add /etc/passwd -- true
refuses "--add to a relative path" "--add '/etc/passwd:x': .*slash" --add /etc/passwd:x -- true
refuses "--add to a path with .." "--add '/etc/passwd:/x/../y': .*'\.\.'" --add /etc/passwd:/x/../y -- true
refuses "--add of a directory over a file" "--add $work/directory: .*no directory" --add "$work/directory:/bin/busybox" -- true
refuses "an unreadable layer" "layer " --layers /proc/self/mem -- true
refuses "a layer that is no archive" "layer .*text" --layers "$work/text" -- true
refuses "an empty layer file" "layer .*empty" --layers "$work/empty" -- true
refuses "noise as a layer" "layer .*noise.tar" --layers "$work/noise.tar" -- true
refuses "a truncated tar" "layer .*short.tar.*truncated" --layers "$work/short.tar" -- true
refuses "a corrupt tar" "layer .*corrupt.tar" --layers "$work/corrupt.tar" -- true
refuses "a truncated tar.gz" "layer .*short.tar.gz" --layers "$work/short.tar.gz" -- true
refuses "a corrupt tar.gz" "layer .*corrupt.tar.gz" --layers "$work/corrupt.tar.gz" -- true
refuses "--memory 1M" "--memory '1M'.*at least" --memory 1M -- true
refuses "--memory 1T" "--memory '1T'.*host has" --memory 1T -- true
refuses "--memory nonsense" "--memory 'lots'" --memory lots -- true
refuses "--cpus 0" "--cpus '0'.*1 to 8" --cpus 0 -- true
refuses "--cpus 9" "--cpus '9'.*1 to 8" --cpus 9 -- true
refuses "an unknown option" "'--frobnicate'.*--help" --frobnicate -- true
refuses "an option without its value" "'--kernel'.*value" --kernel
refuses "no command" "no command" --memory 64M
refuses "an empty command" "command is empty" -- ''
refuses "an empty layer name" "--layers" --layers "a,,b" -- true
refuses "a disk that is too small" "disk|size" --disk-size 1M -- true

# A kernel that dies or hangs at boot: its last console lines and 125.
vm --append 'root=/dev/nonexistent' -- true
check "a guest that panics: 125" [ $status = 125 ]
check "... with its last console lines" grep -q 'console: .*panic' "$work/err"
debian_kernel=$(find "${XDG_CACHE_HOME:-$HOME/.cache}"/trvmm-build/lab-*/vmlinux 2>/dev/null | head -n 1)
if [ -n "$debian_kernel" ]; then
	refuses "a kernel that has its drivers as modules" "kernel lacks CONFIG_VIRTIO_MMIO; build it in" \
		--kernel "$debian_kernel" --memory 512M -- true
else
	echo "skip - a kernel that has its drivers as modules: the lab's kernel was not found"
fi
vm --boot-timeout 3 --append 'init=/bin/sleep' -- true
check "a guest that does not start: 125" [ $status = 125 ]
# A kernel whose vsock driver knows no device: the driver's table { VIRTIO_ID_VSOCK, any vendor } gets another number.
perl -0777 -pe '$n = s/\x13\0\0\0\xff\xff\xff\xff\0{8}/\x63\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0/g; END { exit($n == 1 ? 0 : 1) }' \
	build/guest/vmlinux >"$work/no-vsock" || not_ok "making a kernel without a vsock driver"
vm --kernel "$work/no-vsock" -- true
check "a guest without vsock: 125" [ $status = 125 ]
check "... and one line that says so" grep -q 'vsock' "$work/err"
exits "doctor: this host can run guests" 0 doctor
chmod 600 /dev/kvm
refuses_user() {
	setpriv --reuid 12345 --regid 12345 --clear-groups "$trvmm" -- true >"$work/out" 2>"$work/err"
	[ $? = 125 ] && grep -q 'permission.*usermod -aG' "$work/err"
}
check "no permission on /dev/kvm names the group" refuses_user
chmod 666 /dev/kvm
mv /dev/kvm /dev/kvm.away
refuses "a host without /dev/kvm" "no usable /dev/kvm" -- true
exits "doctor: no /dev/kvm" 1 doctor
mv /dev/kvm.away /dev/kvm
as_user() { (umask 077; cp "$trvmm" /tmp/trvmm-user; mkdir -p /tmp/guest-user; cp build/guest/vmlinux build/guest/busybox.tar /tmp/guest-user
	chmod 755 /tmp/trvmm-user /tmp/guest-user; chmod 644 /tmp/guest-user/*)
	TRVMM_DATA=/tmp/guest-user HOME=/nonexistent setpriv --reuid 12345 --regid 12345 --clear-groups timeout 100 /tmp/trvmm-user -- id -u >"$work/out" 2>"$work/err"
	[ $? = 0 ] && [ "$(cat "$work/out")" = 0 ]; }
check "an ordinary user needs only /dev/kvm" as_user
