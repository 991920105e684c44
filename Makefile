# Vellum. `make help` lists the targets; `make run` and `make test` need
# nothing but a Debian machine: they install what is missing (scripts/setup).

# --- what a user may set -----------------------------------------------------
B       ?= build#         where everything goes
M       ?= 256M#          RAM of the virtual machine
CPUS    ?= 1#             its processors
ACCEL   ?= tcg#           kvm is often slower when it is nested
Q       ?=#               further arguments for QEMU
CMD     ?=#               words for the kernel's command line
TEST    ?=#               run only tests that begin so, or this scenario
DEBUG   ?= 1#             poison, red zones, call sites, slow checks
WERROR  ?=#               1: warnings are errors
V       ?=#               1: show every command
HOSTS   ?= gcc clang gcc-release gcc-tsan gcc-schedule#  builds of host tests
SETUP   ?=#               skip: do not look for missing tools
export B M CPUS ACCEL Q CMD TEST V HOSTS SETUP

# --- tools and flags ---------------------------------------------------------
ifeq ($(origin CC),default)
CC      := gcc
endif
NASM    ?= nasm
LD      ?= ld
quiet   := $(if $(V),,@)
say      = $(if $(V),@:,@printf '  %-7s %s\n' '$(1)' '$(2)')

WARN    := -Wall -Wextra -Wconversion -Wshadow -Wmissing-prototypes \
           $(if $(WERROR),-Werror)
INCLUDE := -I. -Imm/include -Imm
STD     ?= gnu11
COMMON  := -std=$(STD) -g $(WARN) $(INCLUDE) -MMD -MP \
           -ffile-prefix-map=$(CURDIR)/=
# Every call can be found: each function makes its frame first, if it makes
# one, and jumps to no other in its place.
BACKTRACE := -fno-optimize-sibling-calls $(if $(findstring clang,$(CC)),\
             -mllvm -enable-shrink-wrap=false,-fno-shrink-wrap)
KCFLAGS := $(COMMON) -O2 -ffreestanding -fno-pic -fno-pie -mno-red-zone \
           -mgeneral-regs-only -mcmodel=kernel -fno-stack-protector \
           -fno-omit-frame-pointer -fno-strict-aliasing -fcf-protection=none \
           -fno-delete-null-pointer-checks -fno-asynchronous-unwind-tables \
           $(if $(filter 1,$(DEBUG)),$(BACKTRACE)) \
           -DMM_PORT_HEADER='"kernel/mm_port.h"' -DMM_DEBUG=$(DEBUG) \
           -DMM_INJECT=$(DEBUG)
KLDFLAGS := -nostdlib -static -z max-page-size=0x1000 -z noexecstack \
           --fatal-warnings --warn-common --build-id=none -T linker.ld

# Builds of the host tests are named after a compiler and what is particular:
#   -release   without MM_DEBUG
#   -tsan      the tests with threads, under ThreadSanitizer. It is not shown
#              the simulation, whose lock would hide races of the library; and
#              it has room for 64 GiB of simulated RAM only.
#   -schedule  the tests under tests/host/schedule.c: the same sanitizer's
#              calls at each access to memory, but a library of our own.
SANITIZE ?= -fsanitize=address,undefined -fno-sanitize-recover=all
THREAD  := -fsanitize=thread
SCHEDULED = $(filter mm/map/% mm/base/%,$(1))
UNSEEN    = $(filter-out %/sim_access.c,$(filter tests/host/sim%,$(1)))
# Part of the simulated MMU, as it were.
WALKER    = $(filter mm/map/walk.c,$(1))
SANITIZE_         = $(SANITIZE)
SANITIZE_release  = $(SANITIZE)
SANITIZE_tsan     = $(if $(call UNSEEN,$(1))$(call WALKER,$(1)),,$(THREAD))
SANITIZE_schedule = $(if $(call WALKER,$(1)),,$(if \
                    $(call SCHEDULED,$(1)),$(THREAD)))
HCFLAGS := $(COMMON) -O1 -fno-omit-frame-pointer -fno-strict-aliasing \
           -D_DEFAULT_SOURCE -DMM_INJECT=1 \
           -DMM_PORT_HEADER='"tests/host/sim_port.h"'
HCFLAGS_         := -DMM_DEBUG=1
HCFLAGS_release  := -DMM_DEBUG=0
HCFLAGS_tsan     := -DMM_DEBUG=1 -DSIM_PHYSICAL_END='(UINT64_C(1) << 36)' \
                    -DSIM_TSAN=1
HCFLAGS_schedule := -DMM_DEBUG=1
# Calls that the simulation looks at: tests/host/sim_watch.h.
WATCHED := frame_alloc_at frame_free pt_open pt_close tlb_commit \
           tlb_begin_lazy tlb_end_lazy tlb_switch
HLDFLAGS         := $(WATCHED:%=-Wl,--wrap=%) -lpthread
HLDFLAGS_        := $(SANITIZE)
HLDFLAGS_release := $(SANITIZE)
HLDFLAGS_tsan    := $(THREAD)

# --- sources and objects -----------------------------------------------------
KERNEL_SOURCES ?= $(shell find boot kernel mm tests/shared tests/kernel \
                    -name '*.c' -o -name '*.asm' | sort)
# Parts of the kernel that need no machine are tested here, too.
HOST_KERNEL    := kernel/acpi.c kernel/cmdline.c kernel/multiboot2.c \
                  $(addprefix kernel/lib/,format.c number.c) \
                  $(addprefix kernel/monitor/,words.c line.c tlb_geometry.c)
HOST_SOURCES   ?= $(shell find mm tests/shared tests/host -name '*.c' | sort) \
                  $(HOST_KERNEL)
KERNEL_OBJECTS := $(KERNEL_SOURCES:%=$(B)/kernel/%.o)
KERNEL  := $(B)/vellum.elf
ISO     := $(B)/vellum.iso
HOST_TESTS := $(HOSTS:%=$(B)/host-%/test)
# What the builds have all of, and what only those that are made for it.
HOST_BASE  := $(filter mm/% tests/shared/test.c tests/host/main.c \
              tests/host/sim%,$(HOST_SOURCES))
HOST_SCHEDULE         := $(filter tests/host/schedule% %_schedule.c,\
                         $(HOST_SOURCES))
HOST_SOURCES_         := $(filter-out $(HOST_SCHEDULE),$(HOST_SOURCES))
HOST_SOURCES_release  := $(HOST_SOURCES_)
HOST_SOURCES_tsan     := $(HOST_BASE) $(filter %_threads.c,$(HOST_SOURCES))
HOST_SOURCES_schedule := $(HOST_BASE) $(HOST_SCHEDULE)

# What scripts/setup must find before anything is compiled.
GROUP   := $(or $(if $(filter check mutants,$(MAKECMDGOALS)),check),$\
           $(if $(filter test test-% clang,$(MAKECMDGOALS) $(CC)),test),$\
           $(if $(filter run run-uefi debug bench,$(MAKECMDGOALS)),run),build)
READY   := $(B)/.setup-$(GROUP)

# --- what to type ------------------------------------------------------------
.PHONY: all iso run run-uefi debug test test-host test-kernel test-bochs check \
        check-models mutants bench setup clean help release compile FORCE
.DELETE_ON_ERROR:
all: iso            ## the kernel and the ISO
iso: $(ISO)         ## the same: build/vellum.iso
run: iso            ## boot it in QEMU, on this terminal
	@scripts/run
run-uefi: iso       ## the same with UEFI firmware
	@FIRMWARE=uefi scripts/run
debug: iso          ## boot it stopped, with gdb at the stub
	@scripts/debug
test: $(HOST_TESTS) iso release   ## all tests
	@scripts/test
test-host: $(HOST_TESTS)          ## the modules here, under sanitizers
	@scripts/test-host
test-kernel: iso release          ## the kernel in QEMU, all scenarios
	@scripts/test-kernel
test-bochs: iso     ## the kernel's own tests in Bochs (slow)
	@scripts/setup bochs
	@tests/qemu/bochs
check: $(READY)     ## what a compiler or a script can check
	@MAKE='$(MAKE)' scripts/check
check-models:       ## the TLB protocol in every order of its steps
	@scripts/setup models
	@scripts/check-models
mutants: $(READY)   ## known bugs put in, one by one: a test must notice
	@MAKE='$(MAKE)' scripts/mutants
bench: release      ## figures, counted in instructions
	@scripts/bench
setup:              ## install everything `make check` needs
	@scripts/setup check
clean:              ## remove build/
	rm -rf $(B)
help:               ## this text
	@scripts/help

# --- how it is made ----------------------------------------------------------
$(READY): scripts/setup
	@DRY= scripts/setup $(GROUP)
	@mkdir -p $(@D) && touch $@

# Other sources than last time: everything is linked again.
$(B)/sources: export LIST := $(KERNEL_SOURCES) $(HOST_SOURCES)
$(B)/sources: FORCE
	@mkdir -p $(@D)
	@echo "$$LIST" | cmp -s - $@ || echo "$$LIST" >$@

# Other flags than last time: everything is compiled again.
$(B)/flags: export FLAGS := $(CC) $(KCFLAGS) $(KLDFLAGS) $(NASM) $(HCFLAGS) \
                            $(SANITIZE) $(HCFLAGS_tsan) $(HLDFLAGS)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo "$$FLAGS" | cmp -s - $@ || echo "$$FLAGS" >$@

$(B)/kernel/%.c.o: %.c $(B)/flags | $(READY)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(quiet)$(CC) $(KCFLAGS) -c $< -o $@

# gdb trips over what NASM says of code in sections far apart: boot/.
$(B)/kernel/%.asm.o: %.asm $(B)/flags | $(READY)
	$(call say,NASM,$<)
	@mkdir -p $(@D)
	$(quiet)$(NASM) -f elf64 $(if $(filter-out boot/%,$<),-g -F dwarf) \
	    -Iboot/ -I$(B)/ -MD $(@:.o=.d) -MP $< -o $@

# The console font: public domain, from the package console-setup-linux.
$(B)/font.psf: | $(READY)
	@mkdir -p $(@D)
	$(quiet)gunzip -c /usr/share/consolefonts/Uni2-VGA16.psf.gz >$@
$(B)/kernel/kernel/console/font_data.asm.o: $(B)/font.psf

# Two links: the second puts in the tables of the addresses of the first.
$(B)/symbols-0.asm: scripts/symbols | $(READY)
	@mkdir -p $(@D)
	$(quiet)scripts/symbols >$@
$(B)/symbols-1.asm: $(B)/pass-1.elf scripts/symbols
	$(quiet)scripts/symbols $< >$@
$(B)/symbols-%.o: $(B)/symbols-%.asm
	$(quiet)$(NASM) -f elf64 $< -o $@
$(B)/pass-1.elf: $(KERNEL_OBJECTS) $(B)/symbols-0.o linker.ld $(B)/sources
	$(quiet)$(LD) $(KLDFLAGS) $(filter %.o,$^) -o $@
$(KERNEL): $(B)/pass-1.elf $(B)/symbols-1.o
	$(call say,LINK,$@)
	$(quiet)$(LD) $(KLDFLAGS) $(KERNEL_OBJECTS) $(B)/symbols-1.o -o $@
	$(quiet)scripts/symbols --same $< $@

# Host tests: build/host-gcc/test and so on, as told above. $(1) is the build,
# $(2) its compiler, $(3) its kind.
define host_rules
$(B)/host-$(1)/%.c.o: %.c $(B)/flags | $(READY)
	$$(call say,CC[$(1)],$$<)
	@mkdir -p $$(@D)
	$$(quiet)$(2) $$(HCFLAGS) $$(call SANITIZE_$(3),$$<) $(HCFLAGS_$(3)) \
	    -c $$< -o $$@
$(B)/host-$(1)/test: $(HOST_SOURCES_$(3):%=$(B)/host-$(1)/%.o) $(B)/sources
	$$(call say,LINK,$$@)
	$$(quiet)$(2) $(HLDFLAGS_$(3)) $$(filter %.o,$$^) -o $$@ $$(HLDFLAGS)
endef
$(foreach h,$(HOSTS),$(eval $(call host_rules,$(h),\
    $(word 1,$(subst -, ,$(h))),$(word 2,$(subst -, ,$(h))))))

$(ISO): $(KERNEL) iso/grub.cfg scripts/iso
	$(call say,ISO,$@)
	$(quiet)scripts/iso $(KERNEL) $@

# The kernel without debugging: for a scenario, and for the figures.
release: | $(READY)
	@$(MAKE) --no-print-directory B=$(B)/release DEBUG=0 SETUP=skip iso

compile: $(KERNEL) $(foreach h,$(HOSTS),$(HOST_SOURCES:%=$(B)/host-$(h)/%.o))

-include $(KERNEL_OBJECTS:.o=.d)
-include $(foreach h,$(HOSTS),$(HOST_SOURCES:%=$(B)/host-$(h)/%.d))
