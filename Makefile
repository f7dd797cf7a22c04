# trvmm: one Makefile, explicit source lists, output under build/. `make help` lists the targets; V=1 shows the commands.

BUILD ?= build
CC ?= gcc
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),@:,@printf '  %-8s %s\n' $(1) $(2))

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wcast-qual -Wvla -Wundef -Wwrite-strings -Wstrict-prototypes \
	-Wmissing-prototypes -Wimplicit-fallthrough -Werror
CFLAGS ?= -O2 -g
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2
ALL_CFLAGS = -std=gnu11 $(WARNINGS) $(CFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer,$(HARDEN)) \
	-fPIE -D_GNU_SOURCE -I. -MMD -MP
LDLIBS := -lseccomp -lzstd -llzma -llz4 -lz -lcrypto -lpthread
# The program is static: no loader, no relocation of libraries on the way to the first guest instruction. Sanitizers need the loader.
LDFLAGS_MAIN = $(if $(SANITIZE),-fsanitize=$(SANITIZE) -pie,-static-pie) -Wl,-z,relro,-z,now -Wl,--gc-sections

# ---- sources, by folder ---------------------------------------------------------------------------------------------------------
BASE_SRCS := base/error.c base/iov.c base/loop.c
LAYERS_SRCS :=
EXT4GEN_SRCS :=
VIRTIO_SRCS := devices/virtio/virtq.c devices/virtio/virtio_device.c devices/virtio/virtio_mmio.c
BLK_SRCS := devices/virtio-blk/virtio_blk.c
VSOCK_SRCS :=
VMM_SRCS := vmm/guest_mem.c
LIB_SRCS := $(BASE_SRCS) $(LAYERS_SRCS) $(EXT4GEN_SRCS) $(VIRTIO_SRCS) $(BLK_SRCS) $(VSOCK_SRCS) $(VMM_SRCS)

# Unit tests: tests/unit/test_X.c becomes $(BUILD)/tests/test_X, linked with everything but main.
UNIT_TESTS := $(notdir $(basename $(wildcard tests/unit/test_*.c)))

LIB_OBJS := $(LIB_SRCS:%.c=$(BUILD)/obj/%.o)

.PHONY: all unit clean
all: $(BUILD)/trvmm

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/libtrvmm.a: $(LIB_OBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/trvmm: $(BUILD)/obj/vmm/main.o $(BUILD)/libtrvmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS_MAIN) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(BUILD)/libtrvmm.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -pie -o $@ $^ -lcriterion $(LDLIBS)

unit: $(UNIT_TESTS:%=$(BUILD)/tests/%)
	$(Q)set -e; for t in $^; do $$t; done

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
