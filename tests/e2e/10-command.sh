# The command: status, streams, arguments, environment, signals.

exits "exit status 0" 0 -- /bin/true
exits "exit status 7" 7 -- /bin/sh -c 'exit 7'
exits "a command that is not found: 127" 127 -- no-such-command
check "... is named" grep -q "no-such-command" "$work/err"
exits "a command that cannot be executed: 126" 126 -- /etc/passwd
exits "death by TERM: 143" 143 -- /bin/sh -c 'kill -TERM $$'
exits "death by KILL: 137" 137 -- /bin/sh -c 'kill -KILL $$'

vm -- /bin/sh -c 'echo out; echo err >&2; exit 7'
check "stdout holds just stdout" [ "$(cat "$work/out")" = out ]
check "stderr holds just stderr" [ "$(cat "$work/err")" = err ]

vm -- /bin/sh -c 'head -c 1000000 /dev/zero | tr "\0" o; head -c 1000000 /dev/zero | tr "\0" e >&2'
check "1 MB on stdout, none of the other" [ "$(tr -d o <"$work/out" | wc -c) $(wc -c <"$work/out")" = "0 1000000" ]
check "1 MB on stderr, none of the other" [ "$(tr -d e <"$work/err" | wc -c) $(wc -c <"$work/err")" = "0 1000000" ]

openssl enc -aes-128-ctr -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 16777216 >"$work/random"
wanted=$(sha256sum <"$work/random")
check "16 MB through a pipe in" [ "$(cat "$work/random" | timeout 100 "$trvmm" -- sha256sum | cat)" = "$wanted" ]
check "16 MB from a file in" [ "$(timeout 100 "$trvmm" -- sha256sum <"$work/random")" = "$wanted" ]
check "16 MB in and out through pipes" [ "$(cat "$work/random" | timeout 100 "$trvmm" -- cat | sha256sum)" = "$wanted" ]
timeout 100 "$trvmm" -- cat <"$work/random" >"$work/out"
check "16 MB in and out through files" cmp -s "$work/random" "$work/out"
check "end of stdin reaches the command" [ "$(printf 'one\ntwo\n' | timeout 100 "$trvmm" -- wc -l | tr -d ' ')" = 2 ]
check "stdin that the command ignores does no harm" timeout 100 "$trvmm" -- /bin/true <"$work/random"

for closed in 0 1 2; do
	eval "timeout 100 \"\$trvmm\" -- sh -c 'cat >/dev/null; exit 9' $closed>&-"
	check "descriptor $closed closed by the caller does no harm" [ $? = 9 ]
done
timeout 100 "$trvmm" -t -- true <"$work/random" >"$work/out" 2>"$work/err"
check "-t without a terminal: 125" [ $? = 125 ]
script -qec "stty rows 33 cols 101; '$trvmm' -t -- sh -c 'stty size; test -t 0 && test -t 1 && test -t 2 && echo terminal; exit 5'" \
	/dev/null </dev/null >"$work/out" 2>&1
check "-t gives a terminal with the size of ours, and the status" [ "$? $(tr -d '\r\0' <"$work/out" | grep -cE '^(33 101|terminal)$|33 101$')" = "5 2" ]
timeout 100 "$trvmm" -- sh -c 'yes' 2>/dev/null | head -n 1 >"$work/out"
check "a reader that goes away ends the command" [ "${PIPESTATUS[0]}" != 124 ]

vm -- /bin/sh -c 'printf "%s|" "$@"' sh 'a b' '' "it's" $'new\nline' '$HOME' '*'
check "arguments arrive exactly" [ "$(cat "$work/out")" = "a b||it's|"$'new\nline|$HOME|*|' ]
CALLER_VALUE='from the caller' vm --env A=1 --env 'B=two words' --env CALLER_VALUE --env A=3 -- env
check "the environment as asked" [ "$(grep -E '^(A|B|CALLER_VALUE)=' "$work/out" | sort | tr '\n' ';')" = \
	"A=3;B=two words;CALLER_VALUE=from the caller;" ]
check "PATH and HOME have defaults" [ "$(grep -cE '^(PATH=.*/bin|HOME=/root)' "$work/out")" = 2 ]
vm --workdir /usr/bin -- pwd
check "the working directory" [ "$(cat "$work/out")" = /usr/bin ]
vm --user nobody -- id -u
check "a user by name" [ "$(cat "$work/out")" = "$(sed -n 's/^nobody:[^:]*:\([0-9]*\).*/\1/p' <(tar xOf build/guest/busybox.tar ./etc/passwd 2>/dev/null || tar xOf build/guest/busybox.tar etc/passwd))" ]
vm --user 1234:5678 -- sh -c 'id -u; id -g'
check "a user and group by number" [ "$(tr '\n' ' ' <"$work/out")" = "1234 5678 " ]
vm --hostname box.example -- hostname
check "the host name" [ "$(cat "$work/out")" = box.example ]

vm -- sh -c 'cat /proc/mounts | cut -d" " -f2'
for mount in /proc /sys /dev /dev/pts /dev/shm /run /tmp; do
	check "$mount is mounted" grep -qx "$mount" "$work/out"
done
vm -- sh -c 'echo x >/dev/shm/a && echo y >/tmp/b && echo z >/root/c && cat /dev/shm/a /tmp/b /root/c; ls -l /dev/fd/ >/dev/null && echo fd'
check "one can write everywhere" [ "$(tr '\n' ' ' <"$work/out")" = "x y z fd " ]
vm -- sh -c 'echo to-stderr >/dev/stderr; echo to-stdout >/dev/stdout'
check "/dev/stdout and /dev/stderr can be opened" [ "$(cat "$work/out") $(cat "$work/err")" = "to-stdout to-stderr" ]

vm --cpus 2 -- grep -c ^processor /proc/cpuinfo
check "2 CPUs are seen by the guest" [ "$(cat "$work/out")" = 2 ]
vm --cpus 8 -- sh -c 'grep -c ^processor /proc/cpuinfo; nproc'
check "8 CPUs are seen by the guest" [ "$(tr '\n' ' ' <"$work/out")" = "8 8 " ]
vm --memory 1G -- sh -c 'grep MemTotal /proc/meminfo'
check "1 GiB of memory is seen by the guest" [ "$(awk '{print ($2 > 950000 && $2 <= 1048576)}' "$work/out")" = 1 ]

# Signals: the first reaches the command, a second interrupt ends the VM.
signalled() { # signal name, shell program
	timeout 100 "$trvmm" -- sh -c "$2" >"$work/out" 2>"$work/err" </dev/null &
	local timer=$! pid
	for _ in $(seq 300); do
		grep -q ready "$work/out" && break
		sleep 0.1
	done
	pid=$(pgrep -P $timer)
	kill "-$1" "$pid"
	shift 2
	for extra; do
		sleep 1
		kill "-$extra" "$pid" 2>/dev/null
	done
	wait $timer
	status=$?
}
signalled TERM 'trap "echo got TERM; exit 3" TERM; echo ready; while :; do sleep 1; done'
check "SIGTERM reaches the command" [ "$status $(tail -n 1 "$work/out")" = "3 got TERM" ]
signalled INT 'trap "echo got INT; exit 4" INT; echo ready; while :; do sleep 1; done'
check "SIGINT reaches the command" [ "$status $(tail -n 1 "$work/out")" = "4 got INT" ]
signalled INT 'trap "" INT TERM; echo ready; while :; do :; done' INT
check "a second SIGINT ends the VM" [ "$status" = 130 ]
signalled TERM 'echo ready; exec sleep 1000'
check "SIGTERM kills a command without a handler" [ "$status" = 143 ]

exits "a guest that ends by itself: 125" 125 -- reboot -f
exits "--timeout ends the command" 124 --timeout 3 -- sleep 1000
