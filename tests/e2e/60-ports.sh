# TCP ports that lead into the guest, --vsock and trvmm proxy: one machine for all, since each start takes seconds here.

openssl enc -aes-128-ctr -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 16777216 >"$work/big"
head -c 100000 "$work/big" >"$work/small"
socket=$work/vsock
was_reset() { [ "$1" = 55 ] || [ "$1" = 56 ]; } # curl noticed when it sent, or when it received
digest() { sha256sum | cut -d ' ' -f 1; }
become_ready() {
	for _ in $(seq 600); do
		grep -q ready "$work/out" && return
		sleep 0.1
	done
	return 1
}

timeout 300 "$trvmm" --vsock "$socket" -p 8080:80 -p 127.0.0.1:8007:7 -p '[::1]:8009:9' -p 8066:66 --add "$work/small:/www/small" \
	-- sh -c 'httpd -p 127.0.0.1:80 -h /www; nc -ll -p 7 -e cat & nc -ll -p 9 -e sh -c "sha256sum | cut -c 1-64" & sleep 1; echo ready; wait' \
	</dev/null >"$work/out" 2>"$work/err" &
machine=$!
check "-p: the machine starts" become_ready
check "... with one line and no other word" [ "$(cat "$work/out" "$work/err")" = ready ]

check "-p: curl fetches a file of the guest's httpd" [ "$(curl -sS http://127.0.0.1:8080/small | digest)" = "$(digest <"$work/small")" ]
mkdir "$work/parts"
curl -sS --parallel --parallel-immediate --parallel-max 64 -o "$work/parts/#1" 'http://127.0.0.1:8080/small?[1-64]' 2>"$work/curl"
check "-p: 64 at once" [ "$? $(sha256sum "$work"/parts/* | grep -c "^$(digest <"$work/small")")" = "0 64" ]
check "-p: half close: the answer comes behind the client's end" \
	[ "$(socat -t 60 - 'TCP6:[::1]:8009' <"$work/small")" = "$(digest <"$work/small")" ]
timeout 120 socat -t 60 - TCP:127.0.0.1:8007 <"$work/big" >"$work/back"
check "-p: 16 MiB there and back at once" cmp -s "$work/big" "$work/back"
curl -sS http://127.0.0.1:8066/ >"$work/curl" 2>&1
check "-p: nobody listens in the guest: a reset" was_reset $?
other=$work/vsock2
timeout 60 "$trvmm" --vsock "$other" -p 8080:80 -- true >"$work/refused" 2>&1
check "-p: a port in use: 125, one line, nothing left" \
	[ "$? $(grep -c "TCP 127.0.0.1:8080: Address already in use; choose another port" "$work/refused") $(wc -l <"$work/refused")" = "125 1 1" ]
check "... nothing left" [ ! -e "$other" ]
timeout 60 "$trvmm" --vsock "$socket" -- true >"$work/refused" 2>&1
check "--vsock: a name that is taken: 125, one line" [ "$? $(wc -l <"$work/refused")" = "125 1" ]
check "... and it stays whose it was" [ -S "$socket" ]

# The agent is a program in the guest that speaks vsock: it listens at port 1025, and begins with a line of its own.
timeout 200 "$trvmm" proxy --tcp 8100 --vsock "$socket:1025" 2>"$work/proxy" &
proxy=$!
for _ in $(seq 100); do ss -Hltn 'sport = 8100' | grep -q . && break; sleep 0.1; done
{ printf 'CONNECT 9\n'; sleep 2; cat "$work/small"; } | socat -t 60 - TCP:127.0.0.1:8100 >"$work/answer"
check "proxy: a vsock port of the guest, with half close" [ "$(tr '\n' ' ' <"$work/answer")" = "OK 9 $(digest <"$work/small") " ]
timeout 60 "$trvmm" proxy --tcp 8100 --vsock "$socket:1" >"$work/refused" 2>&1
check "proxy: a port in use: 125, one line" [ "$? $(wc -l <"$work/refused")" = "125 1" ]

kill -TERM "$(pgrep -P $machine)"
wait $machine
check "the command ends by its signal" [ $? = 143 ]
check "--vsock: the socket is gone with the machine" [ ! -e "$socket" ]
curl -sS http://127.0.0.1:8080/ >"$work/curl" 2>&1
check "-p: the port is free again" [ $? = 7 ]
curl -sS http://127.0.0.1:8100/ >"$work/curl" 2>&1
check "proxy: without its machine, a reset" was_reset $?
check "... and one line says why" [ "$(grep -c "$socket: No such file" "$work/proxy") $(wc -l <"$work/proxy")" = "1 1" ]
kill $proxy
wait $proxy 2>/dev/null
