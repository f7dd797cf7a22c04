# Programs at work on a share, from a Debian layer that has them; see tests/shares/programs.

# In the lab this takes a quarter of an hour, so it is run when asked for: SHARE_PROGRAMS=1 E2E_ONLY=75 E2E_TIMEOUT=3000 tests/e2e/run. The
# same programs run natively against the same server in tests/shares/run.
if [ -z "${SHARE_PROGRAMS:-}" ]; then
	echo "skip - programs on a share in a guest: takes long; set SHARE_PROGRAMS=1"
elif [ -z "${TOOLS_LAYER:-}" ]; then
	echo "skip - programs on a share: the Debian layer for them was not made"
else
	programs() { # options of the share, a name
		mkdir -p "$work/programs${1:-auto}"
		timeout 1000 "$trvmm" --layers "$TOOLS_LAYER" --memory 1G --cpus 2 -v "$work/programs${1:-auto}:/s${1:+:$1}" -v "$PWD/tests/shares:/programs:ro" -- \
			sh -c 'bash /programs/programs /s 10000; status=$?; dmesg | grep -E "WARNING|BUG|INFO: |Call Trace" && echo "not ok the kernel complains"; exit $status' >"$work/out" 2>"$work/err" </dev/null
		status=$?
		results "$2"
		check "$2: all programs have ended" [ "$status $(grep -cE '^(not )?ok' "$work/out")" = "0 7" ]
	}
	programs '' 'a share'
	programs cache=always,writeback 'a share with write-back'
fi
