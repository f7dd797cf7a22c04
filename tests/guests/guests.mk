# Test guests and their runner. Included by the Makefile behind its own rules: it defines BUILD, CC, WARNINGS, LDLIBS and
# SANITIZE, and compiles the runner's objects like all others.
#
# A guest is one file beside the runtime, guest_*; to add one, add its name. Sanitizers and hardening are for the runner only:
# `make BUILD=build/asan SANITIZE=address,undefined check-guests` runs the same guests under a checked VMM.

GUESTS := boot_linux64 boot_pvh blk blk_attack cpu_attack fs fs_attack mmio_attack ping reset_race smp_race teardown \
	transport_attack vsock vsock_attack vsock_race
# Guests of trvmm itself and not of the runner: tests/sandbox.
SANDBOX_GUESTS := backdoor flood spin
GUEST_RUNTIME := guest_start.S guest_runtime.c guest_virtio.c guest_blk.c guest_fs.c guest_vsock.c guest_tables.c
GUEST_RUNNER := runner.c runner_disk.c runner_echo.c runner_fs.c
GUEST_CC ?= gcc
GUEST_CFLAGS := -std=gnu11 $(WARNINGS) -O2 -g -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-pie -fno-stack-protector \
	-fcf-protection=none -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections -I. -MMD -MP
GUEST_LDFLAGS := -nostdlib -static -Wl,-T,tests/guests/guest.ld -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noexecstack \
	-Wl,--no-warn-rwx-segments
GUEST_RUNTIME_OBJS := $(patsubst %,$(BUILD)/guests/%.o,$(basename $(GUEST_RUNTIME)))

$(BUILD)/guests/%.o: tests/guests/%.c
	@mkdir -p $(@D)
	$(call say,GUEST,$<)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -c $< -o $@

$(BUILD)/guests/%.o: tests/guests/%.S
	@mkdir -p $(@D)
	$(call say,GUEST,$<)
	$(Q)$(GUEST_CC) -c $< -o $@

$(patsubst %,$(BUILD)/guests/%.elf,$(GUESTS) $(SANDBOX_GUESTS)): $(BUILD)/guests/%.elf: $(BUILD)/guests/%.o $(GUEST_RUNTIME_OBJS) tests/guests/guest.ld
	$(call say,LINK,$@)
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $@ $(filter %.o,$^)

$(BUILD)/tests/guest_runner: $(patsubst %.c,$(BUILD)/obj/tests/guests/%.o,$(GUEST_RUNNER)) $(BUILD)/libtrvmm.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -pie -Wl,--wrap=fs_server_handle -o $@ $^ $(LDLIBS)

GUEST_TESTS := $(GUESTS:%=$(BUILD)/guests/%.elf) $(BUILD)/tests/guest_runner

# A trvmm with a back door, and the guests that use it (tests/sandbox): the objects that know of it take the place of those in the library.
BACKDOOR_SRCS := vmm/vcpu.c vmm/reaper.c vmm/run_sandbox.c tests/sandbox/backdoor.c
$(BUILD)/backdoor/%.o: %.c | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -DTRVMM_BACKDOOR -c $< -o $@

$(BUILD)/backdoor/trvmm: $(BUILD)/obj/vmm/main.o $(BUILD)/obj/vmm/guest_blobs.o $(BACKDOOR_SRCS:%.c=$(BUILD)/backdoor/%.o) $(BUILD)/libtrvmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_MAIN) -o $@ $^ $(LDLIBS)

SANDBOX_TESTS := $(BUILD)/backdoor/trvmm $(SANDBOX_GUESTS:%=$(BUILD)/guests/%.elf) $(BUILD)/guests/fs.elf

.PHONY: check-sandbox
check-sandbox: $(SANDBOX_TESTS) $(BUILD)/trvmm $(BUILD)/guest/busybox.tar
	$(Q)tests/sandbox/run $(BUILD)

-include $(BACKDOOR_SRCS:%.c=$(BUILD)/backdoor/%.d)

.PHONY: check-guests
check-guests: $(GUEST_TESTS)
	$(Q)tests/guests/run $(BUILD)

.PRECIOUS: $(BUILD)/guests/%.o

-include $(wildcard $(BUILD)/guests/*.d)
