# Hostile guests, each beside a machine that minds its own business and has to answer while its neighbour attacks. Each attack ends as it is
# documented; the files of this host outside the cache stay as they are.

export XDG_RUNTIME_DIR=$work/runtime
mkdir -m 700 "$XDG_RUNTIME_DIR"
hostile=$PWD/build/tests/hostile
tree=$work/tree
mkdir "$tree" && tests/canary make "$tree"
untouched=$(tests/canary digest "$tree")
descriptors() { find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l; }

vm -d --name calm -- sleep 10000
calm=$("$trvmm" ps --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["pid"])')
answers() { [ "$(timeout 30 "$trvmm" exec calm echo pong </dev/null 2>&1)" = pong ]; }
check "the neighbour answers" answers
opened=$(descriptors "$calm")
threads=$(find "/proc/$calm/task" -mindepth 1 -maxdepth 1 | wc -l)

# attack NAME STATUSES LINES OPTIONS...: a run in the tree that nobody may touch; it ends with one of these statuses (A|B) and no more
# lines of ours on stderr. The neighbour is asked meanwhile.
attack() {
	local name=$1 statuses=$2 lines=$3 ours
	shift 3
	(cd "$tree" && HOME=$tree TMPDIR=$tree XDG_CACHE_HOME=$work/cache exec timeout 120 "$trvmm" --add "$hostile:/hostile" "$@") \
		>"$work/out" 2>"$work/err" </dev/null &
	local machine=$!
	sleep 3
	if answers; then ok "$name: the neighbour answers"; else not_ok "$name: the neighbour answers"; fi
	wait $machine
	status=$?
	ours=$(grep -c '^trvmm: ' "$work/err")
	if [[ $status =~ ^($statuses)$ ]] && [ "$ours" -le "$lines" ]; then
		ok "$name: ends as it should"
	else
		not_ok "$name: ends as it should" "status $status, not $statuses, or $ours lines, not $lines"
	fi
}

# What the command writes is the user's own; nothing of ours is between.
attack "a million bytes of escape sequences" 0 0 -- /hostile escape
check "... come as they are" [ "$(wc -c <"$work/out")" = 1000000 ]
attack "garbage on the disk, and a full one" 7 0 --disk-size 64M -- \
	sh -c 'dd if=/dev/zero of=/full bs=64k 2>/dev/null; /hostile ports; dd if=/dev/urandom of=/dev/vda bs=64k count=100 2>/dev/null; exit 7'
attack "a fork bomb" '124|125|137' 1 --memory 64M --timeout 4 -- /hostile fork
attack "a memory hog" '137|125' 1 --memory 64M -- /hostile memory
attack "process 1 overwritten" 125 33 --timeout 30 -- /hostile init
check "... one line says that the guest ended" grep -q '^trvmm: the guest ended before the command did' "$work/err"
attack "nonsense in the agent's connections" 125 1 --timeout 30 -- /hostile garbage
attack "a flood of connections" 0 0 -- /hostile connect
attack "reboot -f" 125 33 -- reboot -f
attack "poweroff -f" 125 33 -- poweroff -f
attack "all processors halted" '124|125' 33 --cpus 2 --timeout 4 -- sh -c 'halt -f; sleep 100'
attack "all processors busy, before the agent" 124 0 --cpus 2 --timeout 1 -- /hostile spin

check "a run after all that" [ "$(timeout 100 "$trvmm" -- echo fine 2>&1)" = fine ]
check "no file of the host has changed" [ "$(tests/canary digest "$tree")" = "$untouched" ]
check "the neighbour has the descriptors and threads that it had" \
	[ "$(descriptors "$calm") $(find "/proc/$calm/task" -mindepth 1 -maxdepth 1 | wc -l)" = "$opened $threads" ]
"$trvmm" kill calm >/dev/null 2>&1
"$trvmm" rm calm >/dev/null 2>&1
check "nothing is left of any of them" [ -z "$(ls -A "$XDG_RUNTIME_DIR/trvmm" 2>/dev/null)" ]
unset XDG_RUNTIME_DIR
