# Disks: what is kept, exported, looked at; more disks.

kept=$work/kept.disk
vm --rw-disk "$kept" -- sh -c 'echo one >/etc/kept; rm /etc/motd; dd if=/dev/urandom of=/noise bs=64k count=40 2>/dev/null; md5sum /noise'
first=$(cat "$work/out")
# The last block of the agent's slot, which is behind the agent.
slot_end=$("$trvmm" disk inspect --rw-disk "$kept" --json /.trvmm-agent | python3 -c '
import json, sys
extent = json.load(sys.stdin)["extents"][0]
print(extent["block"] + extent["count"] - 1)')
vm --rw-disk "$kept" -- sh -c 'md5sum /noise; cat /etc/kept; ls /etc/motd; dmesg | grep -ciE "ext4.*(error|corrupt)"
	grep -c noblock_validity /proc/mounts; dd if=/dev/zero of=/dev/vda bs=4k seek='"$slot_end"' count=1 conv=notrunc,fsync 2>/dev/null'
check "a second run finds what the first one wrote" [ "$(cat "$work/out")" = "$first"$'\none\n0\n0' ]
check "... and says nothing" sh -c "! grep 'kept disk' '$work/err'"
check "... and the file takes little room" [ "$(du -k "$kept" | cut -f1)" -lt 20000 ]
"$trvmm" disk export --rw-disk "$kept" -o "$work/disk.img"
check "the end of a command leaves it clean" [ "$(e2fsck -fn "$work/disk.img" 2>&1 | grep -ciE 'clean|fix|error|recover') $(
	dumpe2fs -h "$work/disk.img" 2>/dev/null | sed -n 's/^Filesystem state: *//p')" = "0 clean" ]
rm -f "$work/disk.img"
vm --rw-disk "$kept" --layers "build/guest/busybox.tar,build/guest/busybox.tar" -- true
check "other layers are refused: 125" [ $status = 125 ]
check "... with the reason" grep -q "kept disk '$kept': belongs to other layers" "$work/err"
vm --rw-disk "$kept" --disk-size 64M -- true
check "another size is refused" grep -q "was made for a disk of .* bytes" "$work/err"

# Killed in the middle of writing: what it leaves is exported, checked and mended by e2fsck, and runs again.
timeout 100 "$trvmm" --rw-disk "$kept" -- sh -c \
	'echo synced >/synced; sync; echo ready; while :; do cp -r /bin /copy; echo more >>/grows; sync /grows; rm -r /copy; done' \
	>"$work/out" 2>"$work/killed.err" </dev/null &
for _ in $(seq 300); do
	grep -q ready "$work/out" && break
	sleep 0.1
done
vm --rw-disk "$kept" -- true
check "a disk in use is refused" grep -q "in use by another trvmm" "$work/err"
sleep 2
kill -KILL "$(pgrep -P $!)"
{ wait; } 2>/dev/null
check "a guest that has written over the agent's blocks is told of" \
	grep -q "kept disk '$kept': a guest has written over /.trvmm-agent" "$work/killed.err"
exits "a kept disk is exported after kill -9" 0 disk export --rw-disk "$kept" -o "$work/disk.img"
e2fsck -fy "$work/disk.img" >"$work/out" 2>&1
check "e2fsck mends it or finds it clean" [ $? -le 1 ]
check "... and is content then" sh -c "e2fsck -fn '$work/disk.img' >/dev/null 2>&1"
check "what was synced is there" [ "$(debugfs -R 'cat /synced' "$work/disk.img" 2>/dev/null)" = synced ]
exits "a kept disk's changes are a layer after kill -9" 0 disk diff --rw-disk "$kept" -o "$work/layer.tar"
debugfs -R 'cat /grows' "$work/disk.img" 2>/dev/null >"$work/grows"
debugfs -R 'ls -p /copy' "$work/disk.img" 2>/dev/null | cut -d/ -f6 | grep -v '^\.*$' | sort >"$work/copy"
check "... with what e2fsck finds, too" [ "$(tar -xOf "$work/layer.tar" synced) $(tar -xOf "$work/layer.tar" grows | md5sum) $(
	tar -tf "$work/layer.tar" | sed -n 's|^copy/\(.\)|\1|p' | sort | md5sum)" = "synced $(md5sum <"$work/grows") $(md5sum <"$work/copy")" ]
rm -f "$work/disk.img"
vm --rw-disk "$kept" -- sh -c 'cat /etc/kept /synced'
check "... and runs again" [ "$(tr '\n' ' ' <"$work/out")" = "one synced " ]
rm -f "$kept"

# Export: as e2fsck and a pipe see it, and with no room.
exits "disk export" 0 disk export -o "$work/disk.img"
check "e2fsck finds nothing" sh -c "e2fsck -fn '$work/disk.img' >/dev/null 2>&1"
"$trvmm" disk export --disk-size 64M -o - >"$work/pipe.img"
exits "disk export replaces a file" 0 disk export --disk-size 64M -o "$work/disk.img"
check "a pipe gets the same bytes" cmp "$work/pipe.img" "$work/disk.img"
mkdir "$work/small" && mount -t tmpfs -o size=512k none "$work/small"
refuses "to export where there is no room" "image '.*/small/disk.img': No space left" disk export -o "$work/small/disk.img"
check "... and leaves nothing behind" [ -z "$(ls -A "$work/small")" ]
umount "$work/small"
cp build/guest/busybox.tar "$work/layer.tar"
refuses "to export over a layer" "is one of the layers" disk export --layers "$work/layer.tar" -o "$work/layer.tar"
rm -f "$work"/*.img "$work/layer.tar"

# Inspect: what debugfs says of the same disk; names that would harm a terminal, JSON or SVG.
mkdir "$work/names" && echo text >"$work/names/plain" && echo hidden >"$work/names/$(printf 'a"b<c>&\\\033[31m\n\377')"
tar -C "$work/names" -cf "$work/names.tar" .
"$trvmm" disk export --layers "$work/names.tar" -o "$work/disk.img"
"$trvmm" disk inspect --layers "$work/names.tar" --json >"$work/out"
check "inspect --json is JSON, with the inode numbers that debugfs tells" python3 - "$work" <<'P'
import json, subprocess, sys
work = sys.argv[1]
disk = json.load(open(work + "/out"))
def debugfs(command):
    return subprocess.run(["debugfs", "-R", command, work + "/disk.img"], capture_output=True, text=True).stdout
file = [f for f in disk["files"] if f["path"] == "/plain"][0]
stat = debugfs("stat /plain")
assert stat.startswith("Inode: %d " % file["inode"]) and "Size: 5" in stat, stat
blocks = json.loads(subprocess.run(["build/trvmm", "disk", "inspect", "--layers", work + "/names.tar", "--json", "/plain"],
                                   capture_output=True).stdout)
assert debugfs("blocks /plain").split() == [str(blocks["extents"][0]["block"])]
with open(work + "/names.tar", "rb") as layer:
    layer.seek(blocks["sources"][0]["source_offset"])
    assert layer.read(5) == b"text\n"
assert debugfs("stats").count("Free blocks:") and ("Free blocks:              %d" % disk["free_blocks"]) in debugfs("stats")
assert [f for f in disk["files"] if f["path"] == r'/a"b<c>&\x5c\x1b[31m\x0a\xff'], disk["files"]
P
"$trvmm" disk inspect --layers "$work/names.tar" >"$work/out"
check "the listing has no byte that a terminal obeys" [ "$(tr -d '\n\040-\176' <"$work/out" | wc -c) $(grep -c '/a"b<c>&.x5c' "$work/out")" = "0 1" ]
"$trvmm" disk inspect --layers "$work/names.tar" --svg "$work/map.svg"
check "the map is XML" python3 -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' "$work/map.svg"
check "inspect --block shows blocks as debugfs does" python3 - "$work" <<'P'
import json, subprocess, sys
work = sys.argv[1]
def inspect(*arguments):
    return json.loads(subprocess.run(["build/trvmm", "disk", "inspect", "--layers", work + "/names.tar", "--json", *map(str, arguments)],
                                     capture_output=True, check=True).stdout)
def debugfs(command):
    return subprocess.run(["debugfs", "-R", command, work + "/disk.img"], capture_output=True, text=True).stdout
disk = inspect()
regions = {r["name"]: r for r in disk["regions"]}
assert inspect("--block", 0)["parts"][0]["fields"]["s_free_blocks_count_lo"] == disk["free_blocks"]
plain = inspect("/plain")
parts = {p["inode"]: p["fields"] for p in inspect("--block", plain["inode_block"])["parts"] if "inode" in p}
assert parts[plain["inode"]]["i_size_lo"] == 5 and parts[plain["inode"]]["i_links_count"] == plain["links"]
root = inspect("/")["metadata"]["block"]
names = {n["name"]: n["inode"] for n in inspect("--block", root)["parts"][0]["fields"]["entries"]}
assert names["plain"] == plain["inode"] and names["."] == 2, names
contents = inspect("--block", plain["extents"][0]["block"])
assert contents["kind"] == "file contents" and contents["path"] == "/plain"
assert bytes.fromhex(contents["parts"][0]["hex"]) == b"text\n" + bytes(4091)
used = inspect("--block", regions["block bitmaps"]["block"])["parts"]
assert debugfs("testb %d" % used[0]["last"]).count("marked in use") == 1, used
P
refuses "to inspect a block that is not there" "the disk has blocks 0 to" disk inspect --layers "$work/names.tar" --block 99999999
refuses "to inspect what is not there" "no '/nothing'" disk inspect --layers "$work/names.tar" /nothing
rm -f "$work/disk.img"

# More disks: a raw file, the same read-only, a generated one.
truncate -s 64M "$work/raw.img" && mke2fs -q -t ext4 "$work/raw.img"
mkdir "$work/tree" && echo from-a-layer >"$work/tree/file" && tar -C "$work/tree" -cf "$work/tree.tar" .
vm --disk "$work/raw.img" --disk "layers=$work/tree.tar" --disk "layers=$work/tree.tar:ro" -- sh -c '
	mkdir /b /c /d; mount /dev/vdb /b && echo kept >/b/file; mount /dev/vdc /c && cat /c/file && echo more >/c/new && cat /c/new
	mount -o ro /dev/vdd /d && cat /d/file; cat /sys/block/vd[bcd]/ro /sys/block/vdb/size /sys/block/vdb/serial'
check "three more disks" [ "$(tr '\n' ' ' <"$work/out")" = "from-a-layer more from-a-layer 0 0 1 131072 trvmm-disk-1" ]
check "a raw disk keeps what is written" [ "$(e2fsck -fy "$work/raw.img" >/dev/null 2>&1; debugfs -R 'cat /file' "$work/raw.img" 2>/dev/null)" = kept ]
vm --disk "$work/raw.img:ro" --disk-size 1T -- sh -c 'mkdir /b; mount -o ro /dev/vdb /b && cat /b/file; echo x >/dev/vdb
	df -k / | awk "END { print (\$2 > 1000000000) }"; grep -c noblock_validity /proc/mounts'
check "a read-only disk is read only, and the root as large as asked for" [ "$(tr '\n' ' ' <"$work/out")" = "kept 1 1 " ]
refuses "a disk that is not there" "disk '/no/such': No such file" --disk /no/such -- true
head -c 3000000 /dev/zero | gzip >"$work/bomb.gz"
refuses "a disk made from a layer that inflates to too much" "layer .*/bomb.gz: inflates to more than 1 MiB" \
	--max-layer-size 1M --disk "layers=$work/bomb.gz" -- true
refuses "a disk made from no layer" "disk 'layers=': an empty name" --disk layers= -- true
refuses "a disk of odd size" "disk '.*odd': has 1000 bytes.*512" --disk "$(truncate -s 1000 "$work/odd"; echo "$work/odd")" -- true
many=()
for _ in $(seq 13); do many+=(--disk "layers=$work/tree.tar"); done
refuses "too many disks" "too many devices" "${many[@]}" -- true
rm -f "$work/raw.img"

# A network block device, whose server goes away for a while.
truncate -s 16M "$work/nbd.img"
serve_nbd() {
	rm -f "$work/nbd.socket"
	nbdkit -f -U "$work/nbd.socket" file "$work/nbd.img" 2>/dev/null &
	nbd_server=$!
	for _ in $(seq 100); do [ -S "$work/nbd.socket" ] && break; sleep 0.1; done
}
serve_nbd
timeout 100 "$trvmm" --disk "nbd+unix:///?socket=$work/nbd.socket" -- sh -c '
	echo written | dd of=/dev/vdb conv=fsync 2>/dev/null && echo ready
	while dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; do sleep 0.2; done; echo failed
	until dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; do sleep 0.2; done; echo back' >"$work/out" 2>"$work/err" </dev/null &
vm_pid=$!
heard() { for _ in $(seq 300); do grep -q "$1" "$work/out" && return; sleep 0.1; done; return 1; }
heard ready
kill -KILL "$nbd_server"
{ wait "$nbd_server"; } 2>/dev/null
check "a lost NBD server is an I/O error in the guest" heard failed
serve_nbd
check "... until it is back" heard back
wait "$vm_pid"
check "... and a line each on the host" [ "$? $(grep -c 'connection is' "$work/err")" = "0 2" ]
kill "$nbd_server"
check "what was written is there" [ "$(head -c 8 "$work/nbd.img")" = written ]
refuses "an NBD server that is not there" "disk 'nbd.unix.*'.*No such file" --disk "nbd+unix:///?socket=$work/nothing" -- true
rm -f "$work/nbd.img"
