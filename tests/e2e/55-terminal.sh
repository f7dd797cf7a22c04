# A person at a terminal (by expect), and much data through a terminal and through a pipe.

export XDG_RUNTIME_DIR=$work/runtime
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
expect -f tests/e2e/terminal.exp "$trvmm" "$work" >"$work/out" 2>"$work/err" </dev/null
for seen in "the guest's terminal has the size of ours" "a resize reaches the guest" "Ctrl-C ends the command, not the shell" \
	"Ctrl-Z stops the command" "fg goes on with it" "vi fills the screen" "vi has written the file" \
	"exec -it: the size of its terminal" "exec -it: a resize reaches the guest" "exec -it: Ctrl-C ends the command" \
	"exec -it: the status" "the status, and the terminal is what it was" "the terminal is raw" "the terminal is restored after SIGKILL"; do
	check "terminal: $seen" grep -qxF "yes $seen" "$work/out"
done
unset XDG_RUNTIME_DIR

# What a terminal in raw mode and a pipe carry: random bytes, so every value and every pair. TERMINAL_MIB for more by hand.
mib=${TERMINAL_MIB:-8}
wanted=$(tail -c +513 "$BIG_LAYER" | head -c $((mib << 20)) | md5sum)
run="'$trvmm' --layers '$BIG_LAYER' --layers build/guest/busybox.tar -t -- sh -c 'stty raw -echo; head -c $((mib << 20)) /big' | md5sum >'$work/sum'"
expect -c "log_user 0; set timeout -1; spawn sh -c {$run}; expect eof" >"$work/out" 2>"$work/err" </dev/null
check "$mib MiB through a terminal" [ "$(cat "$work/sum")" = "$wanted" ]
sum=$(timeout 600 "$trvmm" --layers "$BIG_LAYER" --layers build/guest/busybox.tar -- head -c $((mib << 20)) /big 2>"$work/err" | md5sum)
check "$mib MiB through a pipe" [ "$sum" = "$wanted" ]
