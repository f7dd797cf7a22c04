# Completion in bash, as bash calls it, against what --help says. No guest runs here.

# completes WORD...: what is offered for the last word.
completes() {
	bash -c '. scripts/completion.bash; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _trvmm 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' - "$trvmm" "$@"
}
offers() { [ "$(completes "${@:2}" | tr '\n' ' ')" = "$1 " ]; }
same_as_help() { # SUBCOMMAND...
	[ "$(completes "$@" --)" = "$("$trvmm" "$@" --help | grep -oE '^  +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+')" ]
}
check "completion: all options of a run" same_as_help
for subcommand in cp exec kill logs proxy ps rm stats wait "disk export" "disk diff" "disk inspect"; do
	# shellcheck disable=SC2086 # two words
	check "completion: all options of $subcommand" same_as_help $subcommand
done
subcommands=$("$trvmm" --help | sed -n 's/^       trvmm \([a-z|]*\) .*/\1/p' | tr '|' '\n' | sort -u)
check "completion: subcommands are those of --help" [ "$subcommands" = "$(completes '' | sort)" ]
check "completion: a word" offers exec ex
check "completion: values that are few" offers pvh --boot = p
check "completion: signals" offers "SIGUSR1 SIGUSR2" kill -s SIGUSR
check "completion: files" offers README.md --kernel READ
check "completion: nothing for a value that may be anything" offers "" --memory ""
check "completion: subcommands of subcommands" offers "diff export inspect" disk ""
check "completion: nothing behind the command" offers "" ls ""
