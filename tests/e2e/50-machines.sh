# Named and detached machines: one machine for most of it, since each start takes seconds here.

export XDG_RUNTIME_DIR=$work/runtime
mkdir -m 700 "$XDG_RUNTIME_DIR"
state=$XDG_RUNTIME_DIR/trvmm
# on ARGUMENTS...: a subcommand, its outputs in files, its status in $status.
on() {
	timeout 60 "$trvmm" "$@" >"$work/out" 2>"$work/err" </dev/null
	status=$?
}
said() { [ "$status $(cat "$work/out")" = "$1" ]; }
nothing_left() { [ -z "$(ls -A "$state" 2>/dev/null)" ]; }

check "a run without a name makes no state" [ ! -e "$state" ]
vm -d --name box --env SHARED=yes --workdir /usr -- sh -c \
	'trap "echo got TERM >&2" TERM; echo to-out; echo to-err >&2; while :; do sleep 0.2; done'
check "-d prints the name when the command runs" said "0 box"
check "... and nothing else" [ ! -s "$work/err" ]
on ps
check "ps lists it" grep -qE '^box +up .* sh -c ' "$work/out"
on ps --json
check "ps --json is JSON" [ "$(python3 -c 'import json, sys; print([m["name"] + m["status"] for m in json.load(sys.stdin)])' <"$work/out")" = "['boxrunning']" ]
vm --name box -- true
check "a name is taken once" [ "$status $(wc -l <"$work/err")" = "125 1" ]
on rm box
check "a machine that runs is not removed" [ $status = 125 ]

on exec box /bin/true
check "exec: exit status 0" [ $status = 0 ]
on exec box sh -c 'echo out; echo err >&2; exit 9'
check "exec: exit status and streams" [ "$status $(cat "$work/out") $(cat "$work/err")" = "9 out err" ]
on exec box "no'such"
check "exec: a command that is not found: 127, and its name, escaped once" [ "$status $(grep -cF 'exec "no\x27such": not found' "$work/err")" = "127 1" ]
printf 'MINE=file\nFILE=c\n' >"$work/env"
on exec -e MINE=first -e MINE='a b' --env-file "$work/env" box sh -c 'echo $SHARED $MINE $FILE $PWD $(id -u)'
check "exec: the machine's environment and folder, and more" said "0 yes a b c /usr 0"
on exec -w /tmp -u 1000 box sh -c 'echo $PWD $(id -u)'
check "exec: another folder and user" said "0 /tmp 1000"
check "exec -i passes stdin" [ "$(printf 'one\ntwo\n' | timeout 60 "$trvmm" exec -i box wc -l)" = 2 ]
check "exec without -i has none" [ "$(printf 'one\ntwo\n' | timeout 60 "$trvmm" exec box wc -l)" = 0 ]
openssl enc -aes-128-ctr -K 00 -iv 00 </dev/zero 2>/dev/null | head -c 4194304 >"$work/random"
timeout 60 "$trvmm" exec -i box cat <"$work/random" >"$work/back"
check "exec: 4 MiB in and out through files" cmp -s "$work/random" "$work/back"
check "exec: 4 MiB through pipes" [ "$(cat "$work/random" | timeout 60 "$trvmm" exec -i box cat | sha256sum)" = "$(sha256sum <"$work/random")" ]
timeout 60 "$trvmm" exec box sh -c 'trap "echo got; exit 4" INT; echo ready; while :; do sleep 0.1; done' >"$work/out" 2>&1 &
timer=$!
for _ in $(seq 100); do grep -q ready "$work/out" && break; sleep 0.1; done
kill -INT "$(pgrep -P $timer)"
wait $timer
check "exec: a signal reaches the command" [ "$? $(tail -n 1 "$work/out")" = "4 got" ]
timeout 60 "$trvmm" exec box sleep 12345 &
timer=$!
sleep 1
on exec box sh -c 'grep -l "1234[5]" /proc/[0-9]*/cmdline'
kill -KILL "$(pgrep -P $timer)" && wait $timer 2>/dev/null
sleep 1
check "exec: a command runs beside the others" [ -s "$work/out" ]
on exec box sh -c 'grep -l "1234[5]" /proc/[0-9]*/cmdline'
check "... and ends when its client is killed" [ ! -s "$work/out" ]
on exec -t -i box true
check "exec -it without a terminal: 125" [ $status = 125 ]
script -qec "stty rows 33 cols 101; '$trvmm' exec -it box sh -c 'stty size; echo \$TERM; exit 5'" /dev/null </dev/null >"$work/out" 2>&1
check "exec -it gives a terminal" [ "$? $(tr -d '\r\0' <"$work/out" | grep -cE '33 101$|^xterm$')" = "5 2" ]
python3 - "$trvmm" >"$work/out" 2>&1 <<'P'
# The client of a terminal is stopped, continued and killed: its modes are ours again each time.
import os, pty, signal, sys, termios, time
pid, master = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], ["trvmm", "exec", "-it", "box", "cat"])
def raw(): return not termios.tcgetattr(master)[3] & termios.ECHO
def becomes(wanted):
    for _ in range(200):
        if raw() == wanted: return True
        time.sleep(0.05)
    return False
print("raw", becomes(True))
os.write(master, b"hello\r")
text = b""
while b"hello" not in text: text += os.read(master, 100)
print("echoed")
os.kill(pid, signal.SIGKILL)
print("restored", becomes(False))
P
check "the terminal is raw while it is used, and not after SIGKILL" [ "$(tr '\n' ' ' <"$work/out")" = "raw True echoed restored True " ]

timeout 60 "$trvmm" logs -f box >"$work/follow" 2>"$work/follow-err" &
follower=$!
on kill -s TERM box
check "kill -s TERM" [ $status = 0 ]
sleep 1
on kill -s SIGNONSENSE box
check "kill with no signal: 125" [ $status = 125 ]
on logs box
check "logs: stdout and stderr, apart" [ "$(cat "$work/out") $(tr '\n' ' ' <"$work/err")" = "to-out to-err got TERM " ]
on logs --tail 1 box
check "logs --tail" [ "$(cat "$work/out" "$work/err")" = "got TERM" ]
on stats --json box
check "stats" python3 -c '
import json, sys
f = json.load(open(sys.argv[1]))
sys.exit(not (f["cpu_ns"] > 0 and f["blk_reads"] > 0 and f["vsock_from_guest_bytes"] > 4 << 20 and 1 << 20 < f["resident_bytes"] < 1 << 30 and f["sessions"] == 0))' "$work/out"

# The guest's command naps five times a second; that is between the vCPU's thread and KVM.
pid=$("$trvmm" ps --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["pid"])')
main_switches() { awk '/^voluntary/ { print $2 }' /proc/"$pid"/status; }
before=$(main_switches)
sleep 5
check "trvmm's own loop sleeps while the guest does" [ $(($(main_switches) - before)) -le 2 ]

timeout 60 "$trvmm" wait box >"$work/waited" &
waiter=$!
sleep 1
on kill box
check "kill ends it" [ $status = 0 ]
wait $waiter
check "wait prints the status" [ "$? $(cat "$work/waited")" = "0 137" ]
wait $follower
check "logs -f ends with it" [ "$? $(cat "$work/follow") $(tr '\n' ' ' <"$work/follow-err")" = "0 to-out to-err got TERM " ]
on exec box true
check "exec in a machine that has ended: 125" [ $status = 125 ]
on ps -q
check "ps shows it no more" said "0 "
on ps -a
check "ps -a does" grep -qE '^box +exited \(137\)' "$work/out"
on wait box
check "wait afterwards knows the status" said "0 137"
on logs box
check "logs afterwards" [ "$(cat "$work/out")" = to-out ]
on rm box
check "rm removes it" nothing_left
for subcommand in cp exec kill logs proxy ps rm stats wait; do
	on "$subcommand" --help
	check "$subcommand --help" [ "$status $(wc -c <"$work/err") $(grep -cE "^Usage: trvmm $subcommand |^  -h, --help" "$work/out")" = "0 0 2" ]
done

vm -d -- no-such-command
check "-d of a command that is not found: 127 and why" [ "$status $(cat "$work/out") $(grep -c no-such-command "$work/err")" = "127  1" ]
check "... and nothing is left" nothing_left
vm -d --kernel /no/such -- true
check "-d of a machine that cannot start: 125 and why" [ "$status $(wc -l <"$work/err")" = "125 1" ]
check "... and nothing is left" nothing_left

# One name for two runs at once, in the foreground; then kill -9.
timeout 60 "$trvmm" --name twin -- sleep 1000 </dev/null >"$work/out" 2>"$work/twin1" &
first=$!
timeout 60 "$trvmm" --name twin -- sleep 1000 </dev/null >"$work/out" 2>"$work/twin2" &
second=$!
for _ in $(seq 100); do on exec twin true; [ $status != 0 ] || break; sleep 0.2; done
check "of two runs with one name one gets it" [ "$(cat "$work/twin1" "$work/twin2" | grep -c "'twin' is taken")" = 1 ]
pid=$("$trvmm" ps --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["pid"])')
timeout 60 "$trvmm" exec twin sleep 1000 >"$work/out" 2>"$work/err" &
client=$!
timeout 60 "$trvmm" wait twin >"$work/waited" &
waiter=$!
sleep 1
kill -KILL "$pid"
wait $client
check "exec in a machine that is killed: 137" [ $? = 137 ]
wait $waiter
check "wait on a machine that is killed: 137" [ "$(cat "$work/waited")" = 137 ]
wait $first $second
on ps -aq
check "nothing stale after kill -9" said "0 "
check "... not even a file" nothing_left
unset XDG_RUNTIME_DIR
