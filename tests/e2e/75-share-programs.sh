# Programs at work on a share, from a Debian layer: tar, rsync, git, make, sqlite3. Their own checks tell whether the file system held.

if [ -z "${TOOLS_LAYER:-}" ]; then
	echo "skip - programs on a share: the Debian layer for them was not made"
else
	programs() { # a share's options, a name
		local share=$work/programs$1
		mkdir -p "$share"
		# shellcheck disable=SC2016 # the guest's shell
		vm --layers "$TOOLS_LAYER" --memory 1G --cpus 2 -v "$share:/s${1:+:$1}" -- bash -c '
			set -u
			say() { if "${@:2}" >/tmp/said 2>&1; then echo "ok $1"; else echo "not ok $1: $(tail -n 2 /tmp/said | tr "\n" " ")"; fi; }
			listing() { (cd "$1" && find . -mindepth 1 -printf "%P %y %m %U:%G %s %T@ %n %l\n" | sed -E "s/^(.* d [0-7]+ [0-9:]+) [0-9]+/\1/" | sort); }
			round_trip() { tar -C / -cf - etc/apt etc/pam.d usr/share/perl5 | tar -C /s -xpf - &&
				tar -C /s -cf /tmp/back.tar etc usr && mkdir -p /tmp/back && tar -C /tmp/back -xpf /tmp/back.tar &&
				diff <(listing /usr/share/perl5) <(listing /tmp/back/usr/share/perl5) && diff -r --no-dereference /usr/share/perl5 /s/usr/share/perl5; }
			say "tar, there and back" round_trip
			synchronize() { rsync -aH /usr/share/perl5/ /s/perl5 && rsync -aH --delete /s/perl5/ /tmp/perl5 &&
				diff <(listing /usr/share/perl5) <(listing /tmp/perl5) && [ -z "$(rsync -aHnc --itemize-changes /usr/share/perl5/ /s/perl5)" ]; }
			say "rsync, there and back" synchronize
			version() { cd /s && git init -q origin && cd origin && cp -r /usr/share/perl5 . && git add -A &&
				git -c user.name=n -c user.email=e commit -qm first && cd .. && git clone -q origin clone && cd clone && git fsck --full &&
				[ -z "$(git status --porcelain)" ] && rm -r perl5/Git* && git checkout -q -- . && [ -z "$(git status --porcelain)" ]; }
			say "git commit, clone, fsck, status" version
			build() { mkdir -p /s/project && cd /s/project && for i in 1 2 3 4 5 6; do echo "int f$i(void) { return $i; }" >f$i.c; done &&
				echo "#include <stdio.h>
				int f1(void); int f6(void); int main(void) { printf(\"%d\\n\", f1() + f6()); return 0; }" >main.c &&
				printf "sum: main.o f1.o f2.o f3.o f4.o f5.o f6.o\n\tcc -o \$@ \$^\n" >Makefile && make -s -j2 && [ "$(./sum)" = 7 ] && sleep 1.1 &&
				touch f1.c && [ "$(make -n | grep -c "cc ")" = 2 ]; }
			say "make builds a C program, and only what has changed" build
			database() { cd /s && { echo "pragma journal_mode=$1; create table t(i integer primary key, v text);"
				for ((i = 0; i < $2; i++)); do echo "insert into t(v) values(hex(randomblob(50)));"; done; } | sqlite3 $1.db &&
				[ "$(sqlite3 $1.db "pragma integrity_check; select count(*) from t;" | tr "\n" " ")" = "ok $2 " ]; }
			say "sqlite3: 9,000 transactions with a write-ahead log" database wal 9000
			say "sqlite3: 1,000 transactions with a rollback journal" database delete 1000
		'
		sed -n "s/^ok /ok - $2: /p; s/^not ok /not ok - $2: /p" "$work/out"
		check "$2: all programs have ended" [ "$(grep -cE '^(not )?ok' "$work/out")" = 6 ]
	}
	programs '' 'a share'
	programs cache=always,writeback 'a share with write-back'
fi
