# Layers: merging, and a real Debian root compared with its tar, file by file.

mkdir -p "$work/l1/etc/dir" "$work/l1/keep" "$work/l1/opaque/old" "$work/l2/etc" "$work/l2/opaque"
echo one >"$work/l1/etc/a" && echo two >"$work/l1/etc/b" && echo three >"$work/l1/etc/dir/c" && echo kept >"$work/l1/keep/k"
echo old >"$work/l1/opaque/old/x" && echo hard >"$work/l1/hard1" && ln "$work/l1/hard1" "$work/l1/hard2"
ln -s keep/k "$work/l1/link"
: >"$work/l2/etc/.wh.a"
: >"$work/l2/etc/.wh.dir"
echo new >"$work/l2/etc/b"
: >"$work/l2/opaque/.wh..wh..opq"
echo fresh >"$work/l2/opaque/y"
echo replaced >"$work/l2/hard1"
tar -C "$work/l1" -cf "$work/l1.tar" .
tar -C "$work/l2" -czf "$work/l2.tar.gz" .
layers=build/guest/busybox.tar,$work/l1.tar,$work/l2.tar.gz
vm --layers "$layers" -- sh -c 'ls /etc/a /etc/dir 2>/dev/null; cat /etc/b /keep/k /link; ls /opaque; cat /hard1 /hard2'
check "whiteouts, opaque directories and links over layers" [ "$(tr '\n' ' ' <"$work/out")" = "new kept kept y replaced hard " ]
vm --layers "build/guest/busybox.tar" --layers "$work/l1.tar" -- cat /etc/a
check "--layers can be repeated" [ "$(cat "$work/out")" = one ]

# A directory of this host, and a file on top.
mkdir -p "$work/host/bin" "$work/host/data" && echo from the host >"$work/host/data/file" && echo added >"$work/added"
printf '#!/bin/sh\necho tool\n' >"$work/host/bin/tool" && chmod 755 "$work/host/bin/tool" && echo first >"$work/host/data/changes"
touch -d '1999-12-31 23:59:59.123456789Z' "$work/host/data/file" && ln "$work/host/data/file" "$work/host/data/second"
touch "$work/host/data/.wh.file" && mkfifo "$work/host/fifo"
vm --layers "build/guest/busybox.tar,$work/host" --add "$work/added:/etc/" --add "$work/host/data:/srv/copy" -- sh -c '
	tool; cat /data/second /etc/added /srv/copy/file; echo $(ls -A /data); stat -c "%h %Y" /data/file; [ -p /fifo ] && echo fifo'
check "a directory of the host, and --add" [ "$(tr '\n' '|' <"$work/out")" = \
	"tool|from the host|added|from the host|.wh.file changes file second|2 946684799|fifo|" ]
# What changes on the host while the guest runs is an I/O error there and one message here.
: >"$work/out"
(
	until grep -q ready "$work/out"; do sleep 0.1; done
	echo other >"$work/host/data/changes"
) &
vm --layers "build/guest/busybox.tar,$work/host" -- sh -c 'echo ready; sleep 1; cat /data/changes; cat /data/changes; cat /data/file'
wait $!
check "a file that changes under a run is an I/O error" [ "$(tr '\n' '|' <"$work/out")" = "ready|from the host|" ]
check "... and one message" [ "$(grep -c "layer $work/host: 'data/changes': was changed or replaced while the guest runs" "$work/err")" = 1 ]

vm --layers "build/guest/busybox.tar,$BIG_LAYER" -- md5sum /big
check "a file of 1 GiB" [ "$(cut -d' ' -f1 "$work/out")" = "$(cut -d' ' -f1 "${BIG_LAYER%.tar}.md5")" ]

vm -- sh -c 'dd if=/dev/zero of=/fill bs=1M count=100 2>/dev/null && sync && sha256sum /fill && rm /fill && echo data >/etc/motd && cat /etc/motd'
check "what the guest writes is there" [ "$(tail -n 1 "$work/out")" = data ]
vm -- cat /etc/motd
check "... and gone in the next run" [ $status != 0 ]
vm -- sh -c 'echo >/first; stat -c %i /first >/number; rm /first; sleep 1.1; echo >/second; stat -c %i /second | cmp - /number && echo again'
check "an inode that was deleted is used again at once" [ "$(cat "$work/out")" = again ]

if [ -z "${DEBIAN_LAYER:-}" ]; then
	echo "skip - the Debian layer: it was not made"
else
	vm --layers "$DEBIAN_LAYER" --memory 512M -- dpkg -l
	check "dpkg -l on the Debian layer" [ "$status $(grep -c '^ii' "$work/out")" = "0 $(tar xOf "$DEBIAN_LAYER" ./var/lib/dpkg/status | grep -c '^Status: install ok installed')" ]
	# Every regular file's digest, computed in the guest and (by tests/e2e/run) from the tar.
	vm --layers "$DEBIAN_LAYER" --memory 1G -- sh -c 'find / -xdev -type f ! -path "/.trvmm-*" -print0 | xargs -0 md5sum'
	sed 's|  /|  ./|' "$work/out" | sort -k 2 >"$work/guest.sums"
	sort -k 2 "$DEBIAN_LAYER.md5" >"$work/tar.sums"
	lines=$(wc -l <"$work/tar.sums")
	if [ "$lines" -gt 10000 ] && cmp -s "$work/guest.sums" "$work/tar.sums"; then
		ok "every file of the Debian layer has the tar's contents ($lines files)"
	else
		not_ok "every file of the Debian layer has the tar's contents" "$(diff "$work/guest.sums" "$work/tar.sums" | head -n 5)"
	fi
	# Modes, owners, sizes, times, link targets, as find prints them in the guest and from the tar.
	vm --layers "$DEBIAN_LAYER" --memory 512M -- find / -xdev -mindepth 1 ! -path '/.trvmm*' ! -path /lost+found \
		-printf '.%p|%y|%m|%U|%G|%T@|%l\n'
	sort "$work/out" >"$work/guest.stat"
	tests/e2e/tar-stat "$DEBIAN_LAYER" | sort >"$work/tar.stat"
	# What the agent mounts or touches at start differs: mount points and their times.
	mounts='^\./(dev|proc|sys|run|tmp)(\||/)'
	if diff <(grep -vE "$mounts" "$work/guest.stat") <(grep -vE "$mounts" "$work/tar.stat") >"$work/stat.diff"; then
		ok "every inode of the Debian layer has the tar's attributes"
	else
		not_ok "every inode of the Debian layer has the tar's attributes" "$(head -n 6 "$work/stat.diff")"
	fi
fi

# An image's own configuration: an OCI layout made by hand, so that nothing but Python is needed.
python3 - "$work/image" build/guest/busybox.tar <<'P'
import gzip, hashlib, json, os, sys
root, layer = sys.argv[1:]
os.makedirs(root + "/blobs/sha256")
def blob(data, kind):
    digest = hashlib.sha256(data).hexdigest()
    open(f"{root}/blobs/sha256/{digest}", "wb").write(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data)}
tar = open(layer, "rb").read()
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
          "config": {"Env": ["PATH=/bin:/usr/bin", "FROM=image", "BOTH=image"], "Entrypoint": ["/bin/sh", "-c"],
                     "Cmd": ["echo $FROM $BOTH; pwd; id -u; exit 4"], "WorkingDir": "/usr", "User": "1000"}}
manifest = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(gzip.compress(tar), "layer.v1.tar+gzip")]}
index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
json.dump(index, open(root + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(root + "/oci-layout", "w"))
P
vm --layers "$work/image"
check "an image runs its own command" [ "$status $(tr '\n' ' ' <"$work/out")" = "4 image image /usr 1000 " ]
vm --layers "$work/image" --env BOTH=option --user 0 --workdir /etc -- 'echo $FROM $BOTH; pwd; id -u'
check "options override the image's configuration" [ "$status $(tr '\n' ' ' <"$work/out")" = "0 image option /etc 0 " ]
vm --layers "$work/image" --entrypoint /bin/echo -- a b
check "--entrypoint" [ "$(cat "$work/out")" = "a b" ]
tar -C "$work/image" -cf "$work/image.tar" .
vm --layers "$work/image.tar"
check "an image in a tar runs its own command" [ $status = 4 ]
echo x >>"$(find "$work/image/blobs" -size +100k)"
refuses "a blob that is not what its descriptor says" "blobs/sha256/.*should have" --layers "$work/image"
refuses "layers without a command" "no command" --layers build/guest/busybox.tar
