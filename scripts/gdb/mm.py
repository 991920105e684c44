# SPDX-License-Identifier: MIT
# mm: page tables and frames of a stopped kernel, as its monitor shows them.
#
#   (gdb) source scripts/gdb/mm.py        make debug has done so
#   (gdb) mm pt [-f wxus] [-r A B]        ranges of the tables, merged
#   (gdb) mm pagewalk ADDR                an address through each level
#   (gdb) mm v2p ADDR, mm p2v PHYSICAL    translation, and back
#   (gdb) mm explain ADDR                 what each kind of access would do
#   (gdb) mm page ADDR|PFN                the record of a frame
#
# Without "mm" too, where the name is free. ADDR is any expression.
#
# Tables are read by their physical addresses, so that nothing depends on what
# the loaded tables map: QEMU's stub does so after a packet of its own. In a
# core of the guest's memory addresses are physical already.
import struct

import gdb

# As mm/x86_64/pte.h has them.
P, RW, US, PS, G = 1 << 0, 1 << 1, 1 << 2, 1 << 7, 1 << 8
COW, OWN, XD = 1 << 9, 1 << 10, 1 << 63
FRAME = ((1 << 52) - 1) & ~0xFFF
TAG = 0x7F << 52 | 1 << 11
ACCESSED, DIRTY = 1 << 5, 1 << 6
# What is not present: no access, A, D and the third bit of the memory type.
NONE, WAS_ACCESSED, WAS_DIRTY, PAT_OTHER = 1 << 59, 1 << 60, 1 << 61, 1 << 62
KINDS = ("damaged: bits that no state has", "promise of a zeroed frame",
         "promise of a page of an object", "guard: nothing, ever",
         "guard that may move", "parked frame: access is off", "swapped out",
         "damaged: bits that no state has")
ZERO, OBJECT, PARKED, SWAPPED = 1, 2, 5, 6
MEMORY = ("WB", "WC", "UC-", "UC", "WB", "WP", "UC-", "WT")
LEVELS = ("PT", "PD", "PDPT", "PML4", "PML5")
PAGES = ("4K", "2M", "1G")
LEAVES = ("4 KiB", "2 MiB", "1 GiB")

PAGE = 4096
IMAGE = 0xFFFFFFFF80000000  # linker.ld: virtual minus physical addresses
DIRECT = 0xFFFF800000000000  # kernel/layout.h
TAIL = 0xFF  # mm/record.h: RECORD_TAIL
TABLE_COUNT = 0x3FF  # mm/map/table.h
MASK = (1 << 64) - 1


def register(name):
    """A register's value, or None where there is none (in a core)."""
    try:
        return int(gdb.parse_and_eval("$" + name))
    except (gdb.error, TypeError, ValueError):
        return None


class Physical:
    """Physical memory, while `with` lasts."""

    def __enter__(self):
        self.is_live = self.switch(1)
        return self

    def __exit__(self, *reason):
        if self.is_live:
            self.switch(0)

    @staticmethod
    def switch(mode):
        packet = "maintenance packet Qqemu.PhyMemMode:%d" % mode
        try:
            return '"OK"' in gdb.execute(packet, to_string=True)
        except gdb.error:  # no remote target
            return False

    def read(self, address, count):
        return gdb.selected_inferior().read_memory(address, count).tobytes()

    def table(self, address):
        return struct.unpack("<512Q", self.read(address, PAGE))

    def entry(self, table, index):
        return struct.unpack("<Q", self.read(table + 8 * index, 8))[0]

    def variable(self, name):
        """A variable of the kernel's image."""
        value = gdb.lookup_global_symbol(name).value()
        data = self.read(int(value.address) - IMAGE & MASK, value.type.sizeof)
        return gdb.Value(data, value.type)


class Tables:
    """The tables in CR3; in a core, where it is not known, the kernel's."""

    def __init__(self, memory):
        self.memory = memory
        features = memory.variable("pt_features")
        self.levels = int(features["levels"])
        if self.levels == 0:
            raise gdb.GdbError("the kernel has no tables yet: "
                               "let it come to kernel_run first")
        self.has_nx = bool(features["has_nx"])
        self.physical_bits = int(features["physical_bits"])
        self.has_1g = bool(features["has_1g"])
        root = register("cr3")
        if root is None:
            root = int(memory.variable("pt_kernel")["root"]["v"]) * PAGE
        self.root = root & FRAME

    def canonical(self, address):
        unused = 64 - 12 - 9 * self.levels
        sign = address >> (63 - unused) & 1
        rest = (1 << 64) - (1 << (64 - unused))
        return address | rest if sign else address & ~rest

    def reserved(self, entry, level):
        bits = FRAME & ~((1 << self.physical_bits) - 1)
        bits |= 0 if self.has_nx else XD
        if level > 2 or (level == 2 and not self.has_1g):
            bits |= PS
        elif level > 0 and entry & PS:
            bits |= span(level) - 1 & ~0x1FFF
        return entry & bits if entry & P else 0

    def walk(self, address):
        """Steps (level, table, index, entry), from the top."""
        table = self.root
        steps = []
        if self.canonical(address) != address:
            raise gdb.GdbError("0x%x is not canonical: bits %u to 63 differ" %
                               (address, 11 + 9 * self.levels))
        for level in range(self.levels - 1, -1, -1):
            index = address >> shift(level) & 511
            entry = self.memory.entry(table, index)
            steps.append((level, table, index, entry))
            if not is_table(entry, level) or self.reserved(entry, level):
                break
            table = entry & FRAME
        return steps

    def leaves(self, start=0, end=1 << 64):
        """Entries that are no tables: (address, level, entry, rights)."""
        rights = RW | US | XD  # XD inverted: narrows like the others
        return self.leaves_in(self.root, self.levels - 1, 0, rights, start, end)

    def leaves_in(self, table, level, base, rights, start, end):
        for index, entry in enumerate(self.memory.table(table)):
            address = base + (index << shift(level))
            if level == self.levels - 1:
                address = self.canonical(address)
            if not entry or address >= end or address + span(level) <= start:
                continue
            own = entry ^ XD if self.has_nx else entry | XD
            if not is_table(entry, level):
                yield address, level, entry, rights & own
                continue
            yield from self.leaves_in(entry & FRAME, level - 1, address,
                                      rights & own, start, end)


def shift(level):
    return 12 + 9 * level


def span(level):
    return 1 << shift(level)


def is_table(entry, level):
    return bool(entry & P) and level > 0 and not entry & PS


def is_leaf(entry, level):
    return bool(entry & P) and not is_table(entry, level)


def memory_of(entry, level):
    bit = PAT_OTHER if not entry & P else 1 << (12 if level > 0 else 7)
    has_bit = not is_table(entry, level) and entry & bit
    return entry >> 3 & 3 | (4 if has_bit else 0)


def frame_of(entry, level):
    """Where a leaf or a table begins; of what is absent, its number."""
    if not entry & P:
        return ~entry & FRAME
    return entry & FRAME & ~(span(level) - 1) if is_leaf(entry, level) \
        else entry & FRAME


def kind_of(entry):
    return entry >> 5 & 7


def together(steps, has_nx):
    """RW, US and XD (inverted) of all levels."""
    rights = RW | US | XD
    for _, _, _, entry in steps:
        rights &= entry ^ XD if has_nx else entry | XD
    return rights


def rights_text(rights):
    return "r%s%s" % ("w" if rights & RW else "-", "x" if rights & XD else "-")


def bytes_text(count):
    for size, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"),
                       (1 << 10, "KiB")):
        whole, tenth = count // size, count % size * 10 // size
        if whole and (not tenth or whole >= 100):
            return "%u %s" % (whole, name)
        if whole:
            return "%u.%u %s" % (whole, tenth, name)
    return "%u bytes" % count


def tag_words(entry):
    tag = entry >> 52 & 0x7F | (entry >> 11 & 1) << 7
    return ["tag 0x%x" % tag] if tag else []


def absent_text(entry):
    """What an entry that is neither absent nor present says."""
    kind = kind_of(entry)
    is_strange = (kind == PARKED and not entry & NONE) or (
        kind < PARKED and entry & (WAS_ACCESSED | WAS_DIRTY))
    if is_strange:
        return KINDS[0]
    words = [KINDS[kind]]
    if kind in (ZERO, OBJECT, PARKED, SWAPPED):
        rights = rights_text(entry ^ XD)
        words.append("-" + rights[1:] if entry & NONE else rights)
        words += [name for bit, name in (
            (US, "user"), (WAS_ACCESSED, "accessed"), (WAS_DIRTY, "dirty"),
            (OWN, "owned"), (COW, "copy-on-write")) if entry & bit]
    if kind in (OBJECT, PARKED, SWAPPED):
        name = {OBJECT: "page", PARKED: "frame", SWAPPED: "slot"}[kind]
        words.append("%s 0x%x" % (name, frame_of(entry, 0) // PAGE))
    return " ".join(words + tag_words(entry))


def entry_text(tables, entry, level):
    """As explain_entry() in kernel/explain.c."""
    leaf = is_leaf(entry, level)
    if entry == 0:
        return "absent"
    if not entry & P:
        return absent_text(entry)
    words = [LEAVES[level] if leaf else "table", rights_text(entry ^ XD)]
    words += [MEMORY[memory_of(entry, level)]] if leaf else []
    words += [name for bit, name, is_common in (
        (US, "user", True), (G, "global", False), (ACCESSED, "accessed", True),
        (DIRTY, "dirty", False), (OWN, "owned", False),
        (COW, "copy-on-write", False)) if entry & bit and (leaf or is_common)]
    words += tag_words(entry) if leaf else []
    words += ["RESERVED BITS"] if tables.reserved(entry, level) else []
    return " ".join(words)


def print_walk(tables, steps):
    for level, table, index, entry in steps:
        print("  %4s[%3u] at 0x%010x: 0x%016x  %s" %
              (LEVELS[level], index, table + 8 * index, entry,
               entry_text(tables, entry, level)))


def target(tables, address, steps):
    """The physical address, or None."""
    level, _, _, entry = steps[-1]
    if not is_leaf(entry, level) or tables.reserved(entry, level):
        return None
    return frame_of(entry, level) + (address & span(level) - 1)


def record(tables, pfn):
    """The frame's record as a value, or None where it is not backed."""
    base = int(tables.memory.variable("record_base"))
    kind = gdb.lookup_type("struct frame_record")
    address = base + pfn * kind.sizeof
    if pfn >= int(tables.memory.variable("record_frames")):
        return None
    physical = target(tables, address, tables.walk(address))
    if physical is None:
        return None
    return gdb.Value(tables.memory.read(physical, kind.sizeof), kind)


def type_name(value):
    """FRAME_TABLE: "table"."""
    for field in gdb.lookup_type("enum frame_type").fields():
        if field.enumval == int(value["type"]):
            return field.name.replace("FRAME_", "").lower()
    return "unknown"


def is_first(value):
    """Is it the record of a block's first frame, and in use?"""
    return int(value["type"]) != 0 and int(value["order"]) != TAIL


def frame_text(value):
    if value is None:
        return "no record: never handed out, or no RAM"
    if not is_first(value):
        return "free, or inside a larger block"
    refs = int(value["refs"])
    return "%s, order %u, %u holder%s" % (type_name(value), int(value["order"]),
                                          refs, "" if refs == 1 else "s")


def print_effect(tables, address, steps):
    level, _, _, entry = steps[-1]
    rights = together(steps, tables.has_nx)
    physical = target(tables, address, steps)
    print("  all levels together: %s %s, %s page" %
          (rights_text(rights), "user" if rights & US else "supervisor",
           LEAVES[level]))
    print("  memory type: page %s (gdb cannot read the MTRRs)" %
          MEMORY[memory_of(entry, level)])
    print("  0x%x -> physical 0x%x (frame 0x%x: %s)" %
          (address, physical, physical // PAGE,
           frame_text(record(tables, physical // PAGE))))


READ, WRITE, USER, EXEC = 0, 1 << 1, 1 << 2, 1 << 4


def judge(tables, steps, access):
    """Why the access fails and the step to blame, or None: it works."""
    last = len(steps) - 1
    level, _, _, entry = steps[last]
    rights = together(steps, tables.has_nx)
    cr0, cr4 = register("cr0") or 1 << 16, register("cr4") or 0
    by_user = access & USER

    def first(bit, is_set):
        return next(i for i, step in enumerate(steps)
                    if bool(step[3] & bit) == is_set)

    if not entry & P:
        return "entry is not present", last
    if tables.reserved(entry, level):
        return "entry has a reserved bit set", last
    if by_user and not rights & US:
        return "page belongs to the kernel", first(US, False)
    if access & EXEC:
        if not rights & XD:
            return "page is not executable", first(XD, True)
        if not by_user and rights & US and cr4 >> 20 & 1:
            return "page belongs to user mode and SMEP is on", last
        return None
    if not by_user and rights & US and cr4 >> 21 & 1:
        return "page belongs to user mode and SMAP is on", last
    if access & WRITE and not rights & RW and (by_user or cr0 >> 16 & 1):
        return "page is read-only", first(RW, False)
    return None


def run_key(leaf):
    """What neighbours must have in common to be one range."""
    _, level, entry, rights = leaf
    if entry & P:
        return (level, rights, memory_of(entry, level),
                entry & (G | OWN | COW | TAG))
    return (level, kind_of(entry), memory_of(entry, level),
            entry & (RW | US | XD | G | OWN | COW | TAG | NONE))


def runs(tables, start, end):
    """(address, bytes, level, entry, rights), equal neighbours merged."""
    run, key, follows = None, None, 0
    for leaf in tables.leaves(start, end):
        address, level, entry, rights = leaf
        first = max(address, start)
        last = min(address + span(level), end)
        if run and key == run_key(leaf) and first == follows:
            run[1] += last - first
        else:
            if run:
                yield run
            run = [first, last - first, level, entry, rights]
            key = run_key(leaf)
        follows = last
    if run:
        yield run


def has_right(run, letter):
    _, _, _, entry, rights = run
    return bool(entry & P) and {
        "w": bool(rights & RW), "x": bool(rights & XD),
        "u": bool(rights & US), "s": not rights & US}[letter]


def leaf_text(level, entry, rights):
    """Rights, user or supervisor, global, memory type, size of the page."""
    return "%s%s%s %-3s %2s" % (
        rights_text(rights), "u" if rights & US else "s",
        "g" if entry & G else "-", MEMORY[memory_of(entry, level)],
        PAGES[level])


def run_text(run):
    """As a line of the monitor's pt, up to the name of the place."""
    address, count, level, entry, rights = run
    text = leaf_text(level, entry, rights) if entry & P \
        else "----- ---  -  " + absent_text(entry)
    return "%016x-%016x %10s %s" % (address, address + count - 1,
                                    bytes_text(count), text)


# --- commands ----------------------------------------------------------------


def number(text):
    """An expression as an address."""
    value = gdb.parse_and_eval(text)
    if value.type.strip_typedefs().code in (gdb.TYPE_CODE_FUNC,
                                            gdb.TYPE_CODE_ARRAY):
        value = value.address
    return int(value) & MASK


def one(words, usage):
    if len(words) != 1:
        raise gdb.GdbError("usage: " + usage)
    return number(words[0])


def pt(tables, words):
    """The tables' ranges, merged: pt [-f wxus] [-r FROM TO]"""
    letters, start, end = "", 0, 1 << 64
    while words:
        if words[0] == "-f" and set("".join(words[1:2])) <= set("wxus"):
            letters, words = "".join(words[1:2]), words[2:]
        elif words[0] == "-r" and len(words) > 2:
            start, end, words = number(words[1]), number(words[2]), words[3:]
        else:
            raise gdb.GdbError("usage: mm pt [-f wxus] [-r FROM TO]")
    for run in runs(tables, start & ~0xFFF, end + 0xFFF & ~0xFFF):
        if all(has_right(run, letter) for letter in letters):
            print(run_text(run))


def pagewalk(tables, words):
    """An address through each level: pagewalk ADDR"""
    address = one(words, "mm pagewalk ADDR")
    steps = tables.walk(address)
    print_walk(tables, steps)
    if target(tables, address, steps) is not None:
        print_effect(tables, address, steps)


def v2p(tables, words):
    """Virtual to physical address: v2p ADDR"""
    address = one(words, "mm v2p ADDR")
    physical = target(tables, address, tables.walk(address))
    if physical is None:
        raise gdb.GdbError("nothing is mapped at 0x%x" % address)
    print("0x%x" % physical)


def p2v(tables, words):
    """Physical address to all virtual ones: p2v PHYSICAL"""
    physical = one(words, "mm p2v PHYSICAL")
    for address, level, entry, rights in tables.leaves():
        offset = physical - frame_of(entry, level)
        if entry & P and 0 <= offset < span(level):
            print("0x%x  %s" % (address + offset,
                                leaf_text(level, entry, rights)))


def explain(tables, words):
    """What each kind of access would do, and why: explain ADDR"""
    address = one(words, "mm explain ADDR")
    steps = tables.walk(address)
    print_walk(tables, steps)
    if target(tables, address, steps) is not None:
        print_effect(tables, address, steps)
    for who, origin in (("kernel", 0), ("user", USER)):
        for what, access in (("read", READ), ("write", WRITE),
                             ("execute", EXEC)):
            verdict = judge(tables, steps, origin | access)
            reason = "works" if verdict is None else "#PF: %s, by %s[%u]" % (
                verdict[0], LEVELS[steps[verdict[1]][0]], steps[verdict[1]][2])
            print("  %-6s %-7s: %s" % (who, what, reason))


def frame_number(tables, word):
    """As the monitor's page: decimal is a number, 0x an address."""
    value = number(word)
    if word[0] in "123456789":
        return value
    if value >= DIRECT:
        value = target(tables, value, tables.walk(value))
        if value is None:
            raise gdb.GdbError("nothing is mapped at " + word)
    return value // PAGE


def page(tables, words):
    """The record of a frame: page ADDR|PFN; PFN is decimal"""
    if len(words) != 1:
        raise gdb.GdbError("usage: mm page ADDR|PFN")
    pfn = frame_number(tables, words[0])
    value = record(tables, pfn)
    print("frame %u (0x%x), physical 0x%x" % (pfn, pfn, pfn * PAGE))
    if value is None or not is_first(value):
        print("  record : " + frame_text(value))
        return
    order = int(value["order"])
    print("  record : %s, order %u (%s), %u references" %
          (type_name(value), order, bytes_text(PAGE << order),
           int(value["refs"])))
    if type_name(value) == "table":
        print("  entries: %u in use" % (int(value["entries"]) & TABLE_COUNT))
    else:
        print("  owner  : 0x%x" % int(value["owner"]))


class Command(gdb.Command):
    """One of the functions above, as a command of gdb."""

    def __init__(self, name, function):
        self.__doc__ = function.__doc__
        super().__init__(name, gdb.COMMAND_DATA)
        self.function = function

    def invoke(self, argument, from_tty):
        with Physical() as memory:
            self.function(Tables(memory), gdb.string_to_argv(argument))


class Prefix(gdb.Command):
    """Page tables and frames of a stopped kernel."""

    def __init__(self):
        super().__init__("mm", gdb.COMMAND_DATA, prefix=True)


def is_free(name):
    try:
        gdb.execute("help " + name, to_string=True)
    except gdb.error:
        return True
    return False


Prefix()
for command in (pt, pagewalk, v2p, p2v, explain, page):
    Command("mm " + command.__name__, command)
    if is_free(command.__name__):
        Command(command.__name__, command)
