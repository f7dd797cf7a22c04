# Programs at work on a share, from a Debian layer that has them; see tests/shares/programs.

if [ -z "${TOOLS_LAYER:-}" ]; then
	echo "skip - programs on a share: the Debian layer for them was not made"
else
	programs() { # options of the share, a name
		mkdir -p "$work/programs${1:-auto}"
		vm --layers "$TOOLS_LAYER" --memory 1G --cpus 2 -v "$work/programs${1:-auto}:/s${1:+:$1}" -v "$PWD/tests/shares:/programs:ro" -- \
			bash /programs/programs /s 10000
		results "$2"
		check "$2: all programs have ended" [ "$status $(grep -cE '^(not )?ok' "$work/out")" = "0 6" ]
	}
	programs '' 'a share'
	programs cache=always,writeback 'a share with write-back'
fi
