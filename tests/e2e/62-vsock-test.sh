# The Linux kernel's own test of vsock (tools/testing/vsock) against the device, in one machine. tests/vsock-test/shim.c lets its host side meet
# the Unix sockets of --vsock. Its control connection is TCP: into the guest by -p, out of it by the command's standard input and output.
vsock_test_names() {
	LD_PRELOAD=$VSOCK_TEST/shim.so "$VSOCK_TEST/vsock_test" --list | sed -n 's/^\([0-9]*\)\t/\1 /p'
}
vsock_test_host() { # log, arguments
	local log=$1
	shift
	LD_PRELOAD=$VSOCK_TEST/shim.so VSOCK_UNIX=$work/vsock timeout 120 "$VSOCK_TEST/vsock_test" --peer-cid=3 "$@" >"$log" 2>&1 </dev/null
}
wait_for() { # file, text
	for _ in $(seq 600); do
		grep -q -- "$2" "$1" 2>/dev/null && return
		sleep 0.1
	done
	return 1
}
# Both sides stop at the first test that fails: what follows has no line, and is not ok.
vsock_test_report() { # name, log of the host, log of the guest, a skipped number and its reason...
	local name=$1 host=$2 guest=$3 number test reason
	shift 3
	vsock_test_names | while read -r number test; do
		reason=$(for skipped; do [ "${skipped%% *}" != "$number" ] || echo "${skipped#* }"; done)
		if [ "$reason" ]; then
			echo "skip - vsock_test, $name: $test: $reason"
		elif grep -qxF "$number - $test...ok" "$host" && grep -qxF "$number - $test...ok" "$guest"; then
			ok "vsock_test, $name: $test"
		else
			not_ok "vsock_test, $name: $test" "host: $(tail -n 3 "$host")" "guest: $(tail -n 3 "$guest")"
		fi
	done
}
eor='6 Unix sockets do not carry MSG_EOR, which this test looks for'
lowat='10 poll() on Unix sockets does not know SO_RCVLOWAT: the test would be one of the host'\''s kernel'

if [ -z "$VSOCK_TEST" ]; then
	echo "skip - vsock_test: it could not be built"
else
	mkfifo "$work/to-guest" "$work/from-guest"
	# Both ends of both, so that nobody waits for a partner.
	exec 8<>"$work/to-guest" 9<>"$work/from-guest"
	timeout 300 "$trvmm" --vsock "$work/vsock" -p 1234:1234 --add "$VSOCK_TEST/vsock_test-guest:/bin/vsock_test" -- sh -c '
		vsock_test --mode=server --control-port=1234 --peer-cid=2 --skip=6 --skip=10 >/served 2>&1 &
		while ! grep -q listening /served; do sleep 0.1; done
		echo serving >&2
		wait
		echo served >&2
		exec 3<&0
		nc -l -p 1235 <&3 & sleep 1 # what runs in the background would have /dev/null there
		vsock_test --mode=client --control-host=127.0.0.1 --control-port=1235 --peer-cid=2 --skip=6 >/called 2>&1
		cat /served >&2; echo "--" >&2; cat /called >&2' <&8 >&9 2>"$work/guest" &
	machine=$!
	wait_for "$work/guest" serving
	vsock_test_host "$work/host-calls" --mode=client --control-host=127.0.0.1 --control-port=1234 --skip=6 --skip=10
	wait_for "$work/guest" served
	vsock_test_host "$work/host-serves" --mode=server --control-host=127.0.0.1 --control-port=1236 --skip=6 &
	host=$!
	wait_for "$work/host-serves" listening
	socat -t 60 TCP:127.0.0.1:1236 - <"$work/from-guest" >"$work/to-guest" &
	wait $host
	wait $machine
	exec 8>&- 9>&-
	sed '/^--$/,$d' "$work/guest" >"$work/guest-serves"
	sed '1,/^--$/d' "$work/guest" >"$work/guest-calls"
	vsock_test_report "the guest serves" "$work/host-calls" "$work/guest-serves" "$eor" "$lowat"
	vsock_test_report "the host serves" "$work/host-serves" "$work/guest-calls" "$eor"
fi
