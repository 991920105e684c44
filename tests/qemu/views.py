# SPDX-License-Identifier: MIT
# views: gdb, QEMU and the kernel's monitor must see the same tables.
#
# Run by tests/qemu/under-gdb. Stops the kernel before its first command, finds
# addresses and frames worth asking about, has the monitor answer, stops it
# again and compares the answers with those of scripts/gdb/mm.py and of QEMU's
# own `info mem`, `info tlb` and `gva2gpa`. Ends as the kernel's tests do: with
# 33 if all agree, else with 35.
import json
import os
import re
import socket

import gdb

# Its names are ours: Tables, runs, P, RW, ...
gdb.execute("source scripts/gdb/mm.py")

PASSED, FAILED = 33, 35
RUNS = 10  # ranges at whose ends is asked: the commands must fit into 2 KiB
KMAP = 0xFFFFC00000000000  # a gap, or the guard of the first block

# In the space that the monitor makes and loads: a large page, a small one, the
# pages of an object, a guard.
SPACE = (0x40000000, 0x40201FFF, 0x40404000, 0x40600000)

differences = 0


def same(what, ours, theirs):
    """Two lists that must be equal, and not empty; say how they differ."""
    global differences
    if ours == theirs and ours:
        print("ok      %s: %u" % (what, len(ours)))
        return
    differences += 1
    print("FAILED  %s: %u and %u" % (what, len(ours), len(theirs)))
    for mine, other in zip(list(ours) + [None], list(theirs) + [None]):
        if mine != other:
            print("  | %s\n  | %s" % (mine, other))
            break


def answer(command):
    """Lines that gdb prints."""
    try:
        return gdb.execute(command, to_string=True).splitlines()
    except gdb.error as error:
        return [str(error)]


class Qemu:
    """QEMU's monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.file.readline()  # its greeting
        self.request("qmp_capabilities", {})

    def request(self, name, arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments}))
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "event" not in reply:
                return reply["return"]

    def answer(self, command):
        """Lines that it prints."""
        return self.request("human-monitor-command",
                            {"command-line": command}).splitlines()


def stop_at(place):
    gdb.execute("hbreak " + place, to_string=True)
    gdb.execute("continue", to_string=True)
    gdb.execute("delete", to_string=True)


# --- what is asked -----------------------------------------------------------


def spread(items, count):
    """Some of them, from all over the list, with the first and the last."""
    count = min(count, len(items))
    return [items[i * (len(items) - 1) // max(count - 1, 1)]
            for i in range(count)]


def frames_in_use(tables, count):
    """Physical addresses of frames of all types there are records for."""
    kind = gdb.lookup_type("struct frame_record")
    base = int(tables.memory.variable("record_base"))
    seen = {}
    for address, level, entry, _ in tables.leaves(base, base + (1 << 40)):
        data = tables.memory.read(frame_of(entry, level), span(level))
        for at in range(0, len(data), kind.sizeof):
            value = gdb.Value(data[at:at + kind.sizeof], kind)
            if int(value["refs"]) and is_first(value):
                pfn = (address + at - base) // kind.sizeof
                seen.setdefault(int(value["type"]), []).append(pfn * PAGE)
    return [pfn for pfns in seen.values() for pfn in spread(pfns, count)]


def absent(kind, bits, payload):
    return kind << 5 | bits | ~(payload << 12) & FRAME


# What start-up never makes: an entry in each state, and three in none.
PLANTED = (absent(1, RW | XD, 0), absent(2, US | XD, 0x1F), absent(3, XD, 0),
           absent(4, XD, 0), absent(6, COW | US, 7), absent(6, NONE, 8),
           absent(5, NONE | WAS_ACCESSED | OWN | XD, 0x77),
           absent(5, XD, 0x77), absent(1, WAS_DIRTY, 0), absent(7, 0, 0))


def plant(tables, run):
    """Put them into gaps of the table below @run; their addresses."""
    _, table, _, _ = tables.walk(run[0])[-1]
    entries = tables.memory.table(table)
    free = [i for i in range(1, 512) if not entries[i - 1] | entries[i]]
    places = free[::2][:len(PLANTED)]
    for index, entry in zip(places, PLANTED):
        gdb.selected_inferior().write_memory(table + 8 * index,
                                             struct.pack("<Q", entry))
    return [(run[0] & ~0x1FFFFF) + PAGE * index for index in places]


def questions():
    with Physical() as memory:
        tables = Tables(memory)
        listed = list(runs(tables, 0, 1 << 64))
        present = [run for run in listed if run[3] & P]
        guards = [run[0] for run in listed if not run[3] & P]
        ends = [end for run in spread(present, RUNS)
                for end in (run[0], run[0] + run[1] - 1)]
        frames = frames_in_use(tables, 2)
        walks = spread(ends, 3) + spread(guards, 1) + [KMAP, 0, *SPACE]
        walks += plant(tables, [run for run in present if run[2] == 0][-1])
    return ends, walks, frames


def ask(ends, walks, frames):
    """Have the monitor answer instead of what the command line asks."""
    commands = ["space demo", "pt -u -j", "pt -j", "pt -u", "pt"]
    commands += ["v2p 0x%x" % address for address in ends]
    commands += ["pagewalk 0x%x" % address for address in walks]
    commands += ["explain 0x%x" % address for address in walks]
    commands += ["page 0x%x" % address for address in frames]
    text = ";".join(commands).encode() + b"\0"
    room = int(gdb.parse_and_eval("sizeof(boot_info.command_line)"))
    if len(text) > room:
        raise gdb.GdbError("%u bytes of commands are too many" % len(text))
    buffer = int(gdb.parse_and_eval("&boot_info.command_line").cast(
        gdb.lookup_type("long"))) & MASK
    gdb.selected_inferior().write_memory(buffer, text)
    gdb.execute("set $rdi = %d" % buffer)
    stop_at("shutdown_debug_exit")


# --- what is compared --------------------------------------------------------


def matches(lines, pattern):
    return [match.group(0) for match in
            (re.match(pattern, line) for line in lines) if match]


def merged(ranges):
    """(start, end, rights): neighbours with equal rights are one."""
    out = []
    for start, end, rights in ranges:
        if out and out[-1][1] == start and out[-1][2] == rights:
            out[-1] = (out[-1][0], end, rights)
        else:
            out.append((start, end, rights))
    return ["%016x-%016x %s" % one for one in out]


def leaves_of(extent):
    """Each page of one object of pt -j, as a line of `info tlb`."""
    step = 4096 << 9 * extent["level"]
    start, last = int(extent["start"], 16), int(extent["end"], 16)
    physical = int(extent["physical"], 16)
    index = {"WB": 0, "WC": 1, "UC-": 2, "UC": 3}[extent["memory"]]
    flags = "".join(letter if is_set else "-" for letter, is_set in (
        ("X", not extent["exec"]), ("G", extent["global"]),
        ("P", extent["level"] > 0), ("C", index & 2), ("T", index & 1),
        ("U", extent["user"]), ("W", extent["write"])))
    return ["%016x: %016x %s" % (at, physical + at - start, flags)
            for at in range(start, last, step)]


def check_qemu(qemu, levels, extents, ends, walks):
    """QEMU's monitor and ours."""
    present = [extent for extent in extents if extent["present"]]
    # With 5 levels QEMU 7.2 never answers; info tlb says it all, unmerged.
    if levels == 4:
        same("info mem", merged(
            (int(extent["start"], 16), int(extent["end"], 16) + 1,
             ("u" if extent["user"] else "-") + "r" +
             ("w" if extent["write"] else "-")) for extent in present),
             [re.sub(r" [0-9a-f]{16} ", " ", line) for line in
              matches(qemu.answer("info mem"), r"[0-9a-f]{16}-.* [u-]r[w-]")])
    # Without D and A, which are not a matter of the tables' meaning.
    same("info tlb", [line for extent in present for line in leaves_of(extent)],
         [line[:38] + line[40:] for line in
          matches(qemu.answer("info tlb"), r"[0-9a-f]{16}: .*")])
    addresses = ends + [end + 1 & MASK for end in ends[1::2]] + walks
    same("gva2gpa", [answer("mm v2p 0x%x" % address)[0]
                     for address in addresses],
         [translation(qemu, address) for address in addresses])


def translation(qemu, address):
    line = qemu.answer("gva2gpa 0x%x" % address)[0].strip()
    found = re.match(r"gpa: (0x[0-9a-f]+|0)$", line)
    return found.group(1) if found else "nothing is mapped at 0x%x" % address


STEP = r" +(PML[45]|PDPT|PD|PT)\[.*"
TOGETHER = r"  all levels together: .*"
LEADS = r"  0x[0-9a-f]+ -> physical 0x[0-9a-f]+ \(frame 0x[0-9a-f]+:"
JUDGED = r"  (kernel|user) +(read|write|execute) *: .*"
RECORD = r"  (record |entries|owner  ): .*"


def check_gdb(log, ends, walks, frames):
    """The kernel's monitor and the commands of gdb."""
    line = (r"[0-9a-f]{16}-[0-9a-f]{16} +[0-9.]+ ([KMGT]iB|bytes) "
            r"(r\S{4} \S+ +\S+|-----)")
    same("pt", matches(log, line), matches(answer("mm pt"), line))
    same("v2p", matches(log, r"0x[0-9a-f]+$"),
         [answer("mm v2p 0x%x" % address)[0] for address in ends])
    told = [line.replace("  <- here", "") for line in log]
    asked = [line for command in ("pagewalk", "explain") for address in walks
             for line in answer("mm %s 0x%x" % (command, address))]
    for name, pattern in (("steps", STEP), ("rights", TOGETHER),
                          ("targets", LEADS)):
        same(name, matches(told, pattern), matches(asked, pattern))
    same("verdicts", [re.sub(r", error code 0x[0-9a-f]+", "", line)
                      for line in matches(log, JUDGED)],
         matches(asked, JUDGED))
    same("records", matches(log, RECORD),
         [line for address in frames for line in
          matches(answer("mm page 0x%x" % address), RECORD)])


def main():
    gdb.execute("set pagination off")
    gdb.execute("set confirm off")
    gdb.execute("target remote | exec sh " + os.environ["MACHINE"],
                to_string=True)
    stop_at("*monitor_execute")
    ends, walks, frames = questions()
    ask(ends, walks, frames)
    with open(os.environ["SERIAL"], encoding="utf-8", errors="replace") as file:
        log = file.read().replace("\r", "").splitlines()
    extents = [json.loads(line) for line in log if line.startswith('{"v":1')]
    check_gdb(log, ends, walks, frames)
    levels = int(gdb.parse_and_eval("pt_features.levels"))
    check_qemu(Qemu(os.environ["MACHINE"] + ".qmp"), levels, extents, ends,
               walks)
    gdb.execute("quit %d" % (FAILED if differences else PASSED))


main()
