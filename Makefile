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
HOSTS   ?= gcc clang gcc-release gcc-restart gcc-tsan gcc-schedule \
           gcc-explore#   host tests
FUZZ_SECONDS ?= 60#       time for each target of make fuzz
SEED    ?=#               of random host tests, as a failure has printed it
STEPS   ?=#               how many test tlb_schedule takes
SETUP   ?=#               skip: do not look for missing tools
UPDATE  ?=#               1: bench-check writes bench/vellum.csv, fuzz seeds
export B M CPUS ACCEL Q CMD TEST V HOSTS SETUP UPDATE FUZZ_SECONDS

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
KASFLAGS := -DMM_DEBUG=$(DEBUG) -DMM_PORT_RESTARTS
KLDFLAGS := -nostdlib -static -z max-page-size=0x1000 -z noexecstack \
           --fatal-warnings --warn-common --build-id=none -T linker.ld

# Builds of the host tests are named after a compiler and what is particular:
#   -release   without MM_DEBUG; the sanitizer knows free objects of the heap
#   -restart   the heap's tests with its fast ways as the release kernel has
#              them, and one that interrupts those at each of their steps
#   -tsan      the tests with threads, under ThreadSanitizer. It is not shown
#              the simulation, whose lock would hide races of the library; and
#              it has room for 64 GiB of simulated RAM only.
#   -schedule  the tests under tests/host/schedule.c: the same sanitizer's
#              calls at each access to memory, but a library of our own.
#   -explore   the same for the frames, and for the tables under their records:
#              tests/host/schedule_explore.c. What it
#              cannot see it cannot undo: no memset() and no loop is the
#              compiler's own. And a wait that must end does so soon.
SANITIZE ?= -fsanitize=address,undefined -fno-sanitize-recover=all
THREAD  := -fsanitize=thread
SCHEDULED = $(filter mm/map/% mm/space/% mm/base/%,$(1))
EXPLORED  = $(filter mm/frame/% mm/base/% mm/map/install.c mm/map/walk.c \
            mm/mm.c,$(1))
UNSEEN    = $(filter-out %/sim_access.c,$(filter tests/host/sim%,$(1)))
# Part of the simulated MMU, as it were.
WALKER    = $(filter mm/map/walk.c,$(1))
SANITIZE_         = $(SANITIZE)
SANITIZE_release  = $(SANITIZE)
SANITIZE_restart  = $(SANITIZE)
SANITIZE_tsan     = $(if $(call UNSEEN,$(1))$(call WALKER,$(1)),,$(THREAD))
SANITIZE_schedule = $(if $(call WALKER,$(1)),,$(if \
                    $(call SCHEDULED,$(1)),$(THREAD)))
SANITIZE_explore  = $(if $(call EXPLORED,$(1)),$(THREAD))
HCFLAGS := $(COMMON) -O1 -fno-omit-frame-pointer -fno-strict-aliasing \
           -D_DEFAULT_SOURCE -DMM_INJECT=1 \
           -DMM_PORT_HEADER='"tests/host/sim_port.h"'
HCFLAGS_         := -DMM_DEBUG=1
HCFLAGS_release  := -DMM_DEBUG=0 \
                    -DSIM_HIDES=$(if $(findstring address,$(SANITIZE)),1,0)
HCFLAGS_restart  := -DMM_DEBUG=0 -DSIM_RESTARTS=1
HASFLAGS         := -DMM_DEBUG=0 -DMM_PORT_RESTARTS
HCFLAGS_tsan     := -DMM_DEBUG=1 -DSIM_PHYSICAL_END='(UINT64_C(1) << 36)' \
                    -DSIM_TSAN=1
HCFLAGS_schedule := -DMM_DEBUG=1
HCFLAGS_explore  := -DMM_DEBUG=1 -DFRAME_PATIENCE=20 -fno-builtin \
                    -fno-tree-loop-distribute-patterns
# Calls that the simulation looks at: tests/host/sim_watch.h.
WATCHED := frame_alloc_at frame_alloc_bulk_at frame_free frame_free_bulk \
           frame_free_row pt_open pt_open_two pt_close tlb_commit \
           tlb_begin_lazy tlb_end_lazy tlb_switch
HLDFLAGS         := $(WATCHED:%=-Wl,--wrap=%) -lpthread
HLDFLAGS_        := $(SANITIZE)
HLDFLAGS_release := $(SANITIZE)
HLDFLAGS_restart := $(SANITIZE) -Wl,-z,noexecstack
# Before each swap another thread may go on: tests/host/players_threads.c.
HLDFLAGS_tsan    := $(THREAD) $(foreach b,32 64,$(foreach w,strong weak,\
                    -Wl,--wrap=__tsan_atomic$b_compare_exchange_$w))
HLDFLAGS_explore := $(foreach f,memset memcpy memmove,-Wl,--wrap=$f)

# mm/ beside other allocators in an ordinary process: the library as in the
# release kernel, but for where code may lie; what calls it, and them, through
# pointers to the functions themselves.
NLIBFLAGS := $(filter-out $(BACKTRACE) -mcmodel=% -DMM_%,$(KCFLAGS)) \
             -DMM_DEBUG=0 -DMM_INJECT=0 \
             -DMM_PORT_HEADER='"bench/native/port.h"'
NCFLAGS   := $(COMMON) -O2 -fPIE -fno-plt -fcf-protection=none \
             -fno-stack-protector -D_DEFAULT_SOURCE -DMM_DEBUG=0 -DMM_INJECT=0 \
             -DMM_PORT_HEADER='"bench/native/port.h"'

# --- sources and objects -----------------------------------------------------
KERNEL_SOURCES ?= $(shell find boot kernel mm tests/shared tests/kernel \
                    -name '*.c' -o -name '*.asm' | sort)
# Parts of the kernel that need no machine are tested here, too.
HOST_KERNEL    := kernel/acpi.c kernel/cmdline.c kernel/mtrr.c \
                  kernel/multiboot2.c \
                  $(addprefix kernel/lib/,format.c number.c) \
                  $(addprefix kernel/monitor/,changes.c words.c line.c \
                    tlb_geometry.c)
HOST_SOURCES   ?= $(shell find mm tests/shared tests/host -name '*.c' | sort) \
                  $(HOST_KERNEL)
KERNEL_OBJECTS := $(KERNEL_SOURCES:%=$(B)/kernel/%.o)
KERNEL  := $(B)/vellum.elf
ISO     := $(B)/vellum.iso
HOST_TESTS := $(HOSTS:%=$(B)/host-%/test)
# What the builds have all of, and what only those that are made for it.
HOST_BASE  := $(filter mm/% tests/shared/test.c tests/shared/random.c \
              tests/shared/pt_% tests/shared/heap_% tests/host/main.c \
              tests/host/sim%,\
              $(HOST_SOURCES))
HOST_EXPLORE          := $(filter tests/host/schedule% %_explore.c,\
                         $(HOST_SOURCES))
HOST_SCHEDULE         := $(filter tests/host/schedule% %_schedule.c,\
                         $(HOST_SOURCES))
HOST_SOURCES_         := $(filter-out $(HOST_SCHEDULE) $(HOST_EXPLORE),\
                         $(HOST_SOURCES))
HOST_SOURCES_release  := $(HOST_SOURCES_)
HOST_SOURCES_restart  := $(HOST_BASE) mm/x86_64/magazine.asm $(filter \
                         %/access.c %/check_heap.c %_kmalloc.c %_restart.c \
                         %_guard_blocks.c %/test_shrink.c %_magazine.c \
                         %_slab.c %_slab_pool.c %_slab_store.c,\
                         $(HOST_SOURCES))
HOST_SOURCES_tsan     := $(HOST_BASE) $(filter %_threads.c %/test_bitfield.c \
                         %/test_blocks.c,$(HOST_SOURCES))
HOST_SOURCES_schedule := $(HOST_BASE) $(filter-out %_explore.c %_reduce.c \
                         %_trace.c %_undo.c %_words.c %_frames.c,\
                         $(HOST_SCHEDULE))
HOST_SOURCES_explore  := $(HOST_BASE) $(filter-out %_scene.c,$(HOST_EXPLORE))

# Fuzz targets: the code under test and the simulation, with libFuzzer.
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/*.c))
FUZZERS   := $(FUZZ_SOURCES:tests/fuzz/fuzz_%.c=$(B)/fuzz/%)
FUZZERS   := $(filter $(B)/fuzz/%,$(FUZZERS))
FUZZ_BASE := $(filter-out tests/host/main.c tests/shared/test.c,$(HOST_BASE)) \
             $(HOST_KERNEL) $(filter-out tests/fuzz/fuzz_%,$(FUZZ_SOURCES))
# Where it is worth to count what was reached; and what was compared with what,
# which takes three quarters of the time where loops are long.
COUNTED   := -fsanitize-coverage=inline-8bit-counters,pc-table
PARSERS   := kernel/% mm/frame/memmap.c tests/fuzz/%
FUZZED     = $(if $(filter tests/fuzz/fuzz_frame.c tests/fuzz/frame%,$(1)),,\
             $(if $(filter $(PARSERS),$(1)),-fsanitize=fuzzer-no-link,\
             $(if $(filter mm/frame/% mm/map/% mm/heap/% tests/shared/pt% \
             tests/shared/heap%,$(1)),\
             $(COUNTED))))

# bench/native: the workloads, and what they are linked with.
NATIVE_WORK     := $(patsubst %,bench/native/%.c,\
                   main measure heap trace frames sparse)
NATIVE_PEERS    := mimalloc jemalloc tcmalloc glibc
NATIVE          := $(addprefix $(B)/native/,null vellum $(NATIVE_PEERS))
NATIVE_LIBRARY  := $(wildcard mm/base/*.c mm/frame/*.c mm/heap/*.c) \
                   mm/x86_64/magazine.asm
NATIVE_null     := bench/native/peer_null.c
NATIVE_vellum   := $(addprefix bench/native/,vellum.c port.c) $(NATIVE_LIBRARY)
$(foreach p,$(NATIVE_PEERS),$(eval NATIVE_$(p) := bench/native/peer_malloc.c))
NATIVE_SOURCES  := $(NATIVE_WORK) $(NATIVE_null) $(NATIVE_vellum) \
                   $(NATIVE_glibc)
NATIVE_LINK_mimalloc := -lmimalloc
NATIVE_LINK_jemalloc := -ljemalloc
NATIVE_LINK_tcmalloc := -ltcmalloc

# What scripts/setup must find before anything is compiled.
GROUP   := $(or $(if $(filter check mutants,$(MAKECMDGOALS)),check),$\
           $(if $(filter bench bench-native,$(MAKECMDGOALS)),bench),$\
           $(if $(filter test test-% fuzz clang,$(MAKECMDGOALS) $(CC)),test),$\
           $(if $(filter run run-uefi debug bench%,$(MAKECMDGOALS)),run),build)
READY   := $(B)/.setup-$(GROUP)

# --- what to type ------------------------------------------------------------
.PHONY: all iso run run-uefi debug test test-host test-kernel test-bochs check \
        soak check-models proofs fuzz mutants bench setup clean help release \
        compile FORCE
.DELETE_ON_ERROR:
all: iso            ## the kernel and the ISO
iso: $(ISO)         ## the same: build/vellum.iso
run: iso            ## boot it in QEMU, on this terminal
	@scripts/run
run-uefi: iso       ## the same with UEFI firmware
	@FIRMWARE=uefi scripts/run
debug: iso          ## boot it stopped, with gdb at the stub
	@scripts/debug
test: $(HOST_TESTS) $(FUZZERS) iso release   ## all tests
	@scripts/test
test-host: $(HOST_TESTS)          ## the modules here, under sanitizers
	@scripts/test-host
test-kernel: iso release          ## the kernel in QEMU, all scenarios
	@scripts/test-kernel
soak: iso release   ## the heap in QEMU, ten million operations (slow)
	@TABLE=tests/qemu/soak scripts/test-kernel
test-bochs: iso     ## the kernel's own tests in Bochs (slow)
	@scripts/setup bochs
	@tests/qemu/bochs
check: $(READY)     ## what a compiler or a script can check
	@MAKE='$(MAKE)' scripts/check
check-models:       ## the TLB protocol in every order of its steps
	@scripts/setup models
	@scripts/check-models
fuzz: $(FUZZERS)    ## inputs that break a parser, frames, tables, the heap
	@scripts/fuzz
proofs: $(READY)  ## CBMC proves bits, trees, entries, cursors, two CPUs' steps
	@scripts/proofs
mutants: $(READY)   ## known bugs put in, one by one: a test must notice
	@MAKE='$(MAKE)' scripts/mutants
bench: release $(NATIVE)  ## figures beside Linux's and the goals, in one table
	@scripts/bench
.PHONY: bench-check bench-linux
bench-check: release  ## no figure is over 5 % worse (UPDATE=1: write them)
	@scripts/bench-check
bench-linux:        ## Linux's figures, measured again: bench/linux.csv
	@scripts/setup linux
	@scripts/bench-linux
.PHONY: bench-native
bench-native: $(NATIVE)           ## mm/ beside other allocators, as ratios
	@scripts/bench-native
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
$(B)/flags: export FLAGS := $(CC) $(KCFLAGS) $(KASFLAGS) $(KLDFLAGS) $(NASM) \
                            $(HCFLAGS) $(SANITIZE) $(HCFLAGS_tsan) \
                            $(HLDFLAGS) $(NCFLAGS)
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
	    $(KASFLAGS) -Iboot/ -I$(B)/ -MD $(@:.o=.d) -MP $< -o $@

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
$(B)/host-$(1)/%.asm.o: %.asm $(B)/flags | $(READY)
	$$(call say,NASM[$(1)],$$<)
	@mkdir -p $$(@D)
	$$(quiet)$(NASM) -f elf64 $(HASFLAGS) -g -F dwarf $$< -o $$@
$(B)/host-$(1)/test: $(HOST_SOURCES_$(3):%=$(B)/host-$(1)/%.o) $(B)/sources
	$$(call say,LINK,$$@)
	$$(quiet)$(2) $(HLDFLAGS_$(3)) $$(filter %.o,$$^) -o $$@ $$(HLDFLAGS)
endef
$(foreach h,$(HOSTS),$(eval $(call host_rules,$(h),\
    $(word 1,$(subst -, ,$(h))),$(word 2,$(subst -, ,$(h))))))

# build/fuzz/multiboot2 and so on.
$(B)/fuzz/objects/%.c.o: %.c $(B)/flags | $(READY)
	$(call say,CC[fuzz],$<)
	@mkdir -p $(@D)
	$(quiet)clang $(HCFLAGS) $(HCFLAGS_) $(SANITIZE) $(call FUZZED,$<) \
	    -c $< -o $@
$(FUZZERS): $(B)/fuzz/%: $(B)/fuzz/objects/tests/fuzz/fuzz_%.c.o \
    $(FUZZ_BASE:%=$(B)/fuzz/objects/%.o) $(B)/sources
	$(call say,LINK,$@)
	$(quiet)clang $(SANITIZE) -fsanitize=fuzzer $(filter %.o,$^) -o $@ \
	    $(HLDFLAGS)

# The bench beside other allocators: build/native/vellum and so on.
$(B)/native/%.c.o: %.c $(B)/flags | $(READY)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(quiet)$(CC) $(if $(filter mm/%,$<),$(NLIBFLAGS),$(NCFLAGS)) -c $< -o $@
$(B)/native/%.asm.o: %.asm $(B)/flags | $(READY)
	$(call say,NASM,$<)
	@mkdir -p $(@D)
	$(quiet)$(NASM) -f elf64 $(HASFLAGS) -g -F dwarf $< -o $@
define native_rules
$(B)/native/$(1): $(patsubst %,$(B)/native/%.o,$(NATIVE_WORK) $(NATIVE_$(1)))
	$$(call say,LINK,$$@)
	$$(quiet)$$(CC) -no-pie -Wl,-z,noexecstack $$^ $(NATIVE_LINK_$(1)) \
	    -lpthread -o $$@
endef
$(foreach p,null vellum $(NATIVE_PEERS),$(eval $(call native_rules,$(p))))

$(ISO): $(KERNEL) iso/grub.cfg iso/pieces.cfg scripts/iso
	$(call say,ISO,$@)
	$(quiet)scripts/iso $(KERNEL) $@

# The kernel without debugging: for a scenario, and for the figures.
release: | $(READY)
	@$(MAKE) --no-print-directory B=$(B)/release DEBUG=0 SETUP=skip iso

compile: $(KERNEL) $(foreach h,$(HOSTS),$(patsubst %,$(B)/host-$(h)/%.o,\
         $(HOST_SOURCES) $(FUZZ_SOURCES))) \
         $(NATIVE_SOURCES:%=$(B)/native/%.o)

-include $(KERNEL_OBJECTS:.o=.d)
-include $(NATIVE_SOURCES:%=$(B)/native/%.d)
-include $(foreach h,$(HOSTS),$(HOST_SOURCES:%=$(B)/host-$(h)/%.d))
-include $(patsubst %,$(B)/fuzz/objects/%.d,$(FUZZ_BASE) $(FUZZ_SOURCES))
