# Completion of trvmm's command line for bash. What options there are, and what values they take, trvmm's own --help says.

_trvmm_subcommands="cache cp disk doctor exec kill logs proxy ps rm stats wait"

# Prints OPTION=VALUE for each option that `COMMAND... --help` tells of; VALUE is empty for one that takes none, or need not.
_trvmm_options() {
	"$@" --help 2>/dev/null | sed -nE 's/^  +((-[a-z]), )?(--[a-z-]+)(\[[^ ]*)?( ([^ ]+))? .*/\2=\6 \3=\6/p' | tr ' ' '\n' | grep '^-'
}

_trvmm_reply() { mapfile -t COMPREPLY < <(compgen "${@:2}" -- "$1"); }

_trvmm_files() {
	compopt -o filenames 2>/dev/null
	_trvmm_reply "$1" -f
}

# What an option's value is, by its name in the help.
_trvmm_value() {
	case $2 in
	FILE | LAYER | DIR* | PATH* | SPEC* | HOST:GUEST | "A[,B...]") _trvmm_files "$1" ;;
	SIGNAL) _trvmm_reply "$1" -A signal ;;
	PROTOCOL) _trvmm_reply "$1" -W "linux64 pvh" ;;
	esac
}

_trvmm_words() {
	local names
	case $2 in
	exec | kill | stats | wait) names=$("$1" ps -q 2>/dev/null) ;;
	logs | rm) names=$("$1" ps -aq 2>/dev/null) ;;
	cp)
		names=$("$1" ps -q 2>/dev/null | sed 's/$/:/')
		compopt -o nospace 2>/dev/null
		_trvmm_files "$3"
		;;
	disk) names="diff export inspect" ;;
	cache) names="ls prune" ;;
	"") names=$_trvmm_subcommands ;;
	esac
	mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$names" -- "$3")
}

_trvmm() {
	local current=${COMP_WORDS[COMP_CWORD]} command=("${COMP_WORDS[0]}") subcommand=${COMP_WORDS[1]-} before options
	COMPREPLY=()
	((COMP_CWORD > 1)) && [[ " $_trvmm_subcommands " == *" $subcommand "* ]] && command+=("$subcommand") || subcommand=
	[ "$subcommand" = disk ] && ((COMP_CWORD > 2)) && command+=("${COMP_WORDS[2]}")
	options=$(_trvmm_options "${command[@]}")
	before=${COMP_WORDS[COMP_CWORD - 1]}
	[ "$before" = = ] && before=${COMP_WORDS[COMP_CWORD - 2]}
	[ "$current" = = ] && before=${COMP_WORDS[COMP_CWORD - 1]} current=
	local value
	value=$(grep -m 1 -e "^$before=" <<<"$options")
	if [[ $before == -* && -n ${value#*=} ]]; then
		_trvmm_value "$current" "${value#*=}"
	elif [[ $current == -* ]]; then
		_trvmm_reply "$current" -W "$(cut -d = -f 1 <<<"$options")"
	elif [ -n "$subcommand" ] || ((COMP_CWORD == 1)); then
		_trvmm_words "${command[0]}" "$subcommand" "$current"
	fi
}
complete -F _trvmm trvmm
