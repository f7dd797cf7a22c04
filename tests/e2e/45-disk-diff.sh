# trvmm disk diff: what a guest changed, as a layer. On top of the same layers it must give the tree that the guest saw at the end, both to
# trvmm and to umoci.

mkdir -p "$work/base/dir/sub" "$work/base/becomes-file/x" "$work/base/gone/deep/er" "$work/base/keep" "$work/base/emptied"
echo one >"$work/base/dir/changed" && echo two >"$work/base/dir/removed" && echo three >"$work/base/keep/same"
echo x >"$work/base/becomes-dir" && echo x >"$work/base/becomes-link" && ln -s dir "$work/base/link-becomes-dir"
echo h >"$work/base/hard1" && ln "$work/base/hard1" "$work/base/keep/hard2" && ln "$work/base/hard1" "$work/base/keep/hard3"
echo p >"$work/base/pair1" && ln "$work/base/pair1" "$work/base/pair2" && touch "$work/base/emptied/a" "$work/base/emptied/b"
head -c 3000000 /dev/zero | tr '\0' x >"$work/base/large"
tar -C "$work/base" --numeric-owner --owner=0 --group=0 -cf "$work/base.tar" .
layers=build/guest/busybox.tar,$work/base.tar kept=$work/kept.disk

# Everything that a program in the guest can see, as lines; $1 is the root.
listing='cd "$1" || exit
	all() { find . -xdev ! -path . ! -path "./.trvmm*" ! -path ./lost+found ! -path "./dev*" ! -path "./proc*" ! -path "./sys*" \
		! -path "./run*" ! -path "./tmp*" "$@"; }
	all ! -type d -exec stat -c "%n|%f|%u|%g|%Y|%t:%T|%h|%s" {} + | sort
	all -type d -exec stat -c "%n|%f|%u|%g|%Y" {} + | sort
	all -type f -exec md5sum {} + | sort -k 2
	all -type l -exec sh -c "for l; do echo \"\$l -> \$(readlink \"\$l\")\"; done" - {} + | sort'
vm --layers "$layers" --rw-disk "$kept" -- sh -c '
	cd / && echo changed >dir/changed && rm dir/removed && rm -r gone && rm -r becomes-file && echo file >becomes-file
	rm becomes-dir && mkdir becomes-dir && echo in >becomes-dir/f && rm becomes-link && ln -s dir becomes-link
	rm link-becomes-dir && mkdir link-becomes-dir && echo own >link-becomes-dir/f && rm emptied/*
	ln hard1 dir/hard4 && rm pair2 && echo p >pair2 && mv keep kept-by-another-name
	mkdir -p new/a/b && echo deep >new/a/b/c && chmod 2751 new/a && chown 70000:80000 new/a/b/c && chmod 6711 new/a/b/c
	mknod new/null c 1 3 && mknod new/disk b 259 70000 && mkfifo new/fifo && ln -s "$(printf "x%.0s" $(seq 200))" new/long
	printf middle | dd of=large bs=1 seek=1500000 conv=notrunc 2>/dev/null && touch -d "2020-02-02 02:02:02" large
	truncate -s 300M new/sparse && printf end | dd of=new/sparse bs=1M seek=200 conv=notrunc 2>/dev/null
	touch "new/a name with spaces" && touch -d "1960-01-01 00:00:00" dir/sub && mkdir many && cd many && seq 1 500 | xargs touch
	rm 1* && '"set -- /; $listing" </dev/null
cp "$work/out" "$work/guest.list"
check "a guest changes its disk" [ "$status $(wc -l <"$work/guest.list")" != "0 0" ]
exits "disk diff" 0 disk diff --layers "$layers" --rw-disk "$kept" -o "$work/layer.tar" --verbose
check "... tells the diffID" grep -q "diffID sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)" "$work/err"
check "... and is small, holes and what did not change are not in it" [ "$(stat -c %s "$work/layer.tar")" -lt 6000000 ]
tar -tf "$work/layer.tar" | sort >"$work/names"
check "... has whiteouts" [ "$(grep -cE '^(dir/.wh.removed|.wh.gone|.wh.keep|emptied/.wh.[ab])$' "$work/names")" = 5 ]
check "... has nothing of trvmm's own" [ "$(grep -cE 'lost.found|trvmm' "$work/names")" = 0 ]
"$trvmm" disk diff --layers "$layers" --rw-disk "$kept" -o - >"$work/pipe.tar"
check "a pipe gets the same bytes" cmp "$work/pipe.tar" "$work/layer.tar"
vm --layers "$layers,$work/layer.tar" -- sh -c "set -- /; $listing"
cp "$work/out" "$work/again.list"
check "trvmm makes the same tree of the layer" cmp "$work/guest.list" "$work/again.list"

if ! command -v umoci >/dev/null; then
	echo "skip - umoci makes the same tree of the layer: umoci is not installed"
else
	{
		umoci init --layout "$work/image" && umoci new --image "$work/image:x"
		for layer in build/guest/busybox.tar "$work/base.tar" "$work/layer.tar"; do
			umoci raw add-layer --image "$work/image:x" "$layer"
		done
		umoci unpack --image "$work/image:x" "$work/bundle"
	} >"$work/out" 2>&1
	busybox sh -c "set -- '$work/bundle/rootfs'; $listing" >"$work/umoci.list" 2>>"$work/err"
	# The mount points that trvmm's agent made are in both, and not listed.
	if cmp -s "$work/guest.list" "$work/umoci.list"; then
		ok "umoci makes the same tree of the layer"
	else
		not_ok "umoci makes the same tree of the layer" "$(diff "$work/guest.list" "$work/umoci.list" | head -n 10)"
	fi
fi

refuses "a diff of no disk" "give the --rw-disk FILE" disk diff --layers "$layers" -o "$work/x.tar"
refuses "a diff to nowhere" "where to\?" disk diff --layers "$layers" --rw-disk "$kept"
refuses "a diff of a disk that is not there" "nothing.disk" disk diff --layers "$layers" --rw-disk "$work/nothing.disk" -o "$work/x.tar"
refuses "a diff over the disk itself" "is the kept disk itself" disk diff --layers "$layers" --rw-disk "$kept" -o "$kept"
refuses "a diff against other layers" "belongs to other layers" disk diff --layers "$work/base.tar" --rw-disk "$kept" -o "$work/x.tar"
rm -rf "$work/image" "$work/bundle" "$work/base" "$kept" "$work"/*.tar
