# A server as people run it, behind -p: nginx from a Debian layer, many requests at once, long streams, resets. One machine for all.
stream_mib=${STREAM_MIB:-32} # 256 takes minutes in the lab, and the longer the likelier it is that the lab fails
stream_bytes=$((stream_mib << 20))
stream() { seq 100000000 | head -c $stream_bytes; }
cat >"$work/nginx.conf" <<'END'
error_log stderr warn;
events { worker_connections 512; }
http { access_log off; server { listen 127.0.0.1:80 backlog=1024; root /www; } }
END
seq 1000 | head -c 2000 >"$work/page"
requests() { # name, ab's arguments
	local name=$1
	shift
	timeout 400 ab -q "$@" http://127.0.0.1:8080/page >"$work/ab" 2>&1
	check "$name" [ "$? $(grep -cE '^Failed requests: +0$' "$work/ab") $(grep -cE "^Complete requests: +5000$" "$work/ab") $(
		grep -c '^Non-2xx' "$work/ab")" = "0 1 1 0" ]
	grep -E 'Requests per second|Failed|apr_' "$work/ab" | sed 's/^/# ab: /'
}
tcp() { # what a client of PORT sees: python's words for what happened
	timeout 60 python3 - "$@" <<'END'
import socket, struct, sys, time
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"ping")
if sys.argv[2] == "break":
    time.sleep(1) # the bytes are there, and more is waited for
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    sys.exit()
got = b""
try:
    while data := client.recv(100):
        got += data
    print(got.decode(), "end")
except ConnectionResetError:
    print(got.decode(), "reset")
END
}

# How often each thread of a process went to sleep.
sleeps() {
	for task in "/proc/$1/task"/*; do sed -n "s/^voluntary_ctxt_switches:/${task##*/}/p" "$task/status"; done | sort
}

if [ -z "$WEB_LAYER" ]; then
	echo "skip - nginx behind -p: the Debian layer could not be made"
else
	timeout 900 "$trvmm" --layers "$WEB_LAYER" --memory 512M --vsock "$work/vsock" --add "$work/nginx.conf:/nginx.conf" --add "$work/page:/www/page" \
		-p 8080:80 -p 8071:71 -p 8072:72 -p 8073:73 -p 8074:74 -- sh -c '
		nginx -c /nginx.conf
		socat TCP-LISTEN:71,bind=127.0.0.1 SYSTEM:md5sum &
		socat -U TCP-LISTEN:72,bind=127.0.0.1 "SYSTEM:seq 100000000 | head -c '$stream_bytes'" 2>/dev/null &
		socat TCP-LISTEN:73,bind=127.0.0.1,linger=0,shut-close "SYSTEM:head -c 4" 2>/dev/null &
		socat -d -u TCP-LISTEN:74,bind=127.0.0.1 /dev/null 2>&1 | grep -o "Connection reset by peer" &
		sleep 2; echo ready; exec sleep 1000' </dev/null >"$work/out" 2>"$work/err" &
	machine=$!
	for _ in $(seq 900); do grep -q ready "$work/out" && break; sleep 0.1; done
	check "nginx behind -p: the machine starts" grep -q ready "$work/out"
	sleep 3
	sleeps "$(pgrep -P $machine)" >"$work/before"
	sleep 10
	sleeps "$(pgrep -P $machine)" >"$work/after"
	# The guest has timers, so its vCPU wakes up; nobody else does, with or without sockets that wait for clients.
	check "an idle machine: 10 s without a wakeup but the vCPU's" \
		[ "$(comm -13 "$work/before" "$work/after" | wc -l) $(wc -l <"$work/before")" = "1 $(wc -l <"$work/after")" ]
	requests "-p: 5,000 requests of nginx, a connection each, 64 at once" -n 5000 -c 64
	requests "-p: 5,000 requests over 64 connections that stay" -n 5000 -c 64 -k
	digest=$(stream | md5sum)
	check "-p: a long stream into the guest" [ "$(stream | timeout 400 socat -t 300 - TCP:127.0.0.1:8071)" = "$digest" ]
	check "-p: a long stream out of the guest" [ "$(timeout 400 socat -u TCP:127.0.0.1:8072 - | md5sum)" = "$digest" ]
	check "-p: a reset in the guest is one here, behind what came before" [ "$(tcp 8073 read)" = "ping reset" ]
	tcp 8074 break
	for _ in $(seq 100); do grep -q reset "$work/out" && break; sleep 0.1; done
	check "-p: a reset here is one in the guest" grep -qx "Connection reset by peer" "$work/out"
	kill -TERM "$(pgrep -P $machine)"
	wait $machine
	check "... and nginx had nothing to say" [ ! -s "$work/err" ]
fi
