# trvmm: one Makefile, explicit source lists, output under build/. `make help` lists the targets; V=1 shows the commands.

BUILD ?= build
CC ?= gcc
V ?= 0
PREFIX ?= /usr/local
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-8s %s\n' $(1) $(2))

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wcast-qual -Wvla -Wundef -Wwrite-strings -Wstrict-prototypes \
	-Wmissing-prototypes -Wimplicit-fallthrough -Werror
CFLAGS ?= -O2 -g
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2
ALL_CFLAGS = -std=gnu11 $(WARNINGS) $(CFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer,$(HARDEN)) \
	-fPIE -ffunction-sections -D_GNU_SOURCE -I. -MMD -MP
LDLIBS := -ljansson -lzstd -llzma -lbz2 -llz4 -lz -lcrypto -lpthread
# The program is static: no loader, no relocation of libraries on the way to the first guest instruction. Sanitizers need the loader.
LDFLAGS_MAIN = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -pie,-static-pie) -Wl,-z,relro,-z,now -Wl,--gc-sections

# Debian packages: to build, for the guest kernel, for the tests.
BUILD_PACKAGES := gcc libc6-dev make musl-tools libseccomp-dev libzstd-dev liblzma-dev libbz2-dev liblz4-dev zlib1g-dev libjansson-dev libssl-dev libnbd-dev busybox-static
TEST_PACKAGES := libcriterion-dev e2fsprogs acpica-tools xz-utils attr umoci skopeo python3 perl openssl procps bsdutils \
	util-linux nbdkit acl golang-github-vbatts-tar-split-dev libarchive-tools zstd bzip2 curl socat iproute2 expect apache2-utils \
	buildah cpio kmod git rsync sqlite3 stress-ng clang libclang-rt-dev

# ---- sources, by folder ---------------------------------------------------------------------------------------------------------
BASE_SRCS := base/crc32c.c base/error.c base/file_lock.c base/iov.c base/loop.c base/new_file.c base/packet.c base/relay.c base/thread.c \
	base/throttle.c
LAYERS_SRCS := $(addprefix layers/, array.c arrays.c builder.c bzip2.c cache.c cache_list.c diff.c diff_compare.c digest.c \
	directory.c feed.c finish.c growth.c gzip.c host_entry.c host_files.c identity.c image.c image_memory.c image_parts.c \
	image_resolve.c index.c index_check.c inflate.c inflated.c inflated_file.c layer_file.c layers.c merge.c merging.c path.c \
	progress.c resolve.c ring.c sink.c source.c stack.c tar.c tar_fields.c tar_header.c tar_pax.c tar_sparse.c tar_writer.c \
	tar_writer_pax.c tree.c trim.c unpack.c window.c xz.c zstd.c)
EXT4GEN_SRCS := $(addprefix ext4gen/, block_states.c build.c cow.c crc16.c digest.c dir.c dirhash.c ext4_dump.c \
	extent.c group.c htree.c inode.c inspect.c journal.c kept.c layout.c plan.c read.c xattr.c xattr_value.c)
EXT4READ_SRCS := $(addprefix ext4read/, containers.c crc.c device.c extent.c inode.c journal.c super.c tree.c xattr.c)
VIRTIO_SRCS := $(addprefix devices/virtio/, shm_bounce.c virtq.c virtio_device.c virtio_mmio.c)
BLK_SRCS := $(addprefix devices/virtio-blk/, virtio_blk.c disk_ext4.c disk_nbd.c disk_raw.c)
FS_SRCS := $(addprefix devices/virtio-fs/, fs_attr.c fs_dax.c fs_dir.c fs_entry.c fs_file.c fs_ids.c fs_init.c fs_io.c fs_kept.c fs_make.c \
	fs_node.c fs_node_fd.c fs_open.c fs_request.c fs_server.c fs_xattr.c virtio_fs.c)
VSOCK_SRCS := $(addprefix devices/virtio-vsock/, backlog.c connection.c credit.c host_end.c packet.c rx.c seqpacket.c service.c \
	stream.c unix.c virtio_vsock.c)
VMM_SRCS := $(addprefix vmm/, acpi.c boot.c command.c cpio.c cpu_quota.c cpuid.c data_file.c detach.c env_file.c extra_disks.c \
	guest_mem.c host.c initramfs.c ioapic.c irq_line.c keeper.c kernel_image.c limits.c machine.c machine_shm.c modules.c mptable.c options.c \
	options_lists.c options_table.c options_take.c options_walk.c output_log.c output_log_reader.c port_rule.c ports.c reaper.c \
	registry.c registry_claim.c registry_control.c registry_name.c registry_remove.c registry_root.c registry_state.c remote_client.c \
	remote_exec.c remote_frame.c remote_request.c remote_server.c root_disk.c run.c run_end.c run_events.c run_named.c run_ports.c \
	run_sandbox.c sandbox.c sandbox_descriptors.c sandbox_filter.c sandbox_landlock.c sandbox_namespaces.c sandbox_privileges.c \
	session.c session_control.c session_request.c session_stream.c share.c shares.c stdio.c terminal.c timeline.c tmpfs.c uart.c \
	ulimit.c unpack.c vcpu.c)
CLI_SRCS := $(addprefix vmm/cli/, cache.c cp.c disk.c disk_block.c disk_diff.c disk_export.c disk_inspect.c disk_map.c \
	disk_output.c disk_tree.c doctor.c exec.c kill.c logs.c machines.c proxy.c ps.c rm.c stats.c wait.c)
COPY_SRCS := $(addprefix guest/copy/, pipe.c receive.c send.c xattr.c)
LIB_SRCS := $(BASE_SRCS) $(COPY_SRCS) $(LAYERS_SRCS) $(EXT4GEN_SRCS) $(EXT4READ_SRCS) $(VIRTIO_SRCS) $(BLK_SRCS) $(VSOCK_SRCS) \
	$(VMM_SRCS) $(CLI_SRCS) $(FS_SRCS)
AGENT_COMMON_SRCS := $(addprefix guest/agent/, command.c init.c initramfs.c main.c mounts.c pids.c proxy.c pump.c spawn.c text.c \
	user.c wire.c) base/relay.c
AGENT_SRCS := $(AGENT_COMMON_SRCS) $(addprefix guest/agent/, boot.c vsock.c)
# Static, without position independence and all in few pages: less to relocate and to fault in on the way to the command.
AGENT_CFLAGS := -std=gnu11 $(WARNINGS) -Os -fno-pie -ffunction-sections -fno-asynchronous-unwind-tables -D_GNU_SOURCE -I.
AGENT_LDFLAGS := -static -no-pie -s -Wl,--gc-sections -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,--build-id=none

LIB_OBJS := $(LIB_SRCS:%.c=$(BUILD)/obj/%.o)

# Unit tests: tests/unit/test_X.c becomes $(BUILD)/tests/test_X, linked with everything but main.
UNIT_TESTS := $(notdir $(basename $(wildcard tests/unit/test_*.c)))

.PHONY: all guest demo check unit lab bench bench-guard asan tsan fuzz lint format install clean help bench-layers bench-vsock bench-fs bench-native
all: $(BUILD)/trvmm $(BUILD)/trvmm-nbd guest ## build trvmm, its guest kernel and its default layer
guest: $(BUILD)/guest/vmlinux $(BUILD)/guest/vmlinux-dax $(BUILD)/guest/busybox.tar

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

# ---- the program ----------------------------------------------------------------------------------------------------------------
# Installs what is missing, or says what to install; once for each change of the lists.
$(BUILD)/.packages: Makefile
	@mkdir -p $(@D)
	$(Q)scripts/need-packages $(BUILD_PACKAGES)
	@touch $@

$(BUILD)/obj/%.o: %.c | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

# The lists of system calls become seccomp programs here and not at each start.
$(BUILD)/obj/sandbox_compile: vmm/sandbox_compile.c $(addprefix vmm/, sandbox_calls.h sandbox_internal.h sandbox.h) | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,SECCOMP,$<)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) -O1 -D_GNU_SOURCE -I. -o $@ $< -lseccomp

$(BUILD)/include/sandbox_programs.h: $(BUILD)/obj/sandbox_compile
	@mkdir -p $(@D)
	$(Q)$< >$@.new && mv $@.new $@

$(BUILD)/obj/vmm/sandbox_filter.o: $(BUILD)/include/sandbox_programs.h
$(BUILD)/obj/vmm/sandbox_filter.o: ALL_CFLAGS += -I$(BUILD)/include

$(BUILD)/libtrvmm.a: $(LIB_OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/obj/vmm/guest_blobs.o: vmm/guest_blobs.S vmm/guest_blobs.h $(BUILD)/guest/agent $(BUILD)/guest/copy
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) -c -I. -DAGENT_FILE='"$(BUILD)/guest/agent"' -DCOPY_FILE='"$(BUILD)/guest/copy"' $< -o $@

$(BUILD)/trvmm: $(BUILD)/obj/vmm/main.o $(BUILD)/obj/vmm/guest_blobs.o $(BUILD)/libtrvmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_MAIN) -o $@ $^ $(LDLIBS)

# The NBD client is a program of its own: libnbd's libraries cannot be linked statically.
NBD_SRCS := $(addprefix devices/virtio-blk/nbd/, nbd_bridge.c nbd_connector.c nbd_uri.c)
$(BUILD)/trvmm-nbd: $(NBD_SRCS:%.c=$(BUILD)/obj/%.o) $(BUILD)/libtrvmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -o $@ $^ -lnbd

# ---- what runs in the guest -----------------------------------------------------------------------------------------------------
$(BUILD)/guest/agent: $(AGENT_SRCS) $(wildcard guest/agent/*.h) base/le.h base/relay.h | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,AGENT,$@)
	$(Q)musl-gcc $(AGENT_CFLAGS) $(AGENT_LDFLAGS) -o $@ $(AGENT_SRCS)

# What only `trvmm cp` needs in the guest is a program of its own: every start loads the agent.
$(BUILD)/guest/copy: guest/copy/main.c $(COPY_SRCS) $(wildcard guest/copy/*.h) base/le.h | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,AGENT,$@)
	$(Q)musl-gcc $(AGENT_CFLAGS) $(AGENT_LDFLAGS) -o $@ guest/copy/main.c $(COPY_SRCS)

KERNEL_SRCS := $(addprefix guest/kernel/,trvmm.config build.sh sort-jump-labels)
$(BUILD)/guest/vmlinux: $(KERNEL_SRCS) $(wildcard guest/kernel/patches/*.patch)
	$(call say,KERNEL,$@)
	$(Q)guest/kernel/build.sh $(BUILD)/guest
	@touch $@

# For shares whose files are mapped into the guest.
$(BUILD)/guest/vmlinux-%: guest/kernel/%.config $(KERNEL_SRCS) $(wildcard guest/kernel/patches*/*.patch)
	$(call say,KERNEL,$@)
	$(Q)guest/kernel/build.sh $(BUILD)/guest $*
	@touch $@

$(BUILD)/guest/busybox.tar: guest/busybox-layer.sh | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,LAYER,$@)
	$(Q)guest/busybox-layer.sh $@

# ---- tests ----------------------------------------------------------------------------------------------------------------------
$(BUILD)/.test-packages: Makefile | $(BUILD)/.packages
	$(Q)scripts/need-packages $(TEST_PACKAGES)
	@touch $@

TEST_OBJS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/unit/*.c tests/guests/runner*.c))
$(TEST_OBJS): | $(BUILD)/.test-packages

# The agent as an ordinary process of this machine. Sessions meet it, or a script that lies, over Unix sockets in place of the device.
# It has one thread, and starts programs by vfork, which the thread sanitizer turns into a fork that reports no failed exec.
TEST_AGENT_SRCS := $(AGENT_COMMON_SRCS) tests/unit/agent_platform.c
TEST_AGENT_SANITIZE := $(filter-out thread,$(SANITIZE))
$(BUILD)/tests/agent: $(TEST_AGENT_SRCS) $(wildcard guest/agent/*.h) base/le.h base/relay.h | $(BUILD)/.test-packages
	@mkdir -p $(@D)
	$(call say,AGENT,$@)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) $(CFLAGS) $(if $(TEST_AGENT_SANITIZE),-fsanitize=$(TEST_AGENT_SANITIZE)) -D_GNU_SOURCE -I. \
		-o $@ $(TEST_AGENT_SRCS)

SESSION_TESTS := $(addprefix $(BUILD)/tests/, test_session test_session_hostile test_agent test_remote)
$(SESSION_TESTS): $(BUILD)/obj/tests/unit/fake_vsock.o $(BUILD)/obj/tests/unit/session_harness.o | $(BUILD)/tests/agent
$(BUILD)/tests/test_agent: $(addprefix $(BUILD)/obj/, guest/agent/user.o guest/agent/text.o tests/unit/agent_platform.o)

$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(BUILD)/libtrvmm.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -pie -o $@ $(filter %.o,$^) $(filter %.a,$^) -lcriterion $(LDLIBS)

# The FUSE server behind this machine's own FUSE client; and what guests run on shares.
$(BUILD)/tests/fs_mount: $(BUILD)/obj/tests/shares/fs_mount.o $(BUILD)/libtrvmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -pie -o $@ $^ $(LDLIBS)

SHARE_TESTS := $(BUILD)/tests/fs_mount $(BUILD)/tests/fs-check
$(BUILD)/tests/fs-check: tests/shares/fs-check.c | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,TOOL,$@)
	$(Q)musl-gcc -std=gnu11 -Wall -Wextra -Werror -O2 -D_GNU_SOURCE -static -o $@ $<

$(BUILD)/tests/test_disk_nbd $(BUILD)/tests/test_nbd_sandbox: | $(BUILD)/trvmm-nbd

# A hostile user of Linux guests.
$(BUILD)/tests/hostile: tests/e2e/hostile.c guest/agent/protocol.h | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,GUEST,$<)
	$(Q)musl-gcc -std=gnu11 $(WARNINGS) -Os -D_GNU_SOURCE -I. -static -s -o $@ $<

include tests/guests/guests.mk

unit: $(UNIT_TESTS:%=$(BUILD)/tests/%) ## build and run the unit tests
	$(Q)tests/check --unit $(BUILD)

check: all $(UNIT_TESTS:%=$(BUILD)/tests/%) $(GUEST_TESTS) $(SANDBOX_TESTS) $(SHARE_TESTS) $(BUILD)/tests/hostile ## all tests; ends with `N passed, N failed, N skipped`
	$(Q)tests/check $(BUILD)

# The sanitizers' builds use a stand-in for Criterion that runs tests in the program itself: the thread sanitizer cannot follow
# Criterion's workers, and leaks found at their exit count for nothing there.
asan: ## unit tests and test guests under the address and undefined behaviour sanitizers
	$(Q)$(MAKE) BUILD=$(BUILD)/asan SANITIZE=address,undefined CFLAGS='-O1 -g -Itests/unit/plain' unit check-guests

tsan: ## unit tests and test guests under the thread sanitizer
	$(Q)$(MAKE) BUILD=$(BUILD)/tsan SANITIZE=thread CFLAGS='-O1 -g -Itests/unit/plain' unit check-guests

# Fuzz targets: tests/fuzz/fuzz_X.c becomes $(BUILD)/fuzz/fuzz_X, with its seeds in tests/fuzz/seeds/X.
FUZZERS := $(notdir $(basename $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= 30

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/libtrvmm.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LDLIBS)

$(BUILD)/fuzz/fuzz_nbd_uri: $(BUILD)/obj/devices/virtio-blk/nbd/nbd_uri.o # of trvmm-nbd, which is no part of the library

.PHONY: run-fuzzers run-fuzzers-long fuzz-long
run-fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)tests/fuzz/run $(BUILD)/fuzz $(FUZZ_SECONDS) $(FUZZERS:fuzz_%=%)

FUZZ_LONG_SECONDS ?= 3600
run-fuzzers-long: $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)tests/fuzz/run --table $(BUILD)/fuzz $$(($(FUZZ_LONG_SECONDS) * $$(nproc) / $(words $(FUZZERS)) + 1)) $(FUZZERS:fuzz_%=%)

FUZZ_BUILD := BUILD=$(BUILD)/fuzz CC=clang SANITIZE=fuzzer-no-link,address,undefined CFLAGS='-O1 -g'
fuzz: | $(BUILD)/.test-packages ## run the fuzz targets, FUZZ_SECONDS each
	$(Q)$(MAKE) $(FUZZ_BUILD) run-fuzzers

fuzz-long: | $(BUILD)/.test-packages ## all fuzz targets for FUZZ_LONG_SECONDS altogether, and a table; see tests/fuzz/README.md
	$(Q)$(MAKE) $(FUZZ_BUILD) run-fuzzers-long

# A program whose calls a preloaded library can make fail: linked dynamically, without the checked variants of functions.
FAULTS_MOST ?= 150
.PHONY: faults run-faults
run-faults: $(BUILD)/trvmm $(BUILD)/shim.so $(BUILD)/guests/boot_linux64.elf
	$(Q)tests/faults/run $(BUILD) --most $(FAULTS_MOST)

$(BUILD)/shim.so: tests/faults/shim.c
	$(call say,LINK,$@)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) -O2 -fPIC -shared -D_GNU_SOURCE -o $@ $< -ldl

faults: ## make each call of a short run fail in turn: malloc, read, write, mmap, ioctl and others
	$(Q)$(MAKE) BUILD=$(BUILD)/faults LDFLAGS_MAIN='-pie -Wl,-z,relro,-z,now' HARDEN= run-faults

.PHONY: faults-lab run-faults-lab
run-faults-lab: $(BUILD)/trvmm $(BUILD)/shim.so
	$(Q)tests/lab/run --icount --timeout 3600 --warm $(BUILD)/shim.so -- \
		tests/faults/run $(BUILD) --lab --most $(FAULTS_LAB_MOST)

FAULTS_LAB_MOST ?= 8
faults-lab: all ## the same of a run with a Linux guest, in the lab: FAULTS_LAB_MOST calls of each function
	$(Q)$(MAKE) BUILD=$(BUILD)/faults LDFLAGS_MAIN='-pie -Wl,-z,relro,-z,now' HARDEN= run-faults-lab

SOAK_RUNS ?= 2000
.PHONY: soak
soak: all ## SOAK_RUNS short lives of machines, 16 at once in the lab: nothing is left over (an hour and more)
	$(Q)tests/lab/run --icount --timeout 14400 --memory 6144 -- tests/soak $(SOAK_RUNS) 16

demo: $(BUILD)/trvmm $(BUILD)/guest/vmlinux $(BUILD)/guest/busybox.tar ## build what it takes and show a run, directly or in the lab
	$(Q)scripts/demo

lint: $(BUILD)/include/sandbox_programs.h ## clang-format, clang with all warnings, cppcheck, shellcheck
	$(Q)scripts/lint $(LIB_SRCS) vmm/main.c

format: ## reformat the sources
	$(Q)clang-format -i $(shell git ls-files '*.[ch]')

bench: all ## measure the start beside container engines and QEMU, in lab time: build/bench/report.md
	$(Q)bench/run

# Linked like the program.
$(BUILD)/bench/layers-tool: $(BUILD)/obj/bench/layers-tool.o $(BUILD)/libtrvmm.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_MAIN) -o $@ $^ $(LDLIBS)

bench-guard: all ## measure trvmm's start, and fail when it is more than 3 % above bench/baseline.json
	$(Q)BENCH_OUT=$(BUILD)/bench-guard bench/run --systems 'trvmm-busybox|trvmm-debian' start >/dev/null
	$(Q)bench/guard $(BUILD)/bench-guard/results.json

bench-native: all ## measure the start on this machine with hyperfine, where its KVM runs guests: build/bench-native/report.md
	$(Q)BUILD=$(BUILD) bench/native

bench-layers: all $(BUILD)/bench/layers-tool ## measure layers and the generated disk on this machine: build/bench/layers.md
	$(Q)scripts/need-packages python3 e2fsprogs
	$(Q)BUILD=$(BUILD) bench/layers

bench-vsock: all ## measure vsock beside QEMU with vhost-vsock, in lab time: build/bench/vsock.md
	$(Q)BUILD=$(BUILD) bench/vsock

bench-fs: all ## measure shares beside QEMU and virtiofsd, in lab time: build/bench/fs.md
	$(Q)bench/fs

install: all ## install under $(PREFIX)
	install -D -m 755 $(BUILD)/trvmm $(DESTDIR)$(PREFIX)/bin/trvmm
	install -D -m 755 $(BUILD)/trvmm-nbd $(DESTDIR)$(PREFIX)/bin/trvmm-nbd
	install -D -m 644 $(BUILD)/guest/vmlinux $(DESTDIR)$(PREFIX)/share/trvmm/vmlinux
	install -D -m 644 $(BUILD)/guest/vmlinux-dax $(DESTDIR)$(PREFIX)/share/trvmm/vmlinux-dax
	install -D -m 644 $(BUILD)/guest/busybox.tar $(DESTDIR)$(PREFIX)/share/trvmm/busybox.tar
	install -D -m 644 scripts/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/trvmm
	install -D -m 644 man/trvmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/trvmm.1

clean: ## remove the build tree
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
